"""The plain majority vote: a fixed number of rollouts for every question."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from optpo.errors import SettingsError
from optpo.voting.beta import leader_is_likelier
from optpo.voting.rule import Claim, Decision, Decisions, budget_problems, conclude, conclude_many
from optpo.voting.tally import Tallies, Tally


@dataclass(frozen=True)
class FixedRule:
    """Stop after exactly `votes` votes; the label is the answer with most of them.

    Ends as `decided` where one answer has most votes, `tied` or `empty` otherwise.
    Votes may be weighted: the label is then the answer with the highest sum of weights.

    The confidence is the posterior probability that the leader is the likelier of the two first
    answers, as in `BetaRule`. It ignores that the two were chosen after seeing the votes and that
    further answers may be likelier, so it is too high where many answers share the votes. Nothing
    is guaranteed of a `decided` label: a lead of one vote is enough.

    Args:
        votes: votes a question.
        at_cap: "leader" leaves a tie undecided, "first" takes the leader voted for first.

    Raises:
        SettingsError: settings out of range.

    >>> FixedRule(votes=3).decide(Tally((0, 0, 1))).kind
    'decided'
    """

    claims: ClassVar[Claim | None] = None
    refuses: ClassVar[Mapping[str, str]] = {
        "carried": "a plain vote counts the votes of one visit and nothing else"
    }

    votes: int = 64
    at_cap: Literal["leader", "first"] = "leader"

    def __post_init__(self) -> None:
        problems = []
        if budget_problems(1, self.votes):
            problems.append(f"votes = {self.votes!r}: must be a whole number, 1 or more")
        if self.at_cap not in ("leader", "first"):
            problems.append(f"at_cap = {self.at_cap!r}: must be one of leader, first")
        if problems:
            raise SettingsError(problems)

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
        likelier, log_odds = leader_is_likelier(tally.leader_votes, tally.runner_up_votes)
        return conclude(self, tally, sure=False, confidence=likelier, log_evidence=log_odds)

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say the same of many questions at once."""
        likelier, log_odds = leader_is_likelier(tallies.leader_votes, tallies.runner_up_votes)
        return conclude_many(
            self,
            tallies,
            sure=False,
            confidence=likelier,
            log_evidence=log_odds,
        )

    def look_ahead(self, tally: Tally) -> int:
        """Return the votes that are still missing."""
        return max(0, self.votes - tally.total)
