"""The rollouts of a vote that has not ended, on disk, so that it can go on where it was."""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from optpo.errors import RunDirectoryError, StorageError
from optpo.sampling.engine import Completion, Request
from optpo.sampling.stored_rollouts import StoredRollouts, rollout_row, rollouts_in


@dataclass
class Journal:
    """A file of JSON Lines: what the vote is about, then each rollout as it came back.

    `stored` are the rollouts that were there when it was opened.
    """

    path: Path
    stored: StoredRollouts
    _about: Mapping[str, Any]
    _stream: BinaryIO
    _lock: FileLock

    def begin(self) -> None:
        """Write down what the vote is about, unless the journal goes on.

        Raises StorageError where it cannot be written.
        """
        if not self.stored:
            _write(self._stream, self.path, {"about": self._about})

    def append(self, request: Request, completion: Completion) -> None:
        """Write a rollout down; one that was refused is not, so that it is asked for again.

        Raises StorageError where it cannot be written.
        """
        if completion.finish != "error":
            _write(self._stream, self.path, rollout_row(request, completion))

    def finish(self) -> None:
        """Remove the file: the vote has ended."""
        self.path.unlink()
        Path(self._lock.lock_file).unlink(missing_ok=True)


@contextmanager
def open_journal(path: Path, about: Mapping[str, Any]) -> Iterator[Journal]:
    """Open the journal that is there; one that holds no rollouts becomes an empty one, to `begin`.

    Raises:
        RunDirectoryError: the one there is about another vote (says in what), or is in use.
        DataError: it is damaged; a last line that a kill cut off is not, and is dropped.
        StorageError: it cannot be written.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
        stream = path.open("a+b", buffering=0)
    except Timeout:
        raise RunDirectoryError(f"{path} is in use by another optpo process") from None
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with stream:
            stream.seek(0)
            *lines, _cut_off = stream.read().split(b"\n")
            changes = _changes(path, lines[0], about) if lines else []
            if len(lines) < 2:
                # Nothing is lost with it, and a call that could not work may be corrected.
                lines = []
            elif changes:
                raise RunDirectoryError(
                    f"{path} holds the rollouts of a vote with other settings: {'; '.join(changes)}. "
                    "Vote with those again to go on, name another --out, or remove that file"
                )
            stream.truncate(sum(len(line) + 1 for line in lines))
            stored = rollouts_in([b"", *lines[1:]], str(path))
            yield Journal(path, stored, about, stream, lock)
    finally:
        lock.release()


def holds_rollouts(path: Path) -> bool:
    """Whether a journal is there that a vote can go on from."""
    return path.is_file() and path.read_bytes().count(b"\n") > 1


def _changes(path: Path, line: bytes, about: Mapping[str, Any]) -> list[str]:
    """What the journal's first line says otherwise than `about`."""
    try:
        before = json.loads(line)["about"]
        differing = [key for key in {**before, **about} if before.get(key) != about.get(key)]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RunDirectoryError(f"{path} is no journal of a vote; remove it") from None
    return [f"{key} was {before.get(key)}" for key in differing]


def _write(stream: BinaryIO, path: Path, row: Mapping[str, Any]) -> None:
    line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
    try:
        # Where the disk fills up in the middle of a line, this alone says nothing.
        if stream.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error
