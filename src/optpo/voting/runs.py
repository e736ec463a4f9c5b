"""Votes to try stopping rules on, recorded or simulated, with what is right after each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optpo.errors import SettingsError
from optpo.voting.recorded import RecordedVotes
from optpo.voting.replay import order_of
from optpo.voting.tally import Integers, Tallies, Tally


@dataclass(frozen=True, eq=False)
class Runs:
    """Votes to try rules on.

    Attributes:
        tallies: a row each run.
        right: (rows, votes + 1) whether the leader is the mode after so many votes.
        questions: (rows,) the number of the question that each is a run of, from 0.
    """

    tallies: Tallies
    right: NDArray[np.bool_]
    questions: Integers


def recorded_runs(questions: Sequence[RecordedVotes], *, cap: int, orders: int, seed: int) -> Runs:
    """Recorded votes in the orders of `replay`; a mode is a most frequent recorded answer.

    Args:
        questions: recorded votes, `cap` or more each.
        cap: votes of a run.
        orders: runs of each question, the first in its own order.
        seed: same seed, same orders.
    """
    votes = [
        np.asarray(question.votes)[order_of(question, number, seed)[:cap]]
        for question in questions
        for number in range(orders)
    ]
    tallies = Tallies(np.array(votes))
    modes = modes_of(Tallies.of([Tally(question.votes) for question in questions]))
    rows = np.repeat(np.arange(len(questions)), orders)
    return Runs(tallies, modes[rows[:, None], tallies.leader], rows)


def simulated_runs(
    shapes: Sequence[Sequence[float]], *, cap: int, questions: int = 10_000, seed: int = 0
) -> Runs:
    """Independent votes with these shares of the answers, one run a question.

    Args:
        shapes: equally frequent kinds of question: for each the shares of the answers that come
            again and again. What they miss to 1 goes to answers that are given once only, which
            count as votes and never win.
        cap: votes of a run.
        questions: runs in all.
        seed: same seed, same votes.

    Raises:
        SettingsError: shares are no shares, or no answer has more than all others.
    """
    ordered = [sorted(shares, reverse=True) for shares in shapes]
    if problems := [problem for shares in ordered for problem in _shape_problems(shares)]:
        raise SettingsError(problems)
    rng = np.random.default_rng(seed)
    longest = max(map(len, ordered))
    ends = np.array([np.cumsum(shares + [0.0] * (longest - len(shares))) for shares in ordered])
    kinds = np.arange(questions) % len(ordered)
    drawn = rng.random((questions, cap))
    votes = np.zeros((questions, cap), dtype=np.int64)
    for column in ends.T:
        votes += drawn >= column[kinds, None]
    once = longest + np.arange(cap)
    tallies = Tallies(np.where(votes == longest, once, votes))
    return Runs(tallies, tallies.leader == 0, np.arange(questions))


def modes_of(tallies: Tallies) -> NDArray[np.bool_]:
    """(questions, classes + 1) whether a class has most of all votes; the last column is never."""
    for scores in tallies.scores():
        final = scores
    modes = (final == final.max(axis=1, initial=0)[:, None]) & (final > 0)
    return np.pad(modes, ((0, 0), (0, 1)))


def _shape_problems(shares: Sequence[float]) -> list[str]:
    text = ",".join(f"{share:g}" for share in shares)
    if not shares or not all(0 < share <= 1 for share in shares) or math.fsum(shares) > 1 + 1e-9:
        return [f"shares {text or 'of nothing'}: must be above 0 each, and sum to 1 at most"]
    if len(shares) > 1 and shares[0] == shares[1]:
        return [f"shares {text}: two answers share the lead, so no label is right"]
    return []
