"""What to do about an answer that did not come: ask again, more slowly, not again, or give up."""

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

Remedy = Literal["again", "slower", "refused", "fatal"]
"""Ask again; ask again with fewer rollouts in flight; this question is refused, and would be again;
the server will not answer anybody."""

DOUBLINGS = 6
"""How often the longest pause between two attempts doubles."""


class AttemptError(Exception):
    """One attempt at a rollout failed: why, in words, and what to do about it.

    `wait` are the seconds that the server asked to be left alone for.
    """

    def __init__(self, remedy: Remedy, why: str, wait: float = 0.0) -> None:
        super().__init__(remedy, why, wait)
        self.remedy: Remedy = remedy
        self.why = why
        self.wait = wait

    def __str__(self) -> str:
        return self.why


def remedy_of(status: int, code: str | None = None) -> Remedy:
    """What an HTTP status asks for; `code` is the server's own word for the error, if it has one.

    >>> remedy_of(500), remedy_of(429), remedy_of(422), remedy_of(401)
    ('again', 'slower', 'refused', 'fatal')
    """
    if code == "insufficient_quota":
        return "fatal"
    if status in (408, 429, 503, 504, 529):
        return "slower"
    if status in (409, 425) or status >= 500:
        return "again"
    if status in (401, 402, 403, 404, 405, 407, 426) or status < 400:
        return "fatal"
    return "refused"


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float:
    """The seconds that a server asks to be left alone for; 0 where it does not say.

    Reads `retry-after-ms`, then `retry-after` in seconds or as an HTTP date.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    told = headers.get("retry-after")
    seconds = _number(told)
    if seconds is not None or told is None:
        return seconds or 0.0
    try:
        then = parsedate_to_datetime(told)
    except ValueError:
        return 0.0
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - (now or datetime.now(UTC))).total_seconds())


def pause(failures: int, first: float, draw: Callable[[], float] = random.random) -> float:
    """Seconds to wait after the n-th failure in a row: full jitter on a doubling limit.

    Uniform between 0 and first x 2^(failures - 1), `DOUBLINGS` times at most (the "full jitter" of
    Brooker, Exponential Backoff and Jitter, 2015); `draw` is uniform in [0, 1).

    >>> pause(1, 0.5, lambda: 1.0), pause(3, 0.5, lambda: 1.0), pause(50, 0.5, lambda: 1.0)
    (0.5, 2.0, 32.0)
    """
    return draw() * first * 2.0 ** min(failures - 1, DOUBLINGS)


def _number(text: str | None) -> float | None:
    """A finite number, 0 or more; none for anything else."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
