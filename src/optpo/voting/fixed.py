"""The plain majority vote: a fixed number of rollouts for every question."""

import math
from dataclasses import dataclass

import numpy as np

from optpo.errors import SettingsError
from optpo.voting.rule import Decision, Decisions, Floats, budget_problems, conclude, conclude_many
from optpo.voting.tally import Integers, Tallies, Tally


@dataclass(frozen=True)
class FixedRule:
    """Stop after exactly `votes` votes; the label is the answer with most of them.

    Ends as `decided` where one answer has most votes, `tied` or `empty` otherwise; never `capped`.

    The confidence is the posterior probability that the leader is the likelier of the two first
    answers: P(theta > 1/2) with theta ~ Beta(v1 + 1, v2 + 1) for v1 and v2 votes, that is the
    regularised incomplete beta function I_{1/2}(v2 + 1, v1 + 1) (dossier 3, Adaptive-Consistency).
    It ignores that the two were chosen after seeing the votes and that further answers may be
    likelier, so it is too high where many answers share the votes. Nothing is guaranteed of a
    `decided` label: a lead of one vote is enough.

    Raises:
        SettingsError: `votes` is no whole number from 1.

    >>> FixedRule(votes=3).decide(Tally((0, 0, 1))).kind
    'decided'
    """

    votes: int = 64

    def __post_init__(self) -> None:
        if budget_problems(1, self.votes):
            raise SettingsError([f"votes = {self.votes!r}: must be a whole number, 1 or more"])

    @property
    def floor(self) -> int:
        """The fewest votes: all of them."""
        return self.votes

    @property
    def cap(self) -> int:
        """The most votes."""
        return self.votes

    def decide(self, tally: Tally) -> Decision:
        """Say whether all votes are in, and which answer has most."""
        first, second = tally.leader_votes, tally.runner_up_votes
        confidence, log_odds = _leader_is_likelier(np.array([first]), np.array([second]))
        return conclude(
            tally,
            floor=self.floor,
            cap=self.cap,
            sure=first > second,
            confidence=float(confidence[0]),
            log_evidence=float(log_odds[0]),
        )

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say the same of many questions at once."""
        first, second = tallies.leader_votes, tallies.runner_up_votes
        confidence, log_odds = _leader_is_likelier(first, second)
        return conclude_many(
            tallies,
            floor=self.floor,
            cap=self.cap,
            sure=first > second,
            confidence=confidence,
            log_evidence=log_odds,
        )

    def look_ahead(self, tally: Tally) -> int:
        """Return the votes that are still missing."""
        return max(0, self.votes - tally.total)


def _leader_is_likelier(first: Integers, second: Integers) -> tuple[Floats, Floats]:
    # Imported here because scipy.special takes longer to load than the rest of the room.
    from scipy.special import betainc

    # Beyond some thousand votes the small side underflows; the odds then stay at their largest.
    smallest = math.ulp(0.0)
    likelier = np.asarray(betainc(second + 1.0, first + 1.0, 0.5), dtype=np.float64)
    unlikelier = np.asarray(betainc(first + 1.0, second + 1.0, 0.5), dtype=np.float64)
    log_odds = np.log(np.maximum(likelier, smallest)) - np.log(np.maximum(unlikelier, smallest))
    return np.where(first > 0, likelier, 0.0), log_odds
