"""One budget of votes for a whole question set, spent where the next vote is worth most."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from optpo.errors import SettingsError
from optpo.voting.rule import budget_problems
from optpo.voting.tally import NO_VOTE, Floats, Integers, Tallies

HORIZON = 64
"""Further votes that are thought of together; behind a lead of as many nothing is worth a vote."""

# Votes for an answer that the table tells apart; more are read at the same lead.
_MOST = 256

_PRICES = np.geomspace(1e-15, 0.25, 256)


def value_of_next_vote(
    leader_votes: Any, runner_up_votes: Any, total: Any, cap: int = 64
) -> Floats:
    """The expected rise, a vote, of the probability that a question's label is its mode.

    With v1 votes for the leader and v2 for the runner-up the leader's share of the votes for these
    two is theta ~ Beta(v1 + 1, v2 + 1), as in `BetaRule`, and the leader is the wrong one of the two
    with probability e = P(theta < 1/2). One vote is too short a view: behind a lead of 2 it changes
    no label. So the value is the best rate over horizons, the largest (e - E[e after k votes]) / k
    for k = 1 ... `HORIZON`, times (v1 + v2 + 1) / (total + 1), the share of votes expected to be
    for one of the two. It is 0 where the votes left below the cap could not change the leader.

    It compares questions and promises nothing about a label: answers behind the first two count
    only as votes that are lost on them, and that the two were chosen after seeing the votes is
    ignored. Blend-ASC (2511.12309) ranks questions by how unsure they are now; this also tells a
    tie of 1:1, which few votes may settle, from one of 20:20. The prior is uniform; there is no
    setting.

    Args:
        leader_votes: v1 of questions, any shape; what is not a whole number is rounded.
        runner_up_votes: v2, of the same shape.
        total: all votes, unparsed ones included.
        cap: the most votes a question may have.

    >>> float(value_of_next_vote(0, 0, 0)), float(value_of_next_vote(2, 0, 2))
    (0.25, 0.00546875)
    """
    first, second, total = (np.rint(n).astype(int) for n in (leader_votes, runner_up_votes, total))
    beyond = np.maximum(0, first - _MOST)
    rate = _rates()[first - beyond, np.maximum(0, second - beyond)]
    share = np.minimum(1.0, (first + second + 1) / (total + 1))
    return np.where(first - second < cap - total, share * rate, 0.0)


def expected_cost(spent: Any, votes: Any, mean: Any) -> Any:
    """What the next vote of a question will cost: the mean of its votes and of one at `mean`."""
    return (spent + mean) / (votes + 1)


def spend(tallies: Tallies, budget: float, cap: int = 64, costs: Floats | None = None) -> Integers:
    """Replay a budget on recorded votes: each vote is of the question where it is worth most.

    The next vote goes where `value_of_next_vote`, divided by the expected cost, is highest; between
    equals to the first question. The replay ends at the first vote that the budget does not cover,
    or when none has any value.

    Args:
        tallies: the recorded votes.
        budget: votes for all questions together, or units of `costs`.
        cap: the most votes a question may have.
        costs: (questions, votes) what each recorded vote cost, its tokens for instance; 1 by default.

    Returns:
        (questions,) the votes that each question got.
    """
    values = _values_of(tallies, cap)
    if costs is None:
        costs = np.ones(values.shape)
    recorded = tallies.votes != NO_VOTE
    spent = np.cumsum(costs, axis=1) - costs
    # Before its first vote a question is taken to cost what the first votes cost on average.
    mean = costs[:, :1].mean(where=recorded[:, :1]) if recorded[:, :1].any() else 0.0
    values = values / expected_cost(spent, np.arange(values.shape[1]), mean or 1.0)
    # A question that is served goes on until it is worth less than it was at any time before, so
    # the votes are taken in the order of the least value until each.
    least = np.minimum.accumulate(values, axis=1)
    questions, places = np.nonzero(recorded & (least > 0))
    order = np.lexsort((places, questions, -least[questions, places]))
    paid = np.cumsum(costs[questions, places][order]) <= budget
    return np.bincount(questions[order][paid], minlength=len(tallies))


@dataclass(frozen=True)
class VoteStream:
    """A budget of votes for questions that come one after another, none known before its turn.

    Take votes on a question while the next one's value is above `price` and it has fewer than
    `most`; then go on with `after(votes)`. The price is the one at which a question is expected to
    use an equal part of the votes left: by the model of `value_of_next_vote`, scaled by how many
    more or fewer votes than the model expected the questions so far have used. It rises when the
    budget runs low and falls when votes are left over.

    That presumes that the questions to come are like those that came. The budget is never overrun,
    and every question gets one vote as long as there are any.

    Args:
        votes: votes left, 0 or more.
        questions: questions still to come, the next one included; 1 or more, 0 at the end.
        cap: the most votes a question may have.
        taken: votes of the questions that came.
        expected: votes that the model expected them to use at their prices.

    Raises:
        SettingsError: settings out of range, all of them together.

    >>> stream = VoteStream(votes=400, questions=100)
    >>> 0.005 < stream.price < 0.05, stream.most, stream.after(64).votes
    (True, 64, 336)
    """

    votes: int
    questions: int
    cap: int = 64
    taken: int = 0
    expected: float = 0.0

    def __post_init__(self) -> None:
        problems = [
            f"{name} = {value!r}: must be a whole number, 0 or more"
            for name, value in (("votes", self.votes), ("questions", self.questions))
            if type(value) is not int or value < 0
        ]
        problems += budget_problems(1, self.cap)
        if problems:
            raise SettingsError(problems)

    @property
    def price(self) -> float:
        """The value that a vote on the next question must be above."""
        prices, votes = _spending(self.cap)
        part = self.votes / max(1, self.questions)
        wanted = part * (self.expected + part) / (self.taken + part) if part else 0.0
        return float(np.interp(-wanted, -votes, prices)) if wanted < votes[0] else 0.0

    @property
    def most(self) -> int:
        """The most votes of the next question, so that those behind it still get one each."""
        spare = self.votes - max(1, self.questions) + 1
        return min(self.cap, max(min(1, self.votes), spare))

    def after(self, votes: int) -> VoteStream:
        """The stream after the next question used so many votes."""
        prices, expected = _spending(self.cap)
        return replace(
            self,
            votes=self.votes - votes,
            questions=self.questions - 1,
            taken=self.taken + votes,
            expected=self.expected + float(np.interp(self.price, prices, expected)),
        )


def spend_in_turn(tallies: Tallies, budget: int, cap: int = 64) -> Integers:
    """Replay a budget on recorded votes whose questions come one after another (`VoteStream`).

    Args:
        tallies: the recorded votes, a row a question in the order in which they come.
        budget: votes for all questions together.
        cap: the most votes a question may have.

    Returns:
        (questions,) the votes that each question got.
    """
    values = _values_of(tallies, cap)
    recorded = (tallies.votes != NO_VOTE).sum(axis=1)
    stream = VoteStream(int(budget), len(tallies), cap)
    taken = np.zeros(len(tallies), dtype=np.int64)
    for question, (value, available) in enumerate(zip(values, recorded, strict=True)):
        enough = np.append(value <= stream.price, True).argmax()
        taken[question] = min(max(enough, 1), available, stream.most)
        stream = stream.after(int(taken[question]))
    return taken


def _values_of(tallies: Tallies, cap: int) -> Floats:
    """(questions, votes) the value of each recorded vote before it was taken."""
    first, second = tallies.leader_votes[:, :-1], tallies.runner_up_votes[:, :-1]
    return value_of_next_vote(first, second, tallies.total[:, :-1], cap)


@cache
def _rates() -> Floats:
    """(_MOST + 1, _MOST + 1) the best rate over horizons, by votes for the one and the other answer."""
    from scipy.special import betainc

    size = _MOST + 1 + HORIZON
    one, other = np.mgrid[:size, :size]
    lead = abs(one - other)
    one_more = (one + 1) / (one + other + 2)
    now = betainc(np.maximum(one, other) + 1, np.minimum(one, other) + 1, 0.5)
    later, rates = now, np.zeros((size, size))
    for k in range(1, HORIZON + 1):
        size -= 1
        p = one_more[:size, :size]
        later = p * later[1:, :-1] + (1 - p) * later[:-1, 1:]
        # With fewer votes than that the leader stays, and the gain is nothing but rounding.
        gain = np.where(lead[:size, :size] < k, now[:size, :size] - later, 0.0)
        rates[:size, :size] = np.maximum(rates[:size, :size], gain / k)
    return rates[: _MOST + 1, : _MOST + 1]


@cache
def _spending(cap: int) -> tuple[Floats, Floats]:
    """Prices, and the votes that the model expects a question to use at each."""
    reached, expected = np.ones((len(_PRICES), 1)), np.zeros(len(_PRICES))
    for n in range(min(cap, _MOST)):
        one = np.arange(n + 1)
        value = value_of_next_vote(np.maximum(one, n - one), np.minimum(one, n - one), n, cap)
        going_on = reached * (value >= _PRICES[:, None])
        expected += going_on.sum(axis=1)
        reached = np.pad(going_on * (one + 1) / (n + 2), ((0, 0), (1, 0)))
        reached[:, :-1] += going_on * (n - one + 1) / (n + 2)
    return _PRICES, expected
