"""How few votes reach an agreement: the curve of fitted policies, and curves at equal agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optpo.errors import SettingsError
from optpo.voting.frontier_fit import best_policy, learn_chain
from optpo.voting.frontier_policy import FrontierPolicy
from optpo.voting.recorded import RecordedVotes
from optpo.voting.runs import recorded_runs
from optpo.voting.tally import Integers, Tallies, Tally

COSTS = tuple(float(cost) for cost in np.geomspace(0.3, 1e-6, 49))
"""Prices of a vote in wrong labels that trace the whole curve, from hasty to patient."""


@dataclass(frozen=True)
class CurvePoint:
    """What a policy spends and reaches on questions it was not fitted on.

    Attributes:
        vote_cost: the price of a vote it was fitted for, in wrong labels.
        mean_votes: votes a question.
        agreement: the share of labels that are the most frequent of all recorded answers.
    """

    vote_cost: float
    mean_votes: float
    agreement: float


def frontier_curve(
    questions: Sequence[RecordedVotes],
    *,
    costs: Sequence[float] = COSTS,
    cap: int = 64,
    orders: int = 8,
    seed: int = 0,
) -> list[CurvePoint]:
    """The dynamic-programming limit: what near-optimal policies reach on unseen questions.

    The questions are parted at random into halves by id, so that the votes of several models on one
    question stay together. Policies are fitted on each half and applied to the other, from one vote
    on, in the orders that `replay` uses for the same seed. A policy sees the votes of leader and
    runner-up and the number of votes, so a rule that sees more, or is luckier, may beat it; and
    with few questions it is short of the best by what cannot be learnt from a half.

    Args:
        questions: recorded votes with two ids or more.
        costs: prices of a vote in wrong labels, a point each.
        cap: most votes, at most those of the shortest question.
        orders: orders of each question, 1 or more; the first is its own.
        seed: same seed, same curve.

    Raises:
        SettingsError: fewer than two ids, or a value is out of range.
    """
    cap = min([cap, *(len(question.votes) for question in questions)])
    halves = split_by_id(questions, seed)
    votes, agreed = np.zeros(len(costs)), np.zeros(len(costs))
    for fitted, applied in (halves, halves[::-1]):
        chain = learn_chain(Tallies.of([Tally(each.votes) for each in fitted]), cap=cap, seed=seed)
        runs = recorded_runs(applied, cap=cap, orders=orders, seed=seed)
        for place, cost in enumerate(costs):
            end = first_stop(best_policy(chain, cost), runs.tallies)
            votes[place] += end.sum()
            agreed[place] += runs.right[np.arange(len(end)), end].sum()
    total = len(questions) * orders
    return [
        CurvePoint(cost, float(spent), float(right))
        for cost, spent, right in zip(costs, votes / total, agreed / total, strict=True)
    ]


def votes_at_agreement(mean_votes: Sequence[float], agreement: Sequence[float], at: float) -> float:
    """The fewest mean votes with which the settings on a curve reach an agreement on average.

    Between two settings some questions may be asked with one and the rest with the other, so this
    is the line between them. Not a number where no setting agrees so often.

    >>> votes_at_agreement([1.0, 3.0, 9.0], [0.5, 0.75, 1.0], at=0.625)
    2.0
    """
    points = sorted(zip(mean_votes, agreement, strict=True))
    reaching = [votes for votes, agreed in points if agreed >= at]
    mixed = [
        low + (high - low) * (at - agreed_low) / (agreed_high - agreed_low)
        for low, agreed_low in points
        for high, agreed_high in points
        if agreed_low < at <= agreed_high
    ]
    return min(reaching + mixed, default=float("nan"))


def split_by_id(
    questions: Sequence[RecordedVotes], seed: int
) -> tuple[list[RecordedVotes], list[RecordedVotes]]:
    """Two halves of the ids at random, with all questions of each.

    Raises:
        SettingsError: there are fewer than two ids.
    """
    ids = sorted({question.id for question in questions})
    if len(ids) < 2:
        raise SettingsError([f"two halves need questions of two ids or more, found {len(ids)}"])
    drawn = np.random.default_rng(seed).permutation(len(ids))[: len(ids) // 2]
    chosen = {ids[number] for number in drawn}
    halves: tuple[list[RecordedVotes], list[RecordedVotes]] = ([], [])
    for question in questions:
        halves[question.id not in chosen].append(question)
    return halves


def first_stop(policy: FrontierPolicy, runs: Tallies) -> Integers:
    """(rows,) the votes after which the policy ends each; its cap where it does not before."""
    stop = policy.stops(runs.total, runs.leader_votes, runs.runner_up_votes)
    stop |= runs.total >= policy.cap
    return np.asarray(stop.argmax(axis=1))
