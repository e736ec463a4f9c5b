"""Answers by when they were first given, the only name a rule may know them by beforehand."""

import numpy as np

from optpo.voting.tally import Integers, Tallies


def by_appearance(tallies: Tallies) -> tuple[Integers, Integers]:
    """Votes and leaders with each question's classes renumbered 0, 1, 2 ... by their first vote.

    Args:
        tallies: votes without carried ones, which have no first vote.

    Returns:
        (questions, votes) as `Tallies.votes` and (questions, votes + 1) as `Tallies.leader`.

    >>> votes, leader = by_appearance(Tallies(np.array([[7, 3, -1, 3]])))
    >>> votes.tolist(), leader.tolist()
    ([[0, 1, -1, 1]], [[-1, 0, 0, 0, 1]])
    """
    rows, columns = np.nonzero(np.diff(tallies.seen, axis=1))
    numbers = np.zeros((len(tallies), 1 + int(tallies.votes.max(initial=0))), dtype=np.int64)
    numbers[rows, tallies.votes[rows, columns]] = tallies.seen[rows, columns]

    def renumbered(classes: Integers) -> Integers:
        return np.where(classes >= 0, np.take_along_axis(numbers, classes.clip(0), 1), classes)

    return renumbered(tallies.votes), renumbered(tallies.leader)
