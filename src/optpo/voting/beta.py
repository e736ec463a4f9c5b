"""Adaptive-Consistency's Beta criterion in closed form (arXiv 2305.11860)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from optpo.errors import SettingsError
from optpo.voting.look_ahead import fewest_votes_for_the_leader
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
    """Stop once the leader is probably the likelier of the two first answers.

    With v1 votes for the leader, v2 for the runner-up and theta the leader's share of the votes of
    these two, theta ~ Beta(v1 + `prior_leader`, v2 + `prior_rival`). The rule stops when
    P(theta > 1/2) = I_{1/2}(v2 + prior_rival, v1 + prior_leader), the regularised incomplete beta
    function, reaches `confidence`. Pseudo-votes of 1 and 1 are the paper's; 0 and 1 make it one
    minus the p-value of a fair coin, which ConSol (2503.17587) also stops by; more for the rival
    than for the leader make up for the leader's being whoever happened to be ahead.

    It is a heuristic: a Bayesian posterior for two answers fixed beforehand, read after every vote.
    It has no control over stopping at the best moment, ignores that the two were chosen after
    seeing the votes, and ignores all further answers: the error is above 1 - `confidence` where the
    two first are close. An unparsed vote counts towards floor and cap only.

    Args:
        confidence: in (1/2, 1); the paper's is 0.95.
        prior_leader: pseudo-votes of the leader, 0 to 1000.
        prior_rival: pseudo-votes of the runner-up, above 0 and up to 1000.
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
    prior_leader: float = 1.0
    prior_rival: float = 1.0
    floor: int = 1
    cap: int = 64
    at_cap: AtCap = "abstain"

    def __post_init__(self) -> None:
        problems = []
        if not 0.5 < self.confidence < 1:
            problems.append(f"confidence = {self.confidence!r}: must be above 0.5 and below 1")
        if not 0 <= self.prior_leader <= 1000:
            problems.append(f"prior_leader = {self.prior_leader!r}: must be from 0 to 1000 votes")
        if not 0 < self.prior_rival <= 1000:
            problems.append(
                f"prior_rival = {self.prior_rival!r}: must be above 0, up to 1000 votes"
            )
        problems += budget_problems(self.floor, self.cap, self.at_cap)
        if problems:
            raise SettingsError(problems)

    def decide(self, tally: Tally) -> Decision:
        """Say whether the vote is over."""
        likelier, log_odds = self._likelier(tally.leader_votes, tally.runner_up_votes)
        return conclude(
            self,
            tally,
            sure=likelier >= self.confidence,
            confidence=likelier,
            log_evidence=log_odds,
        )

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say the same of many questions at once."""
        likelier, log_odds = self._likelier(tallies.leader_votes, tallies.runner_up_votes)
        return conclude_many(
            self,
            tallies,
            sure=likelier >= self.confidence,
            confidence=likelier,
            log_evidence=log_odds,
        )

    def look_ahead(self, tally: Tally) -> int:
        """Return the fewest further votes that could end the test if they all agreed.

        Votes for the leader are the quickest way; the posterior rises with each of them.
        """
        return fewest_votes_for_the_leader(self, tally)

    def _likelier(self, first: Any, second: Any) -> tuple[Any, Any]:
        return leader_is_likelier(first, second, self.prior_leader, self.prior_rival)


def leader_is_likelier(
    first: Any, second: Any, prior_leader: float = 1.0, prior_rival: float = 1.0
) -> tuple[Any, Any]:
    """P(theta > 1/2) for theta ~ Beta(first + prior_leader, second + prior_rival), and its log odds.

    Votes make few different pairs: one that came before is not worked out again, and of very many
    at once a table is made.

    Args:
        first: votes of the leader, a number or any shape.
        second: votes of the runner-up, of a shape that fits.
        prior_leader: pseudo-votes of the leader, 0 or more.
        prior_rival: pseudo-votes of the runner-up, above 0.
    """
    if isinstance(first, int) and isinstance(second, int):
        return _of_pair(first, second, prior_leader, prior_rival)
    first, second = np.asarray(first), np.asarray(second)
    size = max(first.max(initial=0), second.max(initial=0)) + 1
    whole = first.dtype.kind == second.dtype.kind == "i"
    if not whole or first.size < size * size:
        return _likelier(first, second, prior_leader, prior_rival)
    leads, rivals = np.arange(size)[:, None], np.arange(size)[None, :]
    values, logs = _likelier(leads, rivals, prior_leader, prior_rival)
    return values[first, second], logs[first, second]


@lru_cache(maxsize=65536)
def _of_pair(first: int, second: int, *prior: float) -> tuple[float, float]:
    likelier, log_odds = _likelier(np.array(first), np.array(second), *prior)
    return float(likelier), float(log_odds)


def _likelier(
    first: NDArray[Any], second: NDArray[Any], prior_leader: float, prior_rival: float
) -> tuple[Floats, Floats]:
    betainc = _betainc()
    # Beyond some thousand votes the small side underflows; the odds then stay at their largest. As
    # no parameter may be 0, the same number stands for a leader with neither votes nor prior.
    smallest = math.ulp(0.0)
    own, other = np.maximum(first + prior_leader, smallest), second + prior_rival
    likelier = np.asarray(betainc(other, own, 0.5), dtype=np.float64)
    unlikelier = np.asarray(betainc(own, other, 0.5), dtype=np.float64)
    log_odds = np.log(np.maximum(likelier, smallest)) - np.log(np.maximum(unlikelier, smallest))
    return likelier, log_odds


@cache
def _betainc() -> Any:
    # Loaded at the first use because scipy.special takes longer than the rest of the room.
    from scipy.special import betainc

    return betainc
