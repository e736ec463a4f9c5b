"""Rollouts in a file of JSON Lines: written as they come, read to be replayed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from optpo.errors import DataError
from optpo.json_lines import Problems, json_records
from optpo.rollout import FinishReason
from optpo.sampling.engine import Completion, Request

StoredRollouts = Mapping[tuple[str, int], Completion]
"""Completions by question and index; their handles mean nothing."""


def rollout_row(request: Request, completion: Completion) -> dict[str, Any]:
    """A completion as one line of a file."""
    return {
        "prompt_id": request.prompt_id,
        "index": request.index,
        "version": completion.version,
        "finish": completion.finish,
        "tokens": list(completion.tokens),
        "logps": list(completion.logps),
        "text": completion.text,
    }


def read_rollouts(path: str | Path) -> dict[tuple[str, int], Completion]:
    """Read what `rollout_row` wrote, or the rollouts of a step that a run directory holds.

    Each line has `prompt_id`, `index`, `finish` and `tokens`, and may have `logps`, `text` and
    `version`; other keys are ignored.

    Raises:
        DataError: the file cannot be read or holds nothing, lines are no rollouts, or one is there
            twice: says which lines and why.
    """
    try:
        with Path(path).open("rb") as file:
            stored = rollouts_in(file, str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if not stored:
        raise DataError(f"{path} holds no rollouts")
    return stored


def rollouts_in(lines: Iterable[bytes], source: str) -> dict[tuple[str, int], Completion]:
    """The rollouts in these lines, which may be none; raises as `read_rollouts` does."""
    stored: dict[tuple[str, int], Completion] = {}
    problems = Problems(source)
    for place, record in json_records(lines, problems):
        try:
            key, completion = _read(record)
        except (KeyError, TypeError, ValueError) as error:
            missing = f"there is no {error}" if isinstance(error, KeyError) else str(error)
            problems.add(place, f"not a rollout: {missing}")
            continue
        if key in stored:
            problems.add(place, f"rollout {key[1]} of question {key[0]!r} is there twice")
        stored[key] = completion
    problems.raise_any()
    return stored


def _read(record: Any) -> tuple[tuple[str, int], Completion]:
    if not isinstance(record, dict):
        raise TypeError(f"{record!r:.60} is no object")
    name, index, finish = record["prompt_id"], record["index"], record["finish"]
    tokens, logps = record["tokens"], record.get("logps") or []
    text, version = record.get("text"), record.get("version", 0)
    checks = {
        f"prompt_id is {name!r}; it must be text": isinstance(name, str),
        f"index is {index!r}; it must be a whole number from 0": _whole(index, 0),
        f"version is {version!r}; it must be a whole number from 0": _whole(version, 0),
        f"finish is {finish!r}; it must be one of {', '.join(get_args(FinishReason))}": (
            finish in get_args(FinishReason)
        ),
        "tokens must be a list of whole numbers": isinstance(tokens, list)
        and all(_whole(token, -1) for token in tokens),
        "logps must be a list of numbers, one a token, or empty": isinstance(logps, list)
        and isinstance(tokens, list)
        and len(logps) in (0, len(tokens))
        and all(isinstance(value, int | float) for value in logps),
        f"text is {text!r:.60}; it must be text or null": isinstance(text, str | None),
    }
    if problems := [problem for problem, holds in checks.items() if not holds]:
        raise ValueError("; ".join(problems))
    return (name, index), Completion(-1, tuple(tokens), tuple(logps), finish, version, text)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
