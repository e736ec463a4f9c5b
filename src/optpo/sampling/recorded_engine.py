"""Rollouts that an earlier run stored, and, where it stopped, those of the engine behind them."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from optpo.errors import EngineError
from optpo.sampling.engine import Capabilities, Completion, Engine, Request
from optpo.sampling.stored_rollouts import StoredRollouts


class RecordedEngine:
    """Answers a request with the rollout recorded for its question and index.

    What was not recorded goes to `behind`, or is an error where there is none. `on_completion` hears
    of each completion that comes from `behind`, before `poll` returns it, so that it can be stored:
    a vote that is begun again with the same requests goes on where it was.

    Recorded rollouts keep the version that sampled them; `update_weights` reaches `behind` alone.
    """

    def __init__(
        self,
        recorded: StoredRollouts,
        behind: Engine | None = None,
        on_completion: Callable[[Request, Completion], None] = lambda request, completion: None,
    ) -> None:
        self._recorded = recorded
        self._behind = behind
        self._on_completion = on_completion
        self._ready: deque[Completion] = deque()
        self._next_handle = 0
        self._asked: dict[int, tuple[int, Request]] = {}
        """By the handle of the engine behind: ours, and what was asked."""
        self._behind_handle: dict[int, int] = {}

    @property
    def capabilities(self) -> Capabilities:
        """Those of the engine behind; without one, everything that was recorded."""
        if self._behind is not None:
            return self._behind.capabilities
        return Capabilities(
            cancel=True,
            logps=all(done.logps for done in self._recorded.values()),
            seed=True,
            exact_streams=True,
            prefix_cache=False,
            token_ids=all(min(done.tokens, default=0) >= 0 for done in self._recorded.values()),
        )

    @property
    def slots(self) -> int:
        """Those of the engine behind; without one, as many as there are rollouts."""
        return max(1, len(self._recorded)) if self._behind is None else self._behind.slots

    @property
    def prefill_tokens(self) -> int:
        """Those of the engine behind: reading costs none."""
        return 0 if self._behind is None else self._behind.prefill_tokens

    @property
    def lost_tokens(self) -> int:
        """Those of the engine behind."""
        return 0 if self._behind is None else self._behind.lost_tokens

    def submit(self, request: Request) -> int:
        """Queue a rollout; returns its handle.

        Raises EngineError if it was not recorded and there is no engine to sample it.
        """
        self._next_handle += 1
        handle = self._next_handle
        completion = self._recorded.get((request.prompt_id, request.index))
        if completion is not None:
            self._ready.append(replace(completion, handle=handle))
        elif self._behind is None:
            raise EngineError(
                f"rollout {request.index} of question {request.prompt_id!r} was not recorded, and no "
                "engine is named that could sample it"
            )
        else:
            behind = self._behind.submit(request)
            self._asked[behind] = (handle, request)
            self._behind_handle[handle] = behind
        return handle

    def cancel(self, handle: int) -> int:
        """Drop a rollout; one that was recorded costs nothing."""
        behind = self._behind_handle.pop(handle, None)
        if behind is not None and self._behind is not None:
            del self._asked[behind]
            return self._behind.cancel(behind)
        self._ready = deque(done for done in self._ready if done.handle != handle)
        return 0

    def poll(self) -> list[Completion]:
        """What was recorded, all at once; then what the engine behind finishes."""
        if self._ready or self._behind is None:
            ready = list(self._ready)
            self._ready.clear()
            return ready
        completions = []
        for completion in self._behind.poll():
            if completion.handle in self._asked:
                handle, request = self._asked.pop(completion.handle)
                del self._behind_handle[handle]
                self._on_completion(request, completion)
                completions.append(replace(completion, handle=handle))
        return completions

    def update_weights(self, version: int, folder: Path | None = None) -> None:
        """Hand new weights on; raises RuntimeError while recorded rollouts wait to be polled."""
        if self._ready:
            raise RuntimeError("weights changed while rollouts were in flight")
        if self._behind is not None:
            self._behind.update_weights(version, folder)

    def close(self) -> None:
        """Close the engine behind."""
        self._ready.clear()
        if self._behind is not None:
            self._behind.close()
