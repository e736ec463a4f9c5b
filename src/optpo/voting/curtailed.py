"""Curtailment without loss: stop when the votes to come can no longer change the label."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, ClassVar, Literal

import numpy as np

from optpo.errors import SettingsError
from optpo.voting.appearance import by_appearance
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
from optpo.voting.tally import Tallies, Tally

# Sums of weights that are rounded must not settle a vote that is open on paper.
_SLACK = 1e-9


@dataclass(frozen=True)
class CurtailedRule:
    """Stop once the label of the full vote is settled, whatever the remaining votes are.

    With v1 votes for the leader, v2 for the runner-up and n of `cap` votes cast it is settled where
    v1 - v2 > cap - n: not even all remaining votes for the runner-up, or for an
    answer not yet seen, would make it draw level. Where a tie at the cap goes to the answer voted
    for first (`at_cap` "first") a later answer must overtake the leader, so a lead of cap - n over
    the later ones is enough. Votes may be weighted: a further one then weighs at most 1, and no tie
    is reckoned with, as sums of weights are not exact.

    Guaranteed without any assumption: the label is that of `FixedRule(cap)`, tie rule included; and
    with votes that all count 1 no rule of which that is true stops sooner. Answers that are merged
    late are an exception, as they can change a label that was settled. The label of the full vote
    need not be the mode, nor correct. An unparsed vote is one less to come.

    The confidence is 1 where the label is settled and 0 before: without an assumption on the votes
    to come nothing can be promised (`PredictiveRule` makes one). The evidence is 0 before and the
    largest there is where it is settled.

    Args:
        floor: fewest votes before it may stop.
        cap: votes of the full vote.
        at_cap: "first" gives a tie of the full vote to the leader voted for first, "leader" leaves it
            undecided, which takes a few more votes to know.

    Raises:
        SettingsError: settings out of range, all of them together.

    >>> CurtailedRule(cap=9).decide(Tally((0, 0, 1, 0, 0, 0))).kind
    'decided'
    """

    claims: ClassVar[Claim | None] = "full vote"
    refuses: ClassVar[Mapping[str, str]] = {
        "carried": "a full vote counts the votes of one visit and nothing else"
    }

    floor: int = 1
    cap: int = 64
    at_cap: Literal["leader", "first"] = "first"

    def __post_init__(self) -> None:
        problems = budget_problems(self.floor, self.cap)
        if self.at_cap not in ("leader", "first"):
            problems.append(f"at_cap = {self.at_cap!r}: must be one of leader, first")
        if problems:
            raise SettingsError(problems)

    def decide(self, tally: Tally) -> Decision:
        """Say whether the vote is over."""
        check_accepted(self, tally)
        rival = tally.runner_up_votes
        if self._reckons_with_ties(tally):
            earlier = takewhile(lambda number: number != tally.leader, tally.scores)
            rival = max([rival - 1, *(tally.scores[number] for number in earlier)])
        return conclude(self, tally, **self._reading(tally, rival))

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say the same of many questions at once."""
        check_accepted(self, tallies)
        rival = tallies.runner_up_votes
        if self._reckons_with_ties(tallies):
            votes, leader = by_appearance(tallies)
            rival = rival - 1
            for n, scores in enumerate(Tallies(votes).scores()):
                earlier = np.arange(scores.shape[1]) < leader[:, n, None]
                strongest = np.where(earlier, scores, -1).max(axis=1, initial=-1)
                np.maximum(rival[:, n], strongest, out=rival[:, n])
        return conclude_many(self, tallies, **self._reading(tallies, rival))

    def look_ahead(self, tally: Tally) -> int:
        """Return the fewest further votes that could end the test if they all agreed.

        Votes for the leader are the quickest way, as each wins a vote and leaves one less to come.
        """
        return fewest_votes_for_the_leader(self, tally)

    def _reckons_with_ties(self, tally: Tally | Tallies) -> bool:
        """Whether it knows who would win a tie: then a later rival is as good as a vote behind."""
        return self.at_cap == "first" and tally.weights is None

    def _reading(self, tally: Tally | Tallies, rival: Any) -> dict[str, Any]:
        """What to conclude from the score that the strongest rival has now."""
        remaining = self.cap - np.asarray(tally.total)
        beyond_reach = tally.leader_votes - rival > remaining * (1 + _SLACK)
        at_cap = (self.at_cap == "first") | np.logical_not(tally.tied)
        settled = np.where(remaining > 0, beyond_reach, at_cap)
        confidence = settled.astype(np.float64)
        return {
            "sure": settled,
            "confidence": confidence,
            "log_evidence": confidence * -np.log(np.finfo(np.float64).tiny),
        }
