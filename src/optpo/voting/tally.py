"""The votes of a question, one at a time (`Tally`) or of many questions at once (`Tallies`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optpo.errors import DataError

UNPARSED = -1
"""The vote of a rollout in which no answer was found: it costs a rollout and can never lead."""

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Tally:
    """The votes of one question in the order of their rollout index.

    A vote is the number of an answer class (0, 1, 2, ...) or `UNPARSED`.

    Raises:
        DataError: a vote is neither.

    >>> tally = Tally((0, 1, 0, UNPARSED))
    >>> tally.leader, tally.leader_votes, tally.runner_up_votes, tally.total
    (0, 2, 1, 4)
    """

    votes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        wrong = [vote for vote in self.votes if vote < UNPARSED]
        if wrong:
            raise DataError(f"a vote is a class number from 0, or {UNPARSED} for unparsed: {wrong}")

    def add(self, vote: int) -> Tally:
        """Return the tally with one more vote."""
        return Tally((*self.votes, vote))

    def merge(self, kept: int, gone: int) -> Tally:
        """Return the tally with the votes of class `gone` given to class `kept`, where they stood.

        Raises:
            DataError: the two are the same class, or one of them is no class.
        """
        if kept == gone or min(kept, gone) < 0:
            raise DataError(f"cannot merge class {gone} into {kept}: name two classes, from 0")
        return Tally(tuple(kept if vote == gone else vote for vote in self.votes))

    @property
    def counts(self) -> dict[int, int]:
        """Votes by class, in the order of the first vote; unparsed votes are left out."""
        return dict(Counter(vote for vote in self.votes if vote != UNPARSED))

    @property
    def leader(self) -> int | None:
        """The class with most votes, at a tie the one voted for first; None without a class."""
        counts = self.counts
        return max(counts, key=counts.__getitem__, default=None)

    @property
    def leader_votes(self) -> int:
        """The votes of the leader, 0 without one."""
        return max(self.counts.values(), default=0)

    @property
    def runner_up_votes(self) -> int:
        """The votes of the second class, 0 without one; at a tie as many as the leader has."""
        return sorted([0, 0, *self.counts.values()])[-2]

    @property
    def total(self) -> int:
        """All votes, unparsed ones included."""
        return len(self.votes)

    @property
    def parsed(self) -> int:
        """The votes for a class."""
        return self.total - self.votes.count(UNPARSED)

    @property
    def tied(self) -> bool:
        """Whether the two first classes have the same number of votes, at least one each."""
        return self.leader_votes == self.runner_up_votes > 0

    def to_json(self) -> dict[str, Any]:
        """Return the tally as a value that `json` can write."""
        return {"votes": list(self.votes)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tally:
        """Read what `to_json` returned.

        Raises:
            DataError: it is something else.
        """
        try:
            votes = value["votes"]
            if all(type(vote) is int for vote in votes):
                return cls(tuple(votes))
        except (KeyError, TypeError):
            pass
        raise DataError(f'expected {{"votes": [class numbers]}}, found {value!r}')


@dataclass(frozen=True, eq=False)
class Tallies:
    """The votes of many questions as matrices, for decisions without a loop.

    Args:
        counts: (questions, classes) votes by class; the column is the class number.
        unparsed: (questions,) votes in which no answer was found.
        first_votes: (questions, classes) index of the first vote of a class, read only where
            the class has votes: the earlier one leads a tie. By default the classes came in the
            order of their numbers.

    Raises:
        DataError: the shapes differ, or a count is negative.
    """

    counts: Integers
    unparsed: Integers
    first_votes: Integers | None = None

    def __post_init__(self) -> None:
        counts = np.asarray(self.counts, dtype=np.int64)
        unparsed = np.asarray(self.unparsed, dtype=np.int64)
        if counts.ndim != 2 or unparsed.shape != counts.shape[:1]:
            raise DataError(
                "counts must be (questions, classes) and unparsed (questions,), "
                f"found {counts.shape} and {unparsed.shape}"
            )
        if self.first_votes is None:
            first_votes = np.broadcast_to(np.arange(counts.shape[1]), counts.shape)
        else:
            first_votes = np.asarray(self.first_votes, dtype=np.int64)
        if first_votes.shape != counts.shape:
            raise DataError(
                f"first_votes must have the shape of counts {counts.shape}, "
                f"found {first_votes.shape}"
            )
        if (counts < 0).any() or (unparsed < 0).any():
            raise DataError("counts and unparsed must be 0 or more")
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "unparsed", unparsed)
        object.__setattr__(self, "first_votes", first_votes)

    @classmethod
    def of(cls, tallies: Sequence[Tally]) -> Tallies:
        """Return the matrices of these tallies, a row each."""
        classes = 1 + max((vote for tally in tallies for vote in tally.votes), default=UNPARSED)
        counts = np.zeros((len(tallies), classes), dtype=np.int64)
        first_votes = np.zeros_like(counts)
        for row, tally in enumerate(tallies):
            for answer_class, votes in tally.counts.items():
                counts[row, answer_class] = votes
                first_votes[row, answer_class] = tally.votes.index(answer_class)
        unparsed = np.array([tally.total - tally.parsed for tally in tallies], dtype=np.int64)
        return cls(counts, unparsed, first_votes)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def leader(self) -> Integers:
        """(questions,) the leading class, -1 where no answer was parsed."""
        assert self.first_votes is not None
        if not self.counts.size:
            return np.full(len(self), UNPARSED, dtype=np.int64)
        latest = np.where(self.counts > 0, self.first_votes, 0).max()
        # More votes win; between equal votes the earlier first vote does.
        order = self.counts * (latest + 1) - self.first_votes
        leader = np.where(self.counts > 0, order, np.iinfo(np.int64).min).argmax(axis=1)
        return np.where(self.parsed > 0, leader, UNPARSED)

    @property
    def leader_votes(self) -> Integers:
        """(questions,) the votes of the leader."""
        return self._top_two[:, 1]

    @property
    def runner_up_votes(self) -> Integers:
        """(questions,) the votes of the second class."""
        return self._top_two[:, 0]

    @property
    def parsed(self) -> Integers:
        """(questions,) the votes for a class."""
        return np.asarray(self.counts.sum(axis=1))

    @property
    def total(self) -> Integers:
        """(questions,) all votes, unparsed ones included."""
        return self.parsed + self.unparsed

    @property
    def tied(self) -> NDArray[np.bool_]:
        """(questions,) whether the two first classes have equally many votes, at least one."""
        two = self._top_two
        return np.asarray((two[:, 0] == two[:, 1]) & (two[:, 0] > 0))

    @property
    def _top_two(self) -> Integers:
        padded = np.pad(self.counts, ((0, 0), (2, 0)))
        return np.partition(padded, -2, axis=1)[:, -2:]
