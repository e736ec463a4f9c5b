"""Questions of reasoning-gym's tasks, and what its scorers give for an answer."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optpo.data.worker import Worker
from optpo.errors import DataError

SOURCE = "reasoning-gym:"
SPELLING = "reasoning-gym:TASK:SIZE:SEED"
"""How such questions are named; without a seed it is 0, without a size too the default ones."""

TASK, METADATA = "reasoning_gym", "metadata"
"""The columns of such a question: its task, and what the task's scorer reads."""

DEFAULT_SIZE = 500
# A set may hold so many: question i of a set is made by seed SEED * _APART + i, so that sets of
# different seeds have no question in common by construction.
_APART = 1_000_000
_SECONDS_TO_SCORE, _SECONDS_TO_MAKE = 2.0, 600.0
_CLOCK_FACTOR = 10.0
_LONGEST_ANSWER = 20_000


def make_entries(name: str, limit: int | None) -> list[tuple[str, Mapping[str, Any]]]:
    """The id and the entry of every question that `name`, as SPELLING says, stands for.

    The same name gives the same questions in every process. Sets of different seeds are drawn
    independently; small tasks (coin_flip) repeat a question all the same.

    Raises:
        DataError: the name is wrong, reasoning-gym is not installed, or it cannot make them.
    """
    task, size, seed = _parsed(name)
    count = size if limit is None else min(size, limit)
    if task not in _tasks():
        near = get_close_matches(task, _tasks(), n=3, cutoff=0.5)
        meant = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(_tasks())}"
        raise DataError(f"{name}: reasoning-gym has no task {task!r}; {meant}")
    entries = _ask("make", task, seed * _APART, count, seconds=_SECONDS_TO_MAKE)
    if entries is None:
        raise DataError(f"{name}: reasoning-gym's task {task} cannot make {count} questions")
    return [(f"{task}-{seed}-{place}", entry) for place, entry in enumerate(entries)]


def reasoning_points(
    task: str, prompt: str, gold: str | None, metadata: Mapping[str, Any], answer: str | None
) -> float:
    """What a task's own scorer gives for an answer, from 0 to 1; 0 for none.

    0 too where the scorer raises or takes too long (some evaluate the answer as a formula), and
    where it would give full points to nonsense just as well and the answer is not the known one.

    Raises:
        DataError: reasoning-gym is not installed.
    """
    if answer is None or len(answer) > _LONGEST_ANSWER:
        return 0.0
    entry = {"question": prompt, "answer": gold, "metadata": metadata}
    points = _ask("score", task, entry, answer, seconds=_SECONDS_TO_SCORE)
    return min(1.0, max(0.0, float(points or 0.0)))


def _parsed(name: str) -> tuple[str, int, int]:
    task, *numbers = name.removeprefix(SOURCE).split(":")
    if not task or len(numbers) > 2 or not all(number.isdecimal() for number in numbers):
        raise DataError(f"{name} must be like {SPELLING}, such as {SOURCE}chain_sum:500:7")
    size, seed = (*map(int, numbers), *(DEFAULT_SIZE, 0)[len(numbers) :])
    if not 1 <= size <= _APART:
        raise DataError(f"{name}: the size is {size}; it must lie between 1 and {_APART:,}")
    return task, size, seed


@cache
def _tasks() -> tuple[str, ...]:
    return tuple(_ask("tasks", seconds=_SECONDS_TO_MAKE) or ())


_lock = threading.Lock()


@cache
def _worker() -> Worker:
    if find_spec("reasoning_gym") is None:
        raise DataError(
            "questions of reasoning-gym need it installed: pip install 'optpo[reasoning-gym]'"
        )
    # Five tasks go through sets of texts, whose order changes from process to process otherwise.
    return Worker(
        Path(__file__).with_name("reasoning_worker.py"), "reasoning-gym", {"PYTHONHASHSEED": "0"}
    )


def _ask(*question: Any, seconds: float) -> Any:
    with _lock:
        return _worker().ask(*question, seconds=seconds, clock_seconds=seconds * _CLOCK_FACTOR)
