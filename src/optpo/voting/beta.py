"""Adaptive-Consistency's Beta criterion in closed form (arXiv 2305.11860)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from optpo.errors import SettingsError
from optpo.voting.rule import (
    AtCap,
    Claim,
    Decision,
    Decisions,
    budget_problems,
    conclude,
    conclude_many,
)
from optpo.voting.tally import Floats, Tallies, Tally


@dataclass(frozen=True)
class BetaRule:
    """Stop once the leader is probably the likelier of the two first answers (dossier 3).

    With v1 votes for the leader, v2 for the runner-up and theta the leader's share of the votes of
    these two, theta ~ Beta(v1 + 1, v2 + 1). The rule stops when P(theta > 1/2) =
    I_{1/2}(v2 + 1, v1 + 1), the regularised incomplete beta function, reaches `confidence`.

    It is a heuristic: a Bayesian posterior for two answers fixed beforehand, read after every vote.
    It has no control over stopping at the best moment, ignores that the two were chosen after
    seeing the votes, and ignores all further answers: the error is above 1 - `confidence` where the
    two first are close. An unparsed vote counts towards floor and cap only.

    Args:
        confidence: in (1/2, 1); the paper's is 0.95.
        floor: fewest votes before it may stop.
        cap: most votes; the paper's is 40.
        at_cap: what becomes of a vote it is not sure of at the cap.

    Raises:
        SettingsError: settings out of range, all of them together.

    >>> BetaRule(confidence=0.95).look_ahead(Tally())
    4
    """

    claims: ClassVar[Claim | None] = "mode"
    refuses: ClassVar[Mapping[str, str]] = {
        "weights": "the posterior counts whole votes as coin throws; a weighted one is none"
    }

    confidence: float = 0.95
    floor: int = 1
    cap: int = 64
    at_cap: AtCap = "abstain"

    def __post_init__(self) -> None:
        problems = []
        if not 0.5 < self.confidence < 1:
            problems.append(f"confidence = {self.confidence!r}: must be above 0.5 and below 1")
        problems += budget_problems(self.floor, self.cap, self.at_cap)
        if problems:
            raise SettingsError(problems)

    def decide(self, tally: Tally) -> Decision:
        """Say whether the vote is over."""
        likelier, log_odds = leader_is_likelier(tally.leader_votes, tally.runner_up_votes)
        return conclude(
            self,
            tally,
            at_cap=self.at_cap,
            sure=likelier >= self.confidence,
            confidence=likelier,
            log_evidence=log_odds,
        )

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say the same of many questions at once."""
        likelier, log_odds = leader_is_likelier(tallies.leader_votes, tallies.runner_up_votes)
        return conclude_many(
            self,
            tallies,
            at_cap=self.at_cap,
            sure=likelier >= self.confidence,
            confidence=likelier,
            log_evidence=log_odds,
        )

    def look_ahead(self, tally: Tally) -> int:
        """Return the fewest further votes that could end the test if they all agreed."""
        if self.decide(tally).stop:
            return 0
        # Votes for the leader are the quickest way; the posterior rises with each of them.
        more = np.arange(self.cap - tally.total + 1)
        likelier, _ = leader_is_likelier(tally.leader_votes + more, tally.runner_up_votes)
        enough = (likelier >= self.confidence) & (tally.total + more >= self.floor)
        return int(enough.argmax()) if enough.any() else self.cap - tally.total


def leader_is_likelier(first: Any, second: Any) -> tuple[Floats, Floats]:
    """P(theta > 1/2) for theta ~ Beta(first + 1, second + 1), and its log odds in nats.

    Args:
        first: votes of the leader, any shape.
        second: votes of the runner-up, of a shape that fits.
    """
    return by_pair(_likelier, first, second)


def by_pair(
    function: Callable[[Any, Any], tuple[Floats, Floats]], first: Any, second: Any
) -> tuple[Floats, Floats]:
    """`function(first, second)`, worked out once a pair where both are many whole numbers.

    Votes make few different pairs: a table is many times faster than a special function a vote.
    """
    first, second = np.asarray(first), np.asarray(second)
    size = max(first.max(initial=0), second.max(initial=0)) + 1
    whole = first.dtype.kind == second.dtype.kind == "i"
    if not whole or first.size < size * size:
        return function(first, second)
    values, logs = function(np.arange(size)[:, None], np.arange(size)[None, :])
    return values[first, second], logs[first, second]


def _likelier(first: NDArray[Any], second: NDArray[Any]) -> tuple[Floats, Floats]:
    betainc = _betainc()
    # Beyond some thousand votes the small side underflows; the odds then stay at their largest.
    smallest = math.ulp(0.0)
    likelier = np.asarray(betainc(second + 1.0, first + 1.0, 0.5), dtype=np.float64)
    unlikelier = np.asarray(betainc(first + 1.0, second + 1.0, 0.5), dtype=np.float64)
    log_odds = np.log(np.maximum(likelier, smallest)) - np.log(np.maximum(unlikelier, smallest))
    return likelier, log_odds


@cache
def _betainc() -> Any:
    # Loaded at the first use because scipy.special takes longer than the rest of the room.
    from scipy.special import betainc

    return betainc
