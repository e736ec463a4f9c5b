"""JSON Lines that somebody else wrote: read line by line, with everything wrong told at once."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from optpo.errors import DataError

ARRAY_HINT = "; the file looks like one JSON array, write each object on its own line"

_PROBLEMS_SHOWN = 10


class Problems:
    """What is wrong with a source, collected so that a person can repair it in one go."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[str] = []

    def add(self, place: str, problem: str) -> None:
        """Remember what is wrong at a place, such as "line 3"."""
        self.problems.append(f"{self.source}, {place}: {problem}")

    def raise_any(self) -> None:
        """Raise a DataError that names the first problems and counts the others, if there are any."""
        if not self.problems:
            return
        shown = self.problems[:_PROBLEMS_SHOWN]
        more = len(self.problems) - len(shown)
        raise DataError("\n".join([*shown, *([f"... and {more} more"] if more else [])]))


def json_records(file: Iterable[bytes], problems: Problems) -> Iterator[tuple[str, Any]]:
    """Yield the place and the value of each line that is JSON; empty lines are left out."""
    offset = 0
    for number, line in enumerate(file, start=1):
        start, offset = offset, offset + len(line)
        place = f"line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if text:
                yield place, json.loads(text)
        except UnicodeDecodeError as error:
            # The byte-order mark that utf-8-sig skips does not count in the error's position.
            mark = 3 if number == 1 and line.startswith(b"\xef\xbb\xbf") else 0
            hint = "; it looks like UTF-16" if line[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
            where = start + mark + error.start
            problems.add(place, f"not UTF-8 at byte {where} of the file{hint}; save it as UTF-8")
        except json.JSONDecodeError as error:
            hint = ARRAY_HINT if text.startswith("[") else ""
            problems.add(place, f"not JSON at column {error.colno}: {error.msg}{hint}")
        except (ValueError, RecursionError) as error:
            problems.add(place, f"JSON that cannot be read: {error}")
