"""Questions, and where they come from: files, datasets, reasoning-gym, or the library itself."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from difflib import get_close_matches
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from optpo.data.reasoning_tasks import METADATA, SOURCE, SPELLING, TASK, make_entries
from optpo.errors import DataError
from optpo.json_lines import ARRAY_HINT, Problems, json_records

EMBEDDED = ("adapt", "unseen")
"""The question sets that come with the library: to adapt on, and to test on afterwards."""

_LINES = (".jsonl", ".json")
_PARQUET = ".parquet"
_DATASET_NAME = re.compile(r"[\w.-]+/[\w.-]+(?P<split>:[^:/]+)?")


@dataclass(frozen=True)
class ChatMessage:
    """One message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Question:
    """A question with a stable `id`; `gold` is its known answer, or None.

    `columns` are the record's further fields, for reward functions: whatever JSON can hold.
    """

    id: str
    prompt: str | tuple[ChatMessage, ...]
    gold: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)


def load_questions(source: str | Path, limit: int | None = None) -> list[Question]:
    """Read questions; each record has `prompt`, optionally `id` and `gold`, and may have more.

    What it has more is kept in the question's columns: dates and decimals as text; what JSON cannot
    hold, such as a picture, is left out.

    Args:
        source: a file of JSON Lines (.jsonl, .json) or Parquet (.parquet); the words "adapt" or
            "unseen" for the embedded sets; a task of reasoning-gym as "reasoning-gym:TASK:SIZE:SEED"
            (size 500 and seed 0 where they are left out); or a dataset as "hub/name" or
            "hub/name:split". A file of that name goes before a dataset, and a `Path` is always a
            file.
        limit: read the first so many questions and look at nothing after them.

    Raises:
        DataError: nothing there, or records that are no questions: says which lines and why.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit = {limit}: must be 1 or more, or none")
    name = str(source)
    if name in EMBEDDED and not isinstance(source, Path):
        path = Path(str(files("optpo.data") / "embedded" / f"{name}.jsonl"))
        return _from_lines(path, limit)
    if name.startswith(SOURCE) and not isinstance(source, Path):
        return _from_reasoning_gym(name, limit)
    path = Path(source)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}") from error
    if is_folder:
        inside = sorted(entry.name for entry in path.iterdir() if _readable(entry))
        found = f", such as {', '.join(inside[:5])}" if inside else ""
        raise DataError(f"{name} is a folder; name a file in it{found}")
    if is_file and path.suffix in _LINES:
        return _from_lines(path, limit)
    if is_file and path.suffix == _PARQUET:
        return _from_parquet(path, limit)
    if is_file:
        raise DataError(f"{name} is not a question file: use JSON Lines (.jsonl) or .parquet")
    if not isinstance(source, Path) and not _readable(path) and _DATASET_NAME.fullmatch(name):
        return _from_dataset(name, limit)
    raise DataError(f"no file {name}{_near_names(path)}")


def _from_reasoning_gym(name: str, limit: int | None) -> list[Question]:
    task, questions = name.split(":")[1], []
    for made_id, entry in make_entries(name, limit):
        columns = {TASK: task, METADATA: entry["metadata"]}
        questions.append(Question(made_id, entry["question"], entry["answer"], columns))
    return questions


def _readable(path: Path) -> bool:
    return path.suffix in (*_LINES, _PARQUET)


def _near_names(path: Path) -> str:
    if not path.parent.is_dir():
        return f": there is no folder {path.parent}"
    if path.name.startswith(SOURCE.rstrip(":")) or path.name.startswith(TASK):
        return f"; questions of reasoning-gym are named {SPELLING}"
    names = [*(entry.name for entry in path.parent.iterdir() if _readable(entry)), *EMBEDDED]
    near = get_close_matches(path.name, names, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _from_lines(path: Path, limit: int | None) -> list[Question]:
    problems = Problems(str(path))
    try:
        with path.open("rb") as file:
            return _questions(json_records(file, problems), limit, problems)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _from_parquet(path: Path, limit: int | None) -> list[Question]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    problems = Problems(str(path))

    def records() -> Iterator[tuple[str, Any]]:
        number = 0
        with ParquetFile(path) as file:
            for batch in file.iter_batches():
                for record in batch.to_pylist():
                    number += 1
                    yield f"row {number}", record

    try:
        return _questions(records(), limit, problems)
    except ArrowException as error:
        raise DataError(f"{path} is not a Parquet file: {error}") from error


def _from_dataset(name: str, limit: int | None) -> list[Question]:
    import datasets

    hub_name, _, split = name.partition(":")
    try:
        loaded = datasets.load_dataset(hub_name, split=split or None)
    except Exception as error:
        # The library raises a dozen unrelated kinds, network errors among them.
        raise DataError(f"no file {name}, and no dataset of that name: {error}") from error
    if isinstance(loaded, Mapping):
        splits = list(loaded)
        if len(splits) != 1:
            right = ", ".join(f"{hub_name}:{split}" for split in splits)
            raise DataError(f"dataset {hub_name} has several splits; name one: {right}")
        loaded = loaded[splits[0]]
    records = ((f"row {number}", record) for number, record in enumerate(loaded, start=1))
    return _questions(records, limit, Problems(f"dataset {name}"))


def _questions(
    records: Iterable[tuple[str, Any]], limit: int | None, problems: Problems
) -> list[Question]:
    """Check the records of a source, each with its place ("line 3"), and make questions of them."""
    questions: list[Question] = []
    places: dict[str, str] = {}
    for place, record in islice(records, limit):
        question = _question(record, place, problems)
        if question is None:
            continue
        if question.id in places:
            what = f"the same id {question.id!r}"
            if record.get("id") is None:
                what = "the same prompt and no id"
            problems.add(place, f"{what} as {places[question.id]}; ids must differ")
        places.setdefault(question.id, place)
        questions.append(question)
    problems.raise_any()
    if not questions:
        raise DataError(f"{problems.source} holds no questions")
    return questions


def _question(record: Any, place: str, problems: Problems) -> Question | None:
    if not isinstance(record, dict):
        hint = ARRAY_HINT if isinstance(record, list) else ""
        problems.add(place, f"expected an object with a prompt, found {_shown(record)}{hint}")
        return None
    found = len(problems.problems)
    prompt = _prompt(record, place, problems)
    gold, given_id = record.get("gold"), record.get("id")
    for name, value in (("gold", gold), ("id", given_id)):
        if not (value is None or _is_text_or_number(value)):
            problems.add(place, f"{name} must be text or a number, found {_shown(value)}")
    if isinstance(given_id, str) and not given_id.strip():
        problems.add(place, "id is empty; give it text, or leave it out")
    if prompt is None or len(problems.problems) > found:
        return None
    question_id = _made_id(prompt) if given_id is None else _as_text(given_id)
    # Blank, no answer could ever equal it.
    known = None if gold is None or not _as_text(gold).strip() else _as_text(gold)
    question = Question(question_id, prompt, known, _columns(record))
    try:
        columns = json.dumps(question.columns, ensure_ascii=False)
        f"{question.id}{_text(prompt)}{question.gold}{columns}".encode()
    except UnicodeEncodeError:
        problems.add(place, "holds half a surrogate pair (\\ud800 to \\udfff), which is no text")
        return None
    return question


def _columns(record: Mapping[str, Any]) -> dict[str, Any]:
    columns = {}
    for name, value in record.items():
        if name not in ("id", "prompt", "gold"):
            try:
                columns[str(name)] = json.loads(json.dumps(value, default=_plain))
            except (TypeError, ValueError, RecursionError):
                continue
    return columns


def _plain(value: Any) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError


def _as_text(value: str | float) -> str:
    # A column of whole numbers with gaps reads as 15.0; what was meant is 15.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _prompt(
    record: dict[str, Any], place: str, problems: Problems
) -> str | tuple[ChatMessage, ...] | None:
    if record.get("prompt") is None:
        near = [name for name in ("question", "problem", "input") if name in record]
        rename = f"; rename {near[0]!r}" if near else ""
        names = ", ".join(map(repr, list(record)[:10])) or "none"
        problems.add(place, f"no 'prompt'{rename}; the fields here are: {names}")
        return None
    prompt = record["prompt"]
    if isinstance(prompt, str):
        messages: tuple[ChatMessage, ...] | str = prompt
    elif isinstance(prompt, list) and all(_is_message(message) for message in prompt):
        messages = tuple(ChatMessage(message["role"], message["content"]) for message in prompt)
    else:
        problems.add(
            place,
            "prompt must be text or a list of messages like "
            f'{{"role": "user", "content": "..."}}, found {_shown(prompt)}',
        )
        return None
    if not _text(messages).strip():
        problems.add(place, "prompt is empty")
        return None
    return messages


def _is_text_or_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _is_message(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    role, content = message.get("role"), message.get("content")
    return isinstance(role, str) and bool(role) and isinstance(content, str)


def _text(prompt: str | tuple[ChatMessage, ...]) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message.content for message in prompt)


def _made_id(prompt: str | tuple[ChatMessage, ...]) -> str:
    """Return an id that depends on the text alone, the same in every process and version."""
    if isinstance(prompt, str):
        written = prompt
    else:
        written = json.dumps([[message.role, message.content] for message in prompt])
    return hashlib.sha256(written.encode(errors="surrogatepass")).hexdigest()[:16]


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
