"""What the process behind `MathVerifier` does; it imports math-verify and nothing of optpo."""

from typing import Any


def load() -> None:
    """Load math-verify; the first comparison takes long."""
    answer("1", "1")


def answer(a: str, b: str) -> bool | None:
    """Say whether two answers are the same mathematics, None where one cannot be read."""
    from math_verify import parse, verify

    # Its own time limits are off: they need the main thread and run twice.
    parsed: list[Any] = [
        parse(f"${answer.strip().strip('$')}$", parsing_timeout=None) for answer in (a, b)
    ]
    if not all(parsed):
        return None
    return bool(verify(parsed[0], parsed[1], timeout_seconds=None))
