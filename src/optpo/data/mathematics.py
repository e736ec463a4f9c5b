"""Equality of mathematical answers by math-verify, in processes that can be killed."""

from __future__ import annotations

import re
from pathlib import Path
from queue import LifoQueue
from types import TracebackType

from optpo.data.worker import Worker
from optpo.errors import OptpoError, SettingsError

_JOB = Path(__file__).with_name("mathematics_worker.py")
# The worker's own limit counts processor time, so that a busy machine does not change a verdict;
# this many times as long on the clock is the limit if that fails.
_CLOCK_FACTOR = 10.0
_FUNCTIONS = re.compile(r"\\[A-Za-z]+|sqrt|sin|cos|tan|log|exp|max|min|pi")
_WORD = re.compile(r"[A-Za-z]{3}|^[\s$]*[A-Za-z]{2}[\s$]*$")


class MathVerifier:
    """Says whether two answers are the same mathematics; a context manager, usable from any thread.

    math-verify stops itself by a signal that works in the main thread only, and an answer like
    10^{10^{10}} burns its full time twice. So it runs in worker processes of this class, which
    bring no torch and are killed and replaced when an answer takes too long.

    Answers that are words ("cat") are never mathematics here, because math-verify reads a product
    of letters and finds "cat" equal to "act". A percentage equals percentages only.

    Args:
        workers: worker processes, 1 or more, started when needed.
        seconds: processor time one comparison may take.

    Raises:
        SettingsError: a setting is out of range.
    """

    def __init__(self, workers: int = 1, seconds: float = 2.0) -> None:
        problems = []
        if workers < 1:
            problems.append(f"workers = {workers}: must be 1 or more")
        if not 0 < seconds < float("inf"):
            problems.append(f"seconds = {seconds}: must be above 0")
        if problems:
            raise SettingsError(problems)
        self.seconds = seconds
        self._known: dict[tuple[str, str], bool | None] = {}
        self._count = workers
        self._idle: LifoQueue[Worker] = LifoQueue()
        for _ in range(workers):
            self._idle.put(Worker(_JOB, "math-verify"))
        self._closed = False

    def equal(self, a: str, b: str) -> bool | None:
        """Say whether `b` is the same as the reference `a`; None if it took too long or failed.

        The relation is not transitive (1.0000001 equals 1.0, 1.0 equals 1, and 1.0000001 does not
        equal 1), so classes of answers need a fixed representative: see `AnswerClasses`.

        Raises:
            OptpoError: the verifier is closed, or math-verify does not load.
        """
        if self._closed:
            raise OptpoError("this MathVerifier is closed")
        if _is_words(a) or _is_words(b) or _is_percentage(a) != _is_percentage(b):
            return False
        if (a, b) not in self._known:
            worker = self._idle.get()
            try:
                if self._closed:
                    raise OptpoError("this MathVerifier was closed while it compared")
                self._known[a, b] = worker.ask(
                    a, b, seconds=self.seconds, clock_seconds=self.seconds * _CLOCK_FACTOR
                )
            finally:
                self._idle.put(worker)
        return self._known[a, b]

    def close(self) -> None:
        """End the worker processes once they are idle; safe to call twice."""
        self._closed = True
        workers = [self._idle.get() for _ in range(self._count)]
        for worker in workers:
            worker.kill()
            # Whoever waits for a worker gets it and finds the verifier closed.
            self._idle.put(worker)

    def __enter__(self) -> MathVerifier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _is_percentage(answer: str) -> bool:
    return answer.rstrip(" .$").endswith("%")


def _is_words(answer: str) -> bool:
    if re.search(r"[0-9]", answer):
        return False
    return _WORD.search(_FUNCTIONS.sub(" ", answer)) is not None
