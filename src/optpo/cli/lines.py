"""JSON lines as they come: to standard output, or appended to a file."""

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optpo.cli.output import show
from optpo.errors import SettingsError, StorageError

WriteLine = Callable[[Mapping[str, Any]], None]


@contextmanager
def open_lines(name: str | None, flag: str, *, again: bool = False) -> Iterator[WriteLine]:
    """Yield a function that writes one line at once; "-" is standard output, None is nowhere.

    A file that holds something is written `again` from its beginning, or else refused.

    Raises:
        SettingsError: the file holds something already, or cannot be made; names the flag.
        StorageError: by the function, where a line cannot be written.
    """
    if name is None:
        yield lambda row: None
        return
    if name == "-":
        yield lambda row: show(json.dumps(row, ensure_ascii=False))
        return
    path = Path(name).expanduser()
    if not again and path.is_file() and path.stat().st_size:
        raise SettingsError([f"{flag} {path} exists already; name another file, or remove it"])
    try:
        stream = path.open("wb" if again else "ab", buffering=0)
    except OSError as error:
        raise SettingsError([f"{flag} {path}: {error.strerror}"]) from error

    def write(row: Mapping[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        try:
            # Where the disk fills up in the middle of a line, this alone says nothing.
            if stream.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise StorageError(f"{flag} {path}: {error.strerror}") from error

    with stream:
        yield write
