"""What runs in each process of a Ray pool: an engine that is told what to do and reports back."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from optpo.errors import EngineError
from optpo.sampling.engine import Capabilities, Completion, Engine, Request


@dataclass(frozen=True)
class Weights:
    """A policy's files by name, as bytes."""

    version: int
    files: Mapping[str, NDArray[np.uint8]]


def read_weights(version: int, folder: Path) -> Weights:
    """The weights and settings in a model's folder; no pickles. Raises EngineError without weights."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".json")]
    if not any(path.suffix == ".safetensors" for path in files):
        raise EngineError(f"{folder} holds no weights: there is no *.safetensors file in it")
    return Weights(version, {path.name: np.fromfile(path, np.uint8) for path in files})


@dataclass(frozen=True)
class Report:
    """What a worker has done since its last report, and how it stands.

    Handles are the pool's. `cancelled` are the tokens that rollouts had cost when they were dropped.
    """

    finished: Sequence[Completion]
    cancelled: Mapping[int, int]
    prefill_tokens: int
    slots: int
    capabilities: Capabilities
    version: int | None


@dataclass(frozen=True)
class _Orders:
    begin: Mapping[int, Request]
    cancel: Sequence[int]
    weights: Weights | None


class Worker:
    """One engine, polled without end by `run`; `tell` and `end` are called beside it."""

    def __init__(self, factory: Callable[[], Engine]) -> None:
        self._factory = factory
        self._changed = threading.Condition()
        self._inbox: dict[int, _Orders] = {}
        self._obeyed = 0
        self._closing = self._ended = False
        self._pool_handles: dict[int, int] = {}
        self._engine_handles: dict[int, int] = {}
        self._version: int | None = None

    def tell(
        self,
        number: int,
        begin: Mapping[int, Request],
        cancel: Sequence[int],
        weights: Weights | None,
    ) -> None:
        """Leave orders, numbered from 0; they are obeyed in that order, whatever comes first."""
        with self._changed:
            self._inbox[number] = _Orders(begin, cancel, weights)
            self._changed.notify_all()

    def end(self) -> None:
        """Come back when the engine is closed: after its present poll at the latest."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ended)

    def run(self, weights: Weights | None) -> Iterator[Report]:
        """Make the engine, then obey and poll until `end`; the first report says that it is there.

        Raises what the engine raises, and EngineError if it goes idle with rollouts missing.
        """
        engine = self._factory()
        try:
            if weights is not None:
                self._load(engine, weights)
            yield self._report(engine, [], {})
            while not self._closing:
                yield from self._go_on(engine)
        finally:
            engine.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _go_on(self, engine: Engine) -> Iterator[Report]:
        orders = self._next_orders()
        while orders is not None:
            for handle, request in orders.begin.items():
                inner = engine.submit(request)
                self._pool_handles[inner], self._engine_handles[handle] = handle, inner
            cancelled = {
                handle: engine.cancel(self._forget(handle))
                for handle in orders.cancel
                if handle in self._engine_handles
            }
            if orders.weights is not None:
                self._load(engine, orders.weights)
            if cancelled or orders.weights is not None:
                yield self._report(engine, [], cancelled)
            orders = self._next_orders()
        if self._closing or not self._pool_handles:
            return
        finished = []
        for completion in engine.poll():
            handle = self._pool_handles[completion.handle]
            self._forget(handle)
            finished.append(replace(completion, handle=handle))
        if not finished:
            raise EngineError(
                f"the engine went idle with {len(self._pool_handles)} rollouts missing"
            )
        yield self._report(engine, finished, {})

    def _next_orders(self) -> _Orders | None:
        """The next orders; waits for some where there is nothing to poll for."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._pool_handles or self._closing or self._obeyed in self._inbox
            )
            orders = self._inbox.pop(self._obeyed, None)
            self._obeyed += orders is not None
            return orders

    def _forget(self, handle: int) -> int:
        inner = self._engine_handles.pop(handle)
        del self._pool_handles[inner]
        return inner

    def _load(self, engine: Engine, weights: Weights) -> None:
        with TemporaryDirectory(prefix="optpo-weights-") as scratch:
            folder = Path(scratch)
            for name, content in weights.files.items():
                content.tofile(folder / name)
            engine.update_weights(weights.version, folder)
        self._version = weights.version

    def _report(
        self, engine: Engine, finished: Sequence[Completion], cancelled: Mapping[int, int]
    ) -> Report:
        return Report(
            finished,
            cancelled,
            engine.prefill_tokens,
            engine.slots,
            engine.capabilities,
            self._version,
        )
