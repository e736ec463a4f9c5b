"""The votes of a question, one at a time (`Tally`) or of many questions at once (`Tallies`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optpo.errors import DataError

UNPARSED = -1
"""The vote of a rollout in which no answer was found: it costs a rollout and can never lead."""

NO_VOTE = -2
"""Fills a row of `Tallies.votes` behind a question's last vote."""

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tally:
    """The votes of one question in the order of their rollout index.

    A vote is the number of an answer class (0, 1, 2, ...) or `UNPARSED`. Every vote counts 1, unless
    `weights` says how much less. What is known from an earlier visit may be `carried`: a number of
    votes by class, discounted, which counts for a class but is no vote of this visit.

    Args:
        votes: the votes.
        weights: one a vote, each in [0, 1]; None where every vote counts 1.
        carried: one a class from class 0, each 0 or more; classes beyond have none.

    Raises:
        DataError: a vote is neither class nor `UNPARSED`, or weights or carried votes do not fit.

    >>> tally = Tally((0, 1, 0, UNPARSED))
    >>> tally.leader, tally.leader_votes, tally.runner_up_votes, tally.total
    (0, 2, 1, 4)
    """

    votes: tuple[int, ...] = ()
    weights: tuple[float, ...] | None = None
    carried: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if min(self.votes, default=0) < UNPARSED:
            wrong = [vote for vote in self.votes if vote < UNPARSED]
            raise DataError(f"a vote is a class number from 0, or {UNPARSED} for unparsed: {wrong}")
        if self.weights is not None:
            if len(self.weights) != len(self.votes):
                raise DataError(f"{len(self.weights)} weights for {len(self.votes)} votes")
            if not all(0 <= weight <= 1 for weight in self.weights):
                raise DataError(f"weights must lie in [0, 1], found {self.weights}")
        if not all(0 <= votes < float("inf") for votes in self.carried):
            raise DataError(f"carried votes must be 0 or more, found {self.carried}")

    def add(self, vote: int, weight: float | None = None) -> Tally:
        """Return the tally with one more vote; with a weight in [0, 1] where votes have weights."""
        if (weight is None) != (self.weights is None) and self.votes:
            raise DataError("either every vote of a tally has a weight, or none")
        weights = None if weight is None else (*(self.weights or ()), weight)
        return Tally((*self.votes, vote), weights, self.carried)

    def merge(self, kept: int, gone: int) -> Tally:
        """Return the tally with the votes of class `gone` given to class `kept`, where they stood.

        Raises:
            DataError: the two are the same class, or one of them is no class.
        """
        if kept == gone or min(kept, gone) < 0:
            raise DataError(f"cannot merge class {gone} into {kept}: name two classes, from 0")
        votes = tuple(kept if vote == gone else vote for vote in self.votes)
        carried = [*self.carried, *[0.0] * (1 + max(kept, gone) - len(self.carried))]
        carried[kept] += carried[gone]
        carried[gone] = 0.0
        return Tally(votes, self.weights, tuple(carried) if any(carried) else ())

    @cached_property
    def counts(self) -> dict[int, int]:
        """Votes by class, in the order of the first vote; unparsed votes are left out."""
        counts = Counter(self.votes)
        counts.pop(UNPARSED, None)
        return dict(counts)

    @cached_property
    def scores(self) -> Mapping[int, float]:
        """What each class has: its votes, or their weights, and what was carried.

        Carried classes come first, then the others in the order of the first vote.
        """
        if self.weights is None and not self.carried:
            return self.counts
        scores = {number: votes for number, votes in enumerate(self.carried) if votes > 0}
        weights = self.weights or [1.0] * len(self.votes)
        for vote, weight in zip(self.votes, weights, strict=True):
            if vote != UNPARSED:
                scores[vote] = scores.get(vote, 0.0) + weight
        return scores

    @cached_property
    def leader(self) -> int | None:
        """The class with the highest score, at a tie the earlier one in `scores`; else None."""
        return max(self.scores, key=self.scores.__getitem__, default=None)

    @cached_property
    def leader_votes(self) -> float:
        """The score of the leader, 0 without one: its votes, where none is weighted or carried."""
        return max(self.scores.values(), default=0)

    @cached_property
    def runner_up_votes(self) -> float:
        """The score of the second class, 0 without one; at a tie the leader's."""
        scores = sorted(self.scores.values())
        return scores[-2] if len(scores) > 1 else 0

    @property
    def seen(self) -> int:
        """Classes that have votes, carried ones included."""
        return len(self.scores)

    @property
    def total(self) -> int:
        """All votes, unparsed ones included."""
        return len(self.votes)

    @cached_property
    def parsed(self) -> int:
        """The votes for a class."""
        return self.total - self.votes.count(UNPARSED)

    @property
    def tied(self) -> bool:
        """Whether the two first classes have the same score, above 0."""
        return self.leader_votes == self.runner_up_votes > 0

    def to_json(self) -> dict[str, Any]:
        """Return the tally as a value that `json` can write."""
        value: dict[str, Any] = {"votes": list(self.votes)}
        if self.weights is not None:
            value["weights"] = list(self.weights)
        if self.carried:
            value["carried"] = list(self.carried)
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tally:
        """Read what `to_json` returned.

        Raises:
            DataError: it is something else.
        """
        try:
            votes, weights = value["votes"], value.get("weights")
            if all(type(vote) is int for vote in votes):
                return cls(
                    tuple(votes),
                    None if weights is None else tuple(map(float, weights)),
                    tuple(map(float, value.get("carried", ()))),
                )
        except (KeyError, TypeError, ValueError, AttributeError):
            pass
        raise DataError(f'expected {{"votes": [class numbers]}}, found {value!r}')


@dataclass(frozen=True, eq=False)
class Tallies:
    """The votes of many questions as a matrix, and how each question stood after every vote.

    The properties have the shape (questions, votes + 1): column n is after n votes, column 0 before
    the first; behind a question's last vote the columns repeat it.

    Args:
        votes: (questions, votes) as in `Tally`, rows filled up with `NO_VOTE`.
        weights: (questions, votes) as in `Tally`, or None; read only where there is a vote.
        carried: (questions, classes) as in `Tally`, or None.

    Raises:
        DataError: shapes differ, a value is out of range, or a vote stands behind `NO_VOTE`.
    """

    votes: Integers
    weights: Floats | None = None
    carried: Floats | None = None

    def __post_init__(self) -> None:
        votes = np.asarray(self.votes, dtype=np.int64)
        object.__setattr__(self, "votes", votes)
        if votes.ndim != 2 or (votes < NO_VOTE).any():
            raise DataError(
                "votes must be (questions, votes): class numbers from 0, "
                f"{UNPARSED} for unparsed, {NO_VOTE} for none; found shape {votes.shape}"
            )
        missing = votes == NO_VOTE
        if (missing[:, :-1] & ~missing[:, 1:]).any():
            raise DataError(f"a vote stands behind {NO_VOTE}, which fills the end of a row")
        if self.weights is not None:
            weights = np.where(missing, 0.0, np.asarray(self.weights, dtype=np.float64))
            if weights.shape != votes.shape or not ((weights >= 0) & (weights <= 1)).all():
                raise DataError(f"weights must be {votes.shape} in [0, 1], found {weights.shape}")
            object.__setattr__(self, "weights", weights)
        if self.carried is not None:
            carried = np.asarray(self.carried, dtype=np.float64)
            fits = carried.ndim == 2 and len(carried) == len(votes)
            if not fits or not ((carried >= 0) & (carried < np.inf)).all():
                raise DataError("carried must be (questions, classes), 0 or more and finite each")
            object.__setattr__(self, "carried", carried)

    @classmethod
    def of(cls, tallies: Sequence[Tally]) -> Tallies:
        """Return the matrices of these tallies, a row each."""
        longest = max((tally.total for tally in tallies), default=0)
        votes = np.full((len(tallies), longest), NO_VOTE, dtype=np.int64)
        for row, tally in enumerate(tallies):
            votes[row, : tally.total] = tally.votes
        weights = carried = None
        if any(tally.weights is not None for tally in tallies):
            weights = np.ones(votes.shape)
            for row, tally in enumerate(tallies):
                if tally.weights is not None:
                    weights[row, : tally.total] = tally.weights
        if any(tally.carried for tally in tallies):
            carried = np.zeros((len(tallies), max(len(tally.carried) for tally in tallies)))
            for row, tally in enumerate(tallies):
                carried[row, : len(tally.carried)] = tally.carried
        return cls(votes, weights, carried)

    def __len__(self) -> int:
        return len(self.votes)

    @cached_property
    def total(self) -> Integers:
        """All votes, unparsed ones included."""
        return _running(self.votes != NO_VOTE)

    @cached_property
    def parsed(self) -> Integers:
        """The votes for a class."""
        return _running(self.votes >= 0)

    @property
    def leader(self) -> Integers:
        """The leading class as in `Tally`, -1 where there is none."""
        return self._standing[0]

    @property
    def leader_votes(self) -> NDArray[Any]:
        """The score of the leader: int64 votes, float64 where any is weighted or carried."""
        return self._standing[1]

    @property
    def runner_up_votes(self) -> NDArray[Any]:
        """The score of the second class."""
        return self._standing[2]

    @property
    def seen(self) -> Integers:
        """Classes that have votes, carried ones included."""
        return self._standing[3]

    @property
    def tied(self) -> NDArray[np.bool_]:
        """Whether the two first classes have the same score, above 0."""
        return np.asarray((self.leader_votes == self.runner_up_votes) & (self.leader_votes > 0))

    def scores(self) -> Iterator[NDArray[Any]]:
        """Yield the (questions, classes) scores after 0, 1, 2, ... votes.

        It is the same array each time, changed in place: read it before asking for the next.
        """
        exact = self.weights is None and self.carried is None
        scores = np.zeros((len(self), self._classes), dtype=np.int64 if exact else np.float64)
        if self.carried is not None:
            scores[:, : self.carried.shape[1]] = self.carried
        yield scores
        for column, votes in enumerate(self.votes.T):
            rows = np.flatnonzero(votes >= 0)
            scores[rows, votes[rows]] += 1 if self.weights is None else self.weights[rows, column]
            yield scores

    @property
    def _classes(self) -> int:
        carried = 0 if self.carried is None else self.carried.shape[1]
        return max(carried, 1 + int(self.votes.max(initial=UNPARSED)))

    @cached_property
    def _standing(self) -> tuple[Integers, NDArray[Any], NDArray[Any], Integers]:
        """Leader, its score, that of the second class, and the classes seen; a vote at a time."""
        questions, votes = self.votes.shape
        steps = self.scores()
        scores = next(steps)
        # Where a class stands in the order in which a tie is resolved: carried ones come first.
        places = np.where(scores > 0, np.arange(self._classes) - self._classes, votes)
        leader = np.full((votes + 1, questions), -1, dtype=np.int64)
        first = np.zeros((votes + 1, questions), dtype=scores.dtype)
        second, seen = first.copy(), np.zeros((votes + 1, questions), dtype=np.int64)
        if self._classes:
            leader[0] = np.where(scores.any(axis=1), scores.argmax(axis=1), -1)
            top = np.partition(np.pad(scores, ((0, 0), (1, 0))), -2, axis=1)
            first[0], second[0], seen[0] = top[:, -1], top[:, -2], (scores > 0).sum(axis=1)
        for n, scores in enumerate(steps, start=1):
            for array in (leader, first, second, seen):
                array[n] = array[n - 1]
            rows = np.flatnonzero(self.votes[:, n - 1] >= 0)
            classes = self.votes[rows, n - 1]
            new = places[rows, classes] == votes
            seen[n, rows] += new
            places[rows[new], classes[new]] = n - 1
            reached, led, lead = scores[rows, classes], leader[n, rows], first[n, rows]
            ahead = (reached > lead) | (led < 0)
            ahead |= (reached == lead) & (places[rows, classes] < places[rows, led])
            own = classes == led
            leader[n, rows] = np.where(ahead, classes, led)
            first[n, rows] = np.where(own | ahead, reached, lead)
            second[n, rows] = np.where(
                own, second[n, rows], np.where(ahead, lead, np.maximum(second[n, rows], reached))
            )
        return leader.T, first.T, second.T, seen.T


def _running(matrix: NDArray[np.bool_]) -> Integers:
    """(questions, votes + 1) how many of the first n are true."""
    return np.pad(matrix, ((0, 0), (1, 0))).cumsum(axis=1, dtype=np.int64)
