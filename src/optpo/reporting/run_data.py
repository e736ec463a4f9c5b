"""Reads a run directory, finished or not, into one value that the reports draw from."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optpo.errors import RunDirectoryError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunData:
    """What a run directory holds; a file the run has not written yet is an empty sequence or mapping.

    Where a step was done twice (killed and resumed), only its last line is kept.
    """

    directory: Path
    config: Row
    questions: tuple[Row, ...]
    steps: tuple[Row, ...]
    evaluations: tuple[Row, ...]
    verdicts: tuple[Row, ...]
    summary: Row

    @property
    def name(self) -> str:
        """The directory's own name."""
        return self.directory.resolve().name

    def rollouts_newest_first(self) -> Iterator[tuple[str, Iterator[Row]]]:
        """Yield each stored step's file name and its rollouts; files are large, so read as asked."""
        for path in sorted((self.directory / "rollouts").glob("step-*.jsonl"), reverse=True):
            yield path.stem, _rows(path)


def read_run(directory: Path) -> RunData:
    """Read the run in `directory`; only its `config.yaml` has to be there.

    Raises RunDirectoryError, naming the file, if the directory or its configuration is missing or
    if a file is damaged elsewhere than in its last line (which a killed run may leave half written).
    """
    return RunData(
        directory=directory,
        config=_read_config(directory),
        questions=tuple(_rows(directory / "questions.jsonl")),
        steps=_latest(_rows(directory / "metrics.jsonl"), ("step",)),
        evaluations=_latest(_rows(directory / "evaluations.jsonl"), ("step", "set")),
        verdicts=_latest(_rows(directory / "verdicts.jsonl"), ("step", "prompt_id")),
        summary=_read_summary(directory / "summary.json"),
    )


def number(row: Row, key: str) -> float | None:
    """Return the finite number under `key`, or None where there is none."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def total(rows: Sequence[Row], key: str) -> float | None:
    """Return the sum of `key` over the rows that have it, or None where no row has."""
    values = [value for row in rows if (value := number(row, key)) is not None]
    return sum(values) if values else None


def _read_config(directory: Path) -> Row:
    import yaml

    path = directory / "config.yaml"
    if not directory.is_dir():
        raise RunDirectoryError(
            f"{directory} is not a directory; give a directory that a run wrote"
        )
    if not path.is_file():
        raise RunDirectoryError(f"{directory} is not a run directory: it has no config.yaml")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8", errors="replace"))
    except yaml.YAMLError as error:
        raise RunDirectoryError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(config, dict):
        raise RunDirectoryError(f"{path} should hold a mapping of settings, and does not")
    return config


def _read_summary(path: Path) -> Row:
    if not path.is_file():
        return {}
    try:
        summary = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except json.JSONDecodeError as error:
        raise RunDirectoryError(f"{path} cannot be read as JSON: {error}") from error
    return summary if isinstance(summary, dict) else {}


def _rows(path: Path) -> Iterator[Row]:
    """Yield the objects of a JSON Lines file; none if the file is missing."""
    if not path.is_file():
        return
    broken: int | None = None
    with path.open(encoding="utf-8", errors="replace") as lines:
        for place, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if broken is not None:
                raise RunDirectoryError(
                    f"{path}, line {broken}: not a JSON object; the file is damaged"
                )
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                row = None
            if isinstance(row, dict):
                yield row
            else:
                broken = place


def _latest(rows: Iterator[Row], keys: Sequence[str]) -> tuple[Row, ...]:
    kept: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        place = tuple(row.get(key) for key in keys)
        kept.pop(place, None)
        kept[place] = row
    return tuple(kept.values())
