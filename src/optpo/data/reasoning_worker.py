"""What the process behind the reasoning-gym questions does; it imports nothing of optpo."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

# Another text than any right answer: what gives it full points does not tell right from wrong.
_NONSENSE = "zzz"
# A task whose questions are not made by a seed alone.
_WITHOUT_A_SEED = {"composite"}


def load() -> None:
    """Load reasoning-gym, which takes two seconds."""
    _tasks()


def answer(verb: str, *arguments: Any) -> Any:
    """One of `tasks`, `make` and `score`."""
    verbs: dict[str, Callable[..., Any]] = {"tasks": _tasks, "make": _make, "score": _score}
    return verbs[verb](*arguments)


def _tasks() -> list[str]:
    from reasoning_gym.factory import DATASETS

    return sorted(set(DATASETS) - _WITHOUT_A_SEED)


def _make(task: str, begin: int, count: int) -> list[dict[str, Any]]:
    """The entries of a task from seed `begin` on, one a seed."""
    from reasoning_gym import create_dataset

    made = create_dataset(task, size=count, seed=begin)
    return [json.loads(json.dumps(made[place], default=str)) for place in range(count)]


def _score(task: str, entry: dict[str, Any], given: str | None) -> float:
    """The points of an answer, from 0 to 1; 0 for what the task's own scorer cannot read."""
    entry = _readable(task, json.dumps(entry))
    points = _points(task, entry, given)
    if points >= 1 and _points(task, entry, _NONSENSE) >= 1:
        # As game_of_life_halting, to whose scorer every text is "True".
        return float(_same(given, entry["answer"]))
    return points


@cache
def _readable(task: str, written: str) -> dict[str, Any]:
    """The entry as its scorer wants it: JSON has made lists of tuples, which some tasks compare."""
    as_lists: dict[str, Any] = json.loads(written)
    if as_lists["answer"] is None or _points(task, as_lists, as_lists["answer"]) >= 1:
        return as_lists
    as_tuples = {**as_lists, "metadata": _tuples(as_lists["metadata"])}
    return as_tuples if _points(task, as_tuples, as_lists["answer"]) >= 1 else as_lists


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _points(task: str, entry: dict[str, Any], given: str | None) -> float:
    try:
        return float(_scorer(task)(given, entry))
    except Exception:
        # prime_factorization raises on what is no number.
        return 0.0


@cache
def _scorer(task: str) -> Any:
    from reasoning_gym import get_score_answer_fn

    return get_score_answer_fn(task)


def _same(given: str | None, known: str | None) -> bool:
    if given is None or known is None:
        return False
    return given.strip().casefold() == known.strip().casefold()
