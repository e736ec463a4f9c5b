"""How a near-optimal stopping policy is learnt from recorded votes, by dynamic programming."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optpo.errors import SettingsError
from optpo.voting.beta import leader_is_likelier
from optpo.voting.frontier_policy import FrontierPolicy
from optpo.voting.runs import modes_of
from optpo.voting.tally import NO_VOTE, Floats, Integers, Tallies

# What is assumed of a state weighs as much as so many questions seen in it. Chosen once, on halves
# of four recorded sets; half or twice as much changes the votes at equal agreement by about 1 %.
_PAIR_WEIGHT = 100.0
_STATE_WEIGHT = 10.0
_STEP_WEIGHT = 30.0

_RUNS = 50_000
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class VoteChain:
    """What a vote does next, by state; all arrays are (cap + 1, cap + 1, cap // 2 + 1).

    A state is (n, v1, v2) as in `FrontierPolicy`; entries that are no states mean nothing.

    Attributes:
        questions: how many it was learnt from.
        right: the probability that the leader is the right label.
        leader: the probability that the next vote gives the leader one more, or makes one of two.
        runner_up: that it gives the runner-up one more short of that. Else both stay.
    """

    questions: int
    right: Floats
    leader: Floats
    runner_up: Floats

    @property
    def cap(self) -> int:
        """The most votes."""
        return len(self.right) - 1


def fit_frontier(
    tallies: Tallies, *, vote_cost: float, cap: int = 64, orders: int | None = None, seed: int = 0
) -> FrontierPolicy:
    """Learn the policy that makes mean votes * `vote_cost` + share of wrong labels smallest.

    A label is wrong where it is not the most frequent of all recorded answers, or one of them. See
    `FrontierRule` for what it promises.

    Args:
        tallies: recorded votes of many questions, each at least `cap`; more are better.
        vote_cost: the price of a vote in wrong labels, 0 or more: 0.002 spends up to 500 votes to
            avoid one. 0 runs to the cap.
        cap: most votes, 1 or more.
        orders: random orders of each question's votes to learn from; None is as many as make 50,000
            in all, at least 8. The fewer questions, the more orders help.
        seed: same seed, same policy.

    Raises:
        SettingsError: a value is out of range, or votes are too few, weighted or carried.

    >>> votes = np.array([[0, 0, 1, 0, 0, 2, 0, 0]] * 9 + [[0, 1, 1, 0, 2, 1, 1, 0]])
    >>> policy = fit_frontier(Tallies(votes), vote_cost=0.05, cap=6)
    >>> [bool(policy.stops(n, n, 0)) for n in (1, 2, 3, 4)]  # after n votes that agree
    [False, True, True, True]
    """
    return best_policy(learn_chain(tallies, cap=cap, orders=orders, seed=seed), vote_cost)


def learn_chain(
    tallies: Tallies, *, cap: int, orders: int | None = None, seed: int = 0
) -> VoteChain:
    """Learn from recorded votes, in random orders, how often each step follows and leads where.

    Arguments and errors are those of `fit_frontier`. States that few questions reach are taken to
    be as those with the same v1 and v2 at any n, and these to be as `BetaRule` has it; the next
    vote to be for each answer as often as the votes so far, one more each.
    """
    lengths = tallies.total[:, -1]
    problems = []
    if not len(tallies):
        problems.append("there are no recorded votes to learn from")
    elif type(cap) is not int or not 1 <= cap <= lengths.min():
        problems.append(
            f"cap = {cap!r}: must be 1 or more, and not above the {lengths.min()} votes of the "
            "shortest question"
        )
    if orders is not None and (type(orders) is not int or orders < 1):
        problems.append(f"orders = {orders!r}: must be a whole number, 1 or more")
    if tallies.weights is not None or tallies.carried is not None:
        problems.append("a policy is learnt from whole votes; these are weighted or carried")
    if problems:
        raise SettingsError(problems)
    orders = max(8, -(-_RUNS // len(tallies))) if orders is None else orders
    counts = _visits(tallies, cap, orders, np.random.default_rng(seed)) / orders
    visits, rights, steps, leads, follows = counts
    n, first, second = _states(cap)
    likelier, _ = leader_is_likelier(first[0], second[0])
    # The state's own visits are left out, lest they count twice.
    rights_elsewhere, elsewhere = rights.sum(axis=0) - rights, visits.sum(axis=0) - visits
    right = _towards(likelier, rights_elsewhere, elsewhere, _PAIR_WEIGHT)
    to_leader = (first + 1 + np.where(first == second, second + 1, 0)) / (n + 3)
    to_runner_up = np.where(first == second, 0, (second + 1) / (n + 3))
    return VoteChain(
        questions=len(tallies),
        right=_towards(right, rights, visits, _STATE_WEIGHT),
        leader=_towards(to_leader, leads, steps, _STEP_WEIGHT),
        runner_up=_towards(to_runner_up, follows, steps, _STEP_WEIGHT),
    )


def best_policy(chain: VoteChain, vote_cost: float) -> FrontierPolicy:
    """The policy with the least expected cost on this chain, by backward induction from the cap.

    Raises:
        SettingsError: the cost is out of range.
    """
    if not 0 <= vote_cost < np.inf:
        raise SettingsError([f"vote_cost = {vote_cost!r}: must be a number, 0 or more"])
    cap = chain.cap
    n, first, second = _states(cap)
    states = (second <= first) & (first + second <= n)
    wrong = 1 - chain.right
    cost = wrong[cap]
    gain = np.zeros_like(wrong)
    for step in range(cap - 1, -1, -1):
        expected = _after_one_vote(chain, step, cost)
        risk = np.maximum(_after_one_vote(chain, step, wrong[step + 1]), 1e-12)
        # A vote cannot raise the risk. Where the estimates say so, rare states look gloomier than
        # the common ones they follow; then halfway between a vote that leaves the risk as it is and
        # one that lowers it by the share that it does there.
        lowered = np.minimum(1.0, wrong[step] / risk) * expected
        further = vote_cost + (np.minimum(expected, wrong[step]) + lowered) / 2
        gain[step] = further - wrong[step]
        cost = np.where((gain[step] > 0) & (first[0] > second[0]), wrong[step], further)
    stop = (never_falling(gain, states) > 0) & states & (first > second)
    stop_at = np.where(stop.any(axis=1), stop.argmax(axis=1), cap + 1)[:cap]
    right = np.clip(never_falling(chain.right, states), 1e-9, 1 - 1e-9)
    log_odds = np.where(states, np.round(np.log(right) - np.log1p(-right), 3), np.nan)
    return FrontierPolicy(float(vote_cost), cap, chain.questions, stop_at, log_odds)


def _after_one_vote(chain: VoteChain, step: int, values: Floats) -> Floats:
    """The mean of the values of the states that follow those after `step` votes."""
    leader, runner_up = chain.leader[step], chain.runner_up[step]
    padded = np.pad(values, ((0, 1), (0, 1)))
    return np.asarray(
        leader * padded[1:, :-1] + runner_up * padded[:-1, 1:] + (1 - leader - runner_up) * values
    )


def never_falling(values: Floats, states: NDArray[np.bool_]) -> Floats:
    """Values put in the order that the tables of a policy have, halfway between two that have it.

    They never fall with v1, never rise with v2, and never fall with a vote for the leader. One
    takes the most of all states that must not have more, the other the least of those that must not
    have less; values in order stay as they are.
    """
    high = np.where(states, values, -np.inf)
    low = np.where(states, values, np.inf)
    last = len(values) - 1
    for n in range(last + 1):
        if n:
            high[n, 1:] = np.maximum(high[n, 1:], high[n - 1, :-1])
        high[n] = np.maximum.accumulate(high[n], axis=0)
        high[n] = np.maximum.accumulate(high[n, :, ::-1], axis=1)[:, ::-1]
    for n in range(last, -1, -1):
        if n < last:
            low[n, :-1] = np.minimum(low[n, :-1], low[n + 1, 1:])
        low[n] = np.minimum.accumulate(low[n, ::-1], axis=0)[::-1]
        low[n] = np.minimum.accumulate(low[n], axis=1)
    return np.where(states, np.where(states, high, 0) + np.where(states, low, 0), 0) / 2


def in_random_order(votes: Integers, cap: int, rng: np.random.Generator) -> Integers:
    """(rows, cap) the first `cap` votes of each row in a random order."""
    keys = np.where(votes == NO_VOTE, 1.0, rng.random(votes.shape))
    return np.take_along_axis(votes, keys.argsort(axis=1)[:, :cap], axis=1)


def _visits(tallies: Tallies, cap: int, orders: int, rng: np.random.Generator) -> Floats:
    """By state: visits, visits with the right leader, steps, steps to leader and to runner-up."""
    shape = (cap + 1, cap + 1, cap // 2 + 1)
    counts = np.zeros((5, *shape))
    modes = modes_of(tallies)
    together = max(1, _ROWS_AT_ONCE // len(tallies))
    for start in range(0, orders, together):
        questions = np.tile(np.arange(len(tallies)), min(together, orders - start))
        runs = Tallies(in_random_order(tallies.votes[questions], cap, rng))
        first, second = runs.leader_votes, runs.runner_up_votes
        states = np.ravel_multi_index((runs.total, first, second), shape)
        right = modes[questions[:, None], runs.leader]
        led = first[:, 1:] > first[:, :-1]
        followed = (second[:, 1:] > second[:, :-1]) & ~led
        before = states[:, :-1]
        seen = (states, states[right], before, before[led], before[followed])
        for kind, visited in enumerate(seen):
            counts[kind].flat += np.bincount(visited.ravel(), minlength=counts[kind].size)
    return counts


def _states(cap: int) -> tuple[Integers, Integers, Integers]:
    """n, v1 and v2 of every entry of a table."""
    n, first, second = np.indices((cap + 1, cap + 1, cap // 2 + 1)).astype(np.int64)
    return n, first, second


def _towards(assumed: Floats, hits: Floats, trials: Floats, weight: float) -> Floats:
    """Shares of hits, drawn towards what is assumed by so many trials."""
    return np.asarray((hits + weight * assumed) / (trials + weight))
