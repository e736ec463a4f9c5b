"""Votes that were recorded before, read from JSON Lines to be replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optpo.errors import DataError
from optpo.json_lines import ARRAY_HINT, Problems, json_records
from optpo.voting.tally import UNPARSED

# Sums of tokens are exact in floating point below it.
_MOST_TOKENS = 2**53


@dataclass(frozen=True)
class RecordedVotes:
    """The recorded answers to one question, in the order in which they were generated.

    Attributes:
        id: the question's id.
        votes: the class of each answer, numbered in the order of the first vote, or `UNPARSED`.
        labels: of each class, the answer that was given first.
        gold: the known answer, or None.
        tokens: the tokens of each answer, or None.
        model: the model that answered, or None.
        right: the classes that are right answers; None where that is not known. It may be empty.
    """

    id: str
    votes: tuple[int, ...]
    labels: tuple[str, ...]
    gold: str | None = None
    tokens: tuple[int, ...] | None = None
    model: str | None = None
    right: frozenset[int] | None = None


def read_recorded(path: str | Path, key: Callable[[str], str] = str.strip) -> list[RecordedVotes]:
    """Read recorded votes from a file of JSON Lines, one question a line.

    Each has `id` and `answers` (a list of texts in the order of generation, "" or null where
    unparsed) and may have `tokens` (of each answer), `model`, and what is right: `correct` (true
    or false, or 1 or 0, for each answer), else `gold_set` (every right answer), else `gold`. Other
    keys are ignored. The same question may stand there once for every model.

    Args:
        path: the file.
        key: answers with the same key are one class, and right where a gold answer has that key;
            by default the text itself, without the space around it.

    Raises:
        DataError: the file cannot be read or holds nothing, or lines are no recorded votes: says
            which lines and why.
    """
    questions: dict[tuple[str, str | None], RecordedVotes] = {}
    places: dict[tuple[str, str | None], str] = {}
    problems = Problems(str(path))
    try:
        with Path(path).open("rb") as file:
            for place, record in json_records(file, problems):
                try:
                    question = _question(record, key)
                except _NotVotesError as error:
                    for problem in error.args:
                        problems.add(place, problem)
                    continue
                name = (question.id, question.model)
                if name in questions:
                    model = "" if question.model is None else f" and model {question.model!r}"
                    problems.add(
                        place,
                        f"the same id {question.id!r}{model} as {places[name]}; ids must differ, or "
                        "name another model",
                    )
                questions[name] = question
                places.setdefault(name, place)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    problems.raise_any()
    if not questions:
        raise DataError(f"{path} holds no recorded votes; it must hold one JSON object a line")
    return list(questions.values())


class _NotVotesError(Exception):
    """A line that is no recorded vote; its arguments say why, one a problem."""


def _question(record: Any, key: Callable[[str], str]) -> RecordedVotes:
    if not isinstance(record, dict):
        hint = ARRAY_HINT if isinstance(record, list) else ""
        raise _NotVotesError(
            f"expected an object with id and answers, found {_shown(record)}{hint}"
        )
    problems = list(_problems(record))
    if problems:
        raise _NotVotesError(*problems)
    classes: dict[str, int] = {}
    labels, votes = [], []
    for answer in record["answers"]:
        text = (answer or "").strip()
        if not text:
            votes.append(UNPARSED)
            continue
        name = key(text)
        if name not in classes:
            classes[name] = len(classes)
            labels.append(text)
        votes.append(classes[name])
    gold, correct, several = (record.get(name) for name in ("gold", "correct", "gold_set"))
    right = None
    if correct is not None:
        pairs = {(vote, bool(mark)) for vote, mark in zip(votes, correct, strict=True)}
        right = frozenset(vote for vote, mark in pairs if mark and vote != UNPARSED)
        if both := [labels[vote] for vote in right if (vote, False) in pairs]:
            raise _NotVotesError(f"correct calls the answer {both[0]!r} both right and wrong")
    elif several is not None or gold is not None:
        names = {key(str(answer)) for answer in ([gold] if several is None else several)}
        right = frozenset(number for name, number in classes.items() if name in names)
    return RecordedVotes(
        id=str(record["id"]),
        votes=tuple(votes),
        labels=tuple(labels),
        gold=None if gold is None else str(gold),
        tokens=None if record.get("tokens") is None else tuple(record["tokens"]),
        model=None if record.get("model") is None else str(record["model"]),
        right=right,
    )


def _problems(record: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the values of a record, key by key."""
    for name in ("id", "answers"):
        if record.get(name) is None:
            found = ", ".join(map(repr, list(record)[:10])) or "none"
            yield f"no {name!r}; the keys here are: {found}"
    for name in ("id", "gold", "model"):
        value = record.get(name)
        if value is not None and (type(value) not in (str, int) or not str(value).strip()):
            yield f"{name} must be text or a whole number, found {_shown(value)}"
    answers, several = record.get("answers"), record.get("gold_set")
    if answers is not None and not (
        isinstance(answers, list)
        and answers
        and all(answer is None or isinstance(answer, str) for answer in answers)
    ):
        yield f'answers must be a list of texts, one or more, "" if unparsed; found {_shown(answers)}'
    if several is not None and not (
        isinstance(several, list) and all(isinstance(answer, str) for answer in several)
    ):
        yield f"gold_set must be a list of texts, found {_shown(several)}"
    count = len(answers) if isinstance(answers, list) else None
    for name, kinds, most, what in (
        ("tokens", (int,), _MOST_TOKENS, "whole numbers, 0 or more"),
        ("correct", (int, bool), 1, "true or false"),
    ):
        value = record.get(name)
        if value is None:
            continue
        if not isinstance(value, list):
            yield f"{name} must be a list of {what}, found {_shown(value)}"
            continue
        wrong = [entry for entry in value if type(entry) not in kinds or not 0 <= entry <= most]
        if wrong:
            yield f"{name} must be a list of {what}, found {_shown(wrong[0])} in it"
        if count is not None and len(value) != count:
            yield f"{name} has {len(value)} entries for {count} answers; it must have one for each"


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
