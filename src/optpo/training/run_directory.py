"""A run's files: appended whole or replaced atomically, so that a kill loses one step at most."""

import json
import os
import platform
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

import optpo
from optpo.errors import RunDirectoryError

CONFIG, SUMMARY, LOCK = "config.yaml", "summary.json", ".lock"
LEDGERS = ("metrics.jsonl", "evaluations.jsonl", "verdicts.jsonl")


class RunDirectory:
    """The folder of one run, locked against a second process while it is open.

    Files: config.yaml, questions.jsonl, the ledgers (a line a step, evaluation or verdict),
    rollouts/, checkpoints/, final/, summary.json. Of several processes one opens it; the others
    look on: they read, and leave the writing to that one.
    """

    def __init__(self, path: Path, *, writes: bool = False) -> None:
        self.path, self.writes = path, writes
        self._lock = FileLock(path / LOCK)

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> "RunDirectory":
        """Make the folder and write its settings.

        Raises RunDirectoryError unless it is new or empty.
        """
        if path.exists() and not path.is_dir():
            raise RunDirectoryError(f"{path} is a file; choose a folder for the run")
        if (path / CONFIG).exists():
            raise RunDirectoryError(
                f"{path} already holds a run; go on with it by `optpo resume {path}`, "
                "or choose another folder"
            )
        if path.exists() and any(entry.name != LOCK for entry in path.iterdir()):
            raise RunDirectoryError(f"{path} is not empty and holds no run; choose another folder")
        path.mkdir(parents=True, exist_ok=True)
        directory = cls(path, writes=True)
        directory._acquire()
        whole = {**config, "versions": versions()}
        replace_text(path / CONFIG, yaml.safe_dump(whole, sort_keys=False))
        return directory

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Open the folder of an earlier run. Raises RunDirectoryError if it is none or in use."""
        read_config(path)
        directory = cls(path, writes=True)
        directory._acquire()
        return directory

    def close(self) -> None:
        """Let another process have the folder."""
        self._lock.release()

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append JSON lines to a file in one write, and wait until they are on the disk."""
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        if not data or not self.writes:
            return
        file = self.path / name
        file.parent.mkdir(exist_ok=True)
        with file.open("ab") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())

    def replace(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace a JSON Lines file."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        if self.writes:
            replace_text(self.path / name, text)

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Replace a JSON file."""
        if self.writes:
            text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
            replace_text(self.path / name, text)

    def forget_after(self, step: int) -> None:
        """Drop what was written for steps after `step`: traces of a step that was not finished."""
        for name in LEDGERS:
            file = self.path / name
            if file.exists():
                rows = list(complete_rows(file))
                self.replace(name, [row for row in rows if row["step"] <= step])
        for file in (self.path / "rollouts").glob("step-*.jsonl"):
            if self.writes and int(file.stem.removeprefix("step-")) > step:
                file.unlink()

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a JSON Lines file; none where it does not exist."""
        file = self.path / name
        return list(complete_rows(file)) if file.exists() else []

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunDirectoryError(f"{self.path} is in use by another optpo process") from None


def read_config(path: Path) -> dict[str, Any]:
    """The settings of the run in this folder. Raises RunDirectoryError if there is no run in it."""
    if not path.is_dir():
        raise RunDirectoryError(f"there is no run directory {path}")
    file = path / CONFIG
    if not file.is_file():
        raise RunDirectoryError(f"{path} is not a run directory: it has no {CONFIG}")
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunDirectoryError(f"{file} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise RunDirectoryError(f"{file} is damaged: it holds no settings")
    config.pop("versions", None)
    return config


def versions() -> dict[str, str]:
    """What a run's numbers depend on beside its settings."""
    return {
        "optpo": optpo.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "numpy")},
    }


def complete_rows(file: Path) -> Iterable[dict[str, Any]]:
    """Rows of a JSON Lines file, without a last line that a kill or a full disk cut off.

    Raises RunDirectoryError for any other line that is no JSON.
    """
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise RunDirectoryError(f"{file} is damaged: line {number} is no JSON") from error


def replace_text(file: Path, text: str) -> None:
    """Replace a file: readers see the old text or the new, never a part."""
    temporary = file.with_name(f".{file.name}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def replace_folder(temporary: Path, final: Path) -> None:
    """Put a finished folder in the place of another one, once it is on the disk."""
    for file in temporary.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    shutil.rmtree(final, ignore_errors=True)
    temporary.replace(final)
