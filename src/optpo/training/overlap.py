"""Sampling a step while the policy is still updated for the one before."""

from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import Event
from types import TracebackType

from optpo.training.sampled import Sampled
from optpo.training.sampler import Progress, Sampler


class Ahead:
    """Samples steps in a thread of its own, one ahead; a context manager.

    torch computes without Python's lock, so both threads get on where there are cores for both.
    What is sampled does not depend on timing: the thread's policy stays as it is while it runs.
    """

    def __init__(self, sampler: Sampler, progress: Progress) -> None:
        self._sampler, self._progress = sampler, progress
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sampling")
        self._begun: Future[Sampled] | None = None
        self._dropped = Event()
        # A thread cannot be ended from outside; of each rollout, at least, it makes text here.
        self._decode, sampler.voter.decode = sampler.voter.decode, self._decode_unless_dropped

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop what is being sampled; waits for the next rollout, where the thread notices."""
        self._dropped.set()
        self._thread.shutdown()

    def begin(self, step: int) -> None:
        """Sample this step in the thread."""
        self._begun = self._thread.submit(self._sampler.sample, step, self._progress)

    def result(self, step: int) -> Sampled:
        """The step that was begun, once it is sampled; else sample it now.

        Raises what went wrong in the thread.
        """
        begun, self._begun = self._begun, None
        return self._sampler.sample(step, self._progress) if begun is None else begun.result()

    def _decode_unless_dropped(self, tokens: Sequence[int]) -> str:
        if self._dropped.is_set():
            raise CancelledError
        return self._decode(tokens)
