"""Predictive curtailment: stop when the votes to come will hardly change the label."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np

from optpo.errors import SettingsError
from optpo.voting.look_ahead import fewest_votes_for_the_leader
from optpo.voting.rule import (
    Claim,
    Decision,
    Decisions,
    budget_problems,
    check_accepted,
    conclude,
    conclude_many,
)
from optpo.voting.tally import Floats, Tallies, Tally

# Chances that equal the error on paper must stop whatever the order in which they are summed.
_SLACK = 1e-9

_LARGEST_CAP = 512


@dataclass(frozen=True)
class PredictiveRule:
    """Stop once the label of the full vote is probably the present leader.

    The model is a Dirichlet process of the given `concentration` t: after n votes the next one
    repeats an earlier answer, each with probability (its votes) / (n + t), or is something new with
    probability t / (n + t). Unparsed votes are repeated like an answer, but cannot lead. The chance
    that the label at the cap is another than the leader is at most the sum, over all rivals seen,
    of the chance that this rival draws level with the leader by then, and the chance that all new
    answers together do. Each is exact; the rule stops when their sum is at most `error`. It is 0
    just where `CurtailedRule` stops that leaves ties undecided.

    Guaranteed: if the votes come from this model, at most `error` of the labels decided differ from
    that of the full vote, a tie at the cap counting as a difference. Reading it after every vote
    does no harm: the chance is a posterior probability, so its mean over the stops, whenever they
    are, is the share of labels that differ (here an upper bound, as chances of rivals are added
    up). But that is an average over the questions which the model expects, more than half of which
    have an answer with over 3/4 of the votes (for t = 1/2), and no promise about any one of them:
    between two answers of equal shares 22 % differ at the defaults. Nor does it hold where votes
    are far more diffuse than t says: an early run of equal votes then means less. With an `error`
    at or above the chance after a single vote (0.29 for t = 1/2, 0.5 for t = 1) the first vote is
    the label. The label of the full vote need not be the mode, nor correct.

    The confidence is 1 minus that chance, the evidence minus its logarithm.

    Args:
        error: chance, in (0, 0.5), that the label differs.
        concentration: t, from 0.01 to 100: two votes agree with probability 1 / (1 + t), which is
            2/3 on recorded votes of reasoning models on AIME.
        floor: fewest votes before it may stop.
        cap: votes of the full vote, at most 512, as its tables grow with the cube of it.
        at_cap: "leader" leaves a tie undecided, "first" takes the leader voted for first.

    Raises:
        SettingsError: settings out of range, all of them together.

    >>> PredictiveRule(error=0.05).look_ahead(Tally())
    3
    """

    claims: ClassVar[Claim | None] = "full vote"
    refuses: ClassVar[Mapping[str, str]] = {
        "weights": "its model draws whole votes; a weighted one has no chance to be drawn",
        "carried": "a full vote counts the votes of one visit and nothing else",
    }

    error: float = 0.05
    concentration: float = 0.5
    floor: int = 1
    cap: int = 64
    at_cap: Literal["leader", "first"] = "leader"

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.error < 0.5:
            problems.append(f"error = {self.error!r}: must be above 0 and below 0.5")
        if not 0.01 <= self.concentration <= 100:
            problems.append(f"concentration = {self.concentration!r}: must be from 0.01 to 100")
        problems += budget_problems(self.floor, self.cap)
        if type(self.cap) is int and self.cap > _LARGEST_CAP:
            problems.append(f"cap = {self.cap}: must be at most {_LARGEST_CAP} for this rule")
        if self.at_cap not in ("leader", "first"):
            problems.append(f"at_cap = {self.at_cap!r}: must be one of leader, first")
        if problems:
            raise SettingsError(problems)

    def decide(self, tally: Tally) -> Decision:
        """Say whether the vote is over."""
        check_accepted(self, tally)
        if tally.leader is None:
            chance = 1.0
        elif tally.total >= self.cap:
            chance = float(self.at_cap == "leader" and tally.tied)
        else:
            seen, new = _chances(self.cap, self.concentration)
            first, n = tally.counts[tally.leader], tally.total
            rivals = [votes for number, votes in tally.counts.items() if number != tally.leader]
            chance = new[n][first] + sum(seen[n][first, votes] for votes in rivals)
        return conclude(self, tally, **self._reading(chance))

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say the same of many questions at once."""
        check_accepted(self, tallies)
        seen, new = _chances(self.cap, self.concentration)
        leader, leader_votes = tallies.leader, tallies.leader_votes
        chance = np.where(leader >= 0, (self.at_cap == "leader") & tallies.tied, 1.0)
        for n, scores in zip(range(self.cap), tallies.scores(), strict=False):
            first = leader_votes[:, n]
            by_rival = seen[n].take(first[:, None] * (n + 1) + scores)
            named = np.flatnonzero(leader[:, n] >= 0)
            by_rival[named, leader[named, n]] = 0
            chance[:, n] = by_rival.sum(axis=1) + new[n][first]
        # A question with fewer votes keeps the chance that it had after its last.
        chance = np.take_along_axis(chance, tallies.total, axis=1)
        return conclude_many(self, tallies, **self._reading(chance))

    def look_ahead(self, tally: Tally) -> int:
        """Return the fewest further votes that could end the test if they all agreed.

        Votes for the leader are the quickest way, as each makes it less likely to be overtaken.
        """
        return fewest_votes_for_the_leader(self, tally)

    def _reading(self, chance: Any) -> dict[str, Any]:
        chance = np.minimum(chance, 1.0)
        return {
            "sure": chance <= self.error * (1 + _SLACK),
            "confidence": 1 - chance,
            "log_evidence": -np.log(np.maximum(chance, np.finfo(np.float64).tiny)),
        }


@lru_cache(maxsize=8)
def _chances(cap: int, concentration: float) -> tuple[list[Floats], list[Floats]]:
    """The chances after n < cap votes that a rival has as many votes as the leader at the cap.

    Returns:
        By n, the (n + 1, n + 1) table for a rival that was seen, by votes of the leader and of the
        rival; and the (n + 1,) table for all new answers together, by votes of the leader.
    """
    seen = _draws_level(cap, concentration, 0.0)
    new = _draws_level(cap, concentration, concentration)
    return [*seen][::-1], [table[:, 0].copy() for table in new][::-1]


def _draws_level(cap: int, concentration: float, before: float) -> Iterator[Floats]:
    """Yield the tables after cap - 1, cap - 2, ... 0 votes, each from the one after a vote more.

    Only the entries are right in which both have n votes together or fewer.

    Args:
        cap: votes of the full vote.
        concentration: as in `PredictiveRule`.
        before: how many votes the rival is worth before its first.
    """
    votes = np.arange(cap + 1.0)
    chance = (votes >= votes[:, None]).astype(np.float64)
    for n in range(cap - 1, -1, -1):
        rival = votes[: n + 1]
        leader = rival[:, None]
        neither = np.maximum(n + concentration - leader - rival - before, 0)
        chance = (
            leader * chance[1:, :-1]
            + (rival + before) * chance[:-1, 1:]
            + neither * chance[:-1, :-1]
        )
        chance /= n + concentration
        yield chance
