"""A stopping policy learnt from recorded votes, as a table and as a file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optpo.errors import DataError
from optpo.voting.tally import Floats, Integers

_FORMAT = "optpo frontier policy"
_VERSION = 1


@dataclass(frozen=True, eq=False)
class FrontierPolicy:
    """When to stop in each state of a vote, and how likely its leader is the right label there.

    A state is (n, v1, v2): votes so far, those of the leader, those of the runner-up. Both tables
    have the shape (cap + 1, cap + 1, cap // 2 + 1); only entries with v2 <= v1 <= n - v2 are states.

    Attributes:
        vote_cost: the price of a vote it was fitted for, in wrong labels.
        cap: most votes.
        questions: how many questions it was learnt from.
        stop_at: (cap, cap // 2 + 1) by n and v2: it stops from so many leader votes on, cap + 1
            where it does not stop. It never falls as v2 rises, a vote for the leader never undoes a
            stop, and no two leaders are stopped at.
        log_odds: by state, in nats: that the leader has most of all votes the question will ever
            have. With v1 it never falls, with v2 never rises, and a vote for the leader never
            lowers it.
    """

    vote_cost: float
    cap: int
    questions: int
    stop_at: Integers
    log_odds: Floats

    def stops(self, n: Any, first: Any, second: Any) -> NDArray[np.bool_]:
        """Whether it stops before the cap; all arguments are whole numbers, of shapes that fit."""
        rows, columns = np.minimum(n, self.cap - 1), np.minimum(second, self.cap // 2)
        return np.asarray((n < self.cap) & (first >= self.stop_at[rows, columns]))

    def evidence(self, n: Any, first: Any, second: Any) -> Floats:
        """The log odds of the states; beyond the cap those of the nearest state at the cap."""
        second = np.minimum(second, self.cap // 2)
        first = np.minimum(first, self.cap - second)
        return np.asarray(self.log_odds[np.minimum(n, self.cap), first, second])

    def save(self, path: str | Path) -> None:
        """Write it as JSON, a line for each number of votes; the log odds with three decimals."""
        stop_at = [
            [None if least > self.cap else least for least in row[: n // 2 + 1]]
            for n, row in enumerate(self.stop_at.tolist())
        ]
        log_odds = [
            [
                [
                    round(float(odds), 3)
                    for odds in self.log_odds[n, first, : min(first, n - first) + 1]
                ]
                for first in range(n + 1)
            ]
            for n in range(self.cap + 1)
        ]
        head = {"format": _FORMAT, "version": _VERSION, "vote_cost": self.vote_cost}
        head |= {"cap": self.cap, "questions": self.questions}
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        for key, table in (("stop_at", stop_at), ("log_odds", log_odds)):
            rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in table)
            lines.append(f"{json.dumps(key)}: [\n{rows}\n]")
        Path(path).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> FrontierPolicy:
        """Read what `save` wrote.

        Raises:
            DataError: the file cannot be read, or is no such policy: says what is wrong.
        """
        try:
            value = json.loads(Path(path).read_bytes())
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is not JSON: {error}") from error
        if problems := list(_problems(value)):
            raise DataError("\n".join(f"{path}: {problem}" for problem in problems))
        cap = value["cap"]
        stop_at = np.full((cap, cap // 2 + 1), cap + 1)
        for n, row in enumerate(value["stop_at"]):
            stop_at[n, : len(row)] = [cap + 1 if least is None else least for least in row]
        log_odds = np.full((cap + 1, cap + 1, cap // 2 + 1), np.nan)
        for n, first, row in _rows(value["log_odds"]):
            log_odds[n, first, : len(row)] = row
        if disorder := _disorder(stop_at, log_odds):
            raise DataError(f"{path}: {disorder}")
        return cls(float(value["vote_cost"]), cap, value["questions"], stop_at, log_odds)


def _problems(value: Any) -> Iterator[str]:
    """What keeps a JSON value from being a policy, before its tables are put in order."""
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        yield f'this is no policy; it must be an object with "format": "{_FORMAT}"'
        return
    if value.get("version") != _VERSION:
        yield f"version is {value.get('version')!r}; this optpo reads version {_VERSION}"
        return
    cost = value.get("vote_cost", -1)
    if type(cost) not in (int, float) or not 0 <= cost < math.inf:
        yield f"vote_cost is {value.get('vote_cost')!r}; it must be a number, 0 or more"
    for name in ("cap", "questions"):
        if type(value.get(name)) is not int or value[name] < 1:
            yield f"{name} is {value.get(name)!r}; it must be a whole number, 1 or more"
            return
    cap = value["cap"]
    for name, rows in (("stop_at", cap), ("log_odds", cap + 1)):
        table = value.get(name)
        if not isinstance(table, list) or len(table) != rows:
            yield f"{name} must have {rows} rows, one for each number of votes"
            return
        for n, row in enumerate(table):
            size = n // 2 + 1 if name == "stop_at" else n + 1
            if not isinstance(row, list) or len(row) != size:
                yield f"{name}[{n}] must have {size} entries"
                return
    for n, row in enumerate(value["stop_at"]):
        known = [least for least in row if least is not None]
        if wrong := [least for least in known if type(least) is not int or not 1 <= least <= cap]:
            yield f"stop_at[{n}] holds {wrong[0]!r}; it must hold leader votes, 1 to {cap}, and null"
    for n, first, row in _rows(value["log_odds"]):
        size = min(first, n - first) + 1
        if not isinstance(row, list) or len(row) != size:
            yield f"log_odds[{n}][{first}] must have {size} entries"
        elif wrong := [x for x in row if type(x) not in (int, float) or not math.isfinite(x)]:
            yield f"log_odds[{n}][{first}] holds {wrong[0]!r}; it must hold numbers"


def _rows(log_odds: list[list[Any]]) -> Iterator[tuple[int, int, Any]]:
    """Each number of votes, number of leader votes, and the row that belongs to them."""
    for n, table in enumerate(log_odds):
        for first, row in enumerate(table):
            yield n, first, row


def _disorder(stop_at: Integers, log_odds: Floats) -> str | None:
    """What breaks the order that a policy's tables have, in words; None where nothing does."""
    n, second = (np.asarray(place) for place in np.indices(stop_at.shape))
    states = np.asarray(2 * second <= n)
    falls = stop_at[:, 1:] < stop_at[:, :-1]
    undone = (stop_at[:-1] <= (n - second)[:-1]) & (stop_at[1:] > stop_at[:-1] + 1)
    disorders = {
        "log_odds{}: a leader vote more must not lower it": log_odds[:, 1:] < log_odds[:, :-1],
        "log_odds{}: a runner-up vote more must not raise it": log_odds[..., 1:]
        > log_odds[..., :-1],
        "log_odds{}: a further vote for the leader must not lower it": (
            log_odds[1:, 1:] < log_odds[:-1, :-1]
        ),
        "stop_at{}: must be above the runner-up's votes": states & (stop_at <= second),
        "stop_at{}: must not fall as the runner-up has more": states[:, 1:] & falls,
        "stop_at{}: a vote for the leader must not undo the stop": undone,
    }
    for problem, wrong in disorders.items():
        for place in np.argwhere(wrong).tolist():
            return problem.format("".join(f"[{number}]" for number in place))
    return None
