"""A near-optimal stopping rule, learnt from recorded votes by dynamic programming."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from optpo.errors import DataError, SettingsError
from optpo.voting.frontier_policy import FrontierPolicy
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
class FrontierRule:
    """Stop where a policy learnt from recorded votes does: few votes for its errors, near the fewest.

    The policy comes from `fit_frontier`. It minimises, over questions like the recorded ones, mean
    votes times the cost of a vote plus the share of wrong labels, by dynamic programming over the
    votes of leader and runner-up and all votes so far; "wrong" is a label that is not the most
    frequent of all recorded answers. So it stops where further votes are not worth their price:
    mostly as the leader is sure enough, but also as no affordable number of votes would settle it.

    The confidence is the share of recorded questions in that state whose leader was right,
    smoothed: where few were seen it falls back to `BetaRule`'s posterior. An unparsed vote brings
    the cap nearer, which may end the vote, and leaves the confidence as it was.

    Nothing is guaranteed. The confidence holds, and the policy is near-optimal, for questions and a
    model like those it was learnt from (same spread of difficulty, same habit of scattering wrong
    answers) and independent votes. It knows two answers and the number of votes, not how the rest
    is scattered, nor which answer it is.

    Args:
        file: the policy, as `FrontierPolicy.save` wrote it.
        least_confidence: in [0, 1); with less the rule is never sure: it asks on where the policy
            gives up, and abstains at the cap.
        floor: fewest votes before it may stop.
        cap: most votes; at most those of the policy.
        at_cap: what becomes of a vote it is not sure of at the cap.

    Raises:
        SettingsError: settings out of range, or the file is no policy; all of it together.

    >>> from tempfile import TemporaryDirectory
    >>> from optpo.voting import fit_frontier
    >>> recorded = Tallies.of([Tally((0,) * 8 + (1,) * 4)] * 20)
    >>> with TemporaryDirectory() as folder:
    ...     fit_frontier(recorded, vote_cost=0.02, cap=8).save(f"{folder}/policy.json")
    ...     FrontierRule(f"{folder}/policy.json", cap=8).look_ahead(Tally((0, 1, 0)))
    1
    """

    claims: ClassVar[Claim | None] = "mode"
    refuses: ClassVar[Mapping[str, str]] = {
        "weights": "its table was learnt from whole votes and has no entry for a part of one",
        "carried": "its table was learnt from votes of one visit; older ones would look like new",
    }

    file: str
    least_confidence: float = 0.5
    floor: int = 1
    cap: int = 64
    at_cap: AtCap = "abstain"

    def __post_init__(self) -> None:
        problems = budget_problems(self.floor, self.cap, self.at_cap)
        if not 0 <= self.least_confidence < 1:
            problems.append(f"least_confidence = {self.least_confidence!r}: must be in [0, 1)")
        try:
            policy = self.policy
        except DataError as error:
            problems += [f"file: {line}" for line in str(error).splitlines()]
        else:
            if not problems and self.cap > policy.cap:
                problems.append(
                    f"cap = {self.cap}: must not be above {policy.cap}, up to which the policy in "
                    f"{self.file} was fitted; fit one with a higher cap"
                )
        if problems:
            raise SettingsError(problems)

    @cached_property
    def policy(self) -> FrontierPolicy:
        """What the file held when it was read first; no setting, so equality ignores it."""
        return FrontierPolicy.load(self.file)

    def decide(self, tally: Tally) -> Decision:
        """Say whether the vote is over."""
        first, second = int(tally.leader_votes), int(tally.runner_up_votes)
        sure, confidence, evidence = self._judge(tally.total, tally.parsed, first, second)
        return conclude(
            self,
            tally,
            sure=sure,
            confidence=confidence,
            log_evidence=evidence,
        )

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say the same of many questions at once."""
        first = tallies.leader_votes.astype(np.int64)
        second = tallies.runner_up_votes.astype(np.int64)
        sure, confidence, evidence = self._judge(tallies.total, tallies.parsed, first, second)
        return conclude_many(
            self,
            tallies,
            sure=sure,
            confidence=confidence,
            log_evidence=evidence,
        )

    def look_ahead(self, tally: Tally) -> int:
        """Return the fewest further votes that could end the test if they all agreed."""
        return fewest_votes_for_the_leader(self, tally)

    def _judge(
        self, n: Any, parsed: Any, first: Any, second: Any
    ) -> tuple[NDArray[np.bool_], Floats, Floats]:
        """Whether it is sure, its confidence and its evidence."""
        evidence = self.policy.evidence(parsed, first, second)
        confidence = 0.5 * (1 + np.tanh(0.5 * evidence))
        over = (n >= self.cap) & (first > second)
        sure = self.policy.stops(n, first, second) | over
        return sure & (confidence >= self.least_confidence), confidence, evidence
