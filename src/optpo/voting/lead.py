"""The fixed-lead rule, and what it costs and misses where two answers matter."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from optpo.errors import DataError, SettingsError
from optpo.voting.beta import leader_is_likelier
from optpo.voting.rule import (
    AtCap,
    Claim,
    Decision,
    Decisions,
    budget_problems,
    conclude,
    conclude_many,
)
from optpo.voting.tally import Tallies, Tally

# An error that a lead has on paper (1 / (1 + 2^3) = 1 / 9) must ask for that lead and no larger.
_SLACK = 1e-9

# Log odds that exp can still take; an error is 0 long before.
_MOST = 700.0


@dataclass(frozen=True)
class LeadRule:
    """Stop once the leader is `by` votes ahead of the runner-up.

    It is what OptPO's test between these two comes to where all wrong answers share their
    probability equally (`OptpoRule.lead`), and at 3 what ConSol's two tests do
    (arXiv 2503.17587). An unparsed vote counts towards floor and cap only.

    Where only two answers matter its error is known exactly, see `lead_error`, `lead_votes` and
    `smallest_lead`; further rivals add to that error. Nothing is guaranteed without knowing how far
    apart the two are: shares of .6 and .4 under a lead of 3 go wrong in 23 % of cases.

    The confidence is the posterior probability that the leader is the likelier of the two, as in
    `BetaRule`: a heuristic figure, no claim. The same lead is worth less the more votes it took.

    Args:
        by: votes ahead, 1 or more.
        floor: fewest votes before it may stop.
        cap: most votes.
        at_cap: what becomes of a vote it is not sure of at the cap.

    Raises:
        SettingsError: settings out of range, all of them together.

    >>> LeadRule(by=3).decide(Tally((0, 1, 0, 0, 0))).kind
    'decided'
    """

    claims: ClassVar[Claim | None] = None
    refuses: ClassVar[Mapping[str, str]] = {
        "weights": "its error is that of a walk in whole steps; a weighted vote is none",
        "carried": "its error is that of a walk that starts level; carried votes would give a start",
    }

    by: int = 3
    floor: int = 1
    cap: int = 64
    at_cap: AtCap = "abstain"

    def __post_init__(self) -> None:
        problems = []
        if type(self.by) is not int or self.by < 1:
            problems.append(f"by = {self.by!r}: must be a whole number of votes, 1 or more")
        problems += budget_problems(self.floor, self.cap, self.at_cap)
        if problems:
            raise SettingsError(problems)

    def decide(self, tally: Tally) -> Decision:
        """Say whether the vote is over."""
        return conclude(self, tally, **self._standing(tally))

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say the same of many questions at once."""
        return conclude_many(self, tallies, **self._standing(tallies))

    def look_ahead(self, tally: Tally) -> int:
        """Return the fewest further votes that could end the test if they all agreed."""
        if self.decide(tally).stop:
            return 0
        missing = self.by - int(tally.leader_votes - tally.runner_up_votes)
        return min(max(missing, self.floor - tally.total), self.cap - tally.total)

    def _standing(self, tally: Tally | Tallies) -> dict[str, Any]:
        first, second = tally.leader_votes, tally.runner_up_votes
        likelier, log_odds = leader_is_likelier(first, second)
        return {
            "sure": first - second >= self.by,
            "confidence": likelier,
            "log_evidence": log_odds,
        }


def lead_error(first: float, second: float, by: int) -> float:
    """P(wrong) = 1 / (1 + (p1 / p2)^by): how often a lead of `by` names the lesser of two answers.

    Exact for independent votes and without a cap, whatever share of them, 1 - p1 - p2, changes
    nothing (gambler's ruin).

    Args:
        first: p1, the share of the likelier answer, above 0.
        second: p2, the share of the other, 0 or more and not above `first`.
        by: votes ahead, 1 or more.

    Raises:
        DataError: these are no such shares, or no lead.

    >>> round(lead_error(0.6, 0.4, by=3), 3)
    0.229
    """
    _check(first, second, by)
    return 1 / (1 + math.exp(_log_odds(first, second, by)))


def lead_votes(first: float, second: float, by: int) -> float:
    """E[votes] = by (1 - 2 P(wrong)) / (p1 - p2), and by^2 / (p1 + p2) where the two are equal.

    Votes for neither answer are counted too. Arguments, conditions and errors are those of
    `lead_error`.

    >>> round(lead_votes(0.6, 0.4, by=3), 1)
    8.1
    """
    _check(first, second, by)
    if first == second:
        return by * by / (first + second)
    return by * math.tanh(_log_odds(first, second, by) / 2) / (first - second)


def smallest_lead(first: float, second: float, error: float) -> int:
    """Return the smallest lead whose `lead_error` is at most `error`.

    Args:
        first: p1, the share of the likelier answer.
        second: p2, the share of the other, 0 or more and below `first`.
        error: in (0, 1/2).

    Raises:
        DataError: these are no such shares, or the error is out of range.

    >>> smallest_lead(0.6, 0.4, error=0.05)
    8
    """
    _check(first, second, 1)
    if first == second:
        raise DataError(f"shares {first} and {second}: no lead tells equal answers apart")
    if not 0 < error < 0.5:
        raise DataError(f"error must be above 0 and below 0.5, found {error}")
    threshold = (math.log1p(-error) - math.log(error)) * (1 - _SLACK)
    return max(1, math.ceil(threshold / _log_odds(first, second, 1)))


def _check(first: float, second: float, by: int) -> None:
    if not (0 <= second <= first and first > 0 and first + second <= 1 + 1e-9):
        raise DataError(
            "shares must be 0 or more, the likelier answer's first, and sum to 1 at most, "
            f"found {first} and {second}"
        )
    if by < 1:
        raise DataError(f"a lead is 1 vote or more, found {by}")


def _log_odds(first: float, second: float, by: int) -> float:
    """by ln(p1 / p2), exact for shares that are close."""
    if second == 0:
        return _MOST
    return min(_MOST, by * math.log1p((first - second) / second))
