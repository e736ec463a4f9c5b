"""Asking a run to stop: it finishes its step and saves it first."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def stop_on_signal(on_asked: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether a stop was asked for, by interrupt or termination.

    `on_asked` is told of the first such signal; the next one acts at once, as it did before. Outside
    the main thread signals cannot be caught, and nothing ever asks.
    """
    asked = False
    before: dict[signal.Signals, Any] = {}

    def ask(number: int, _: FrameType | None) -> None:
        nonlocal asked
        asked = True
        for caught, handler in before.items():
            signal.signal(caught, handler)
        on_asked("stopping when this step is saved; interrupt again to stop at once")

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    except ValueError:
        before.clear()
    try:
        yield lambda: asked
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
