"""A pool of engines as actors of a Ray cluster, on one machine or many: an engine itself."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from optpo.errors import EngineError, OptpoError
from optpo.sampling.cancel_costs import CancelCosts
from optpo.sampling.engine import Capabilities, Completion, Engine, Request
from optpo.sampling.ray_cluster import RaySettings, connect, needs_of_worker
from optpo.sampling.ray_worker import Report, Worker, read_weights

TOGETHER = 4
"""By so many rollouts a worker may be fuller than the emptiest one, to get those of a question whose
prompt it has computed."""

CLOSE_SECONDS = 5.0


@dataclass(eq=False)
class _Member:
    """A worker as the pool sees it; `reports` is the stream of what it says."""

    actor: Any
    reports: Any
    restarts_left: int
    ready: bool = False
    told: int = 0
    slots: int = 0
    prefill_tokens: int = 0
    version: int | None = None
    capabilities: Capabilities | None = None
    rollouts: dict[int, tuple[Request, float]] = field(default_factory=dict)


class RayEngine:
    """Samples on the workers of a Ray cluster; what a worker has not returned survives its death.

    `factory` makes a worker's engine, in the worker's process; it is pickled. Rollouts wait here and
    go to the worker that is emptiest for its slots. Those of a worker that dies are begun anew by
    others, with the same index and stream; the worker is begun anew with the newest weights.

    `save` writes the policy as it is now to a folder.

    Raises what the factory raises, and EngineError if the workers do not come up.
    """

    def __init__(
        self,
        factory: Callable[[], Engine],
        settings: RaySettings,
        save: Callable[[Path], None] | None = None,
    ) -> None:
        self._factory, self._settings, self._save = factory, settings, save
        self._began_ray = connect(settings)
        self._weights: Any = None
        self._queue: dict[int, Request] = {}
        self._next_handle = 0
        self._homes: dict[str, _Member] = {}
        self._prefill_of_the_dead = 0
        self._failure: Exception | None = None
        self._costs = CancelCosts()
        self._members = [self._begin(settings.restarts) for _ in range(settings.workers)]
        try:
            self._wait_for_all()
        except BaseException:
            self.close()
            raise

    @property
    def capabilities(self) -> Capabilities:
        """What all workers can do."""
        all_can = [member.capabilities for member in self._members if member.capabilities]
        return Capabilities(
            **{
                what.name: all(getattr(capabilities, what.name) for capabilities in all_can)
                for what in fields(Capabilities)
            }
        )

    @property
    def slots(self) -> int:
        """The slots of all workers that are up."""
        return max(1, sum(member.slots for member in self._members))

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens computed by all workers; of one that died, as it said last."""
        living = sum(member.prefill_tokens for member in self._members)
        return self._prefill_of_the_dead + living

    @property
    def lost_tokens(self) -> int:
        """0: what the rollouts of a worker that died had cost is not known."""
        return 0

    def submit(self, request: Request) -> int:
        """Queue a rollout; it goes to a worker at the next poll."""
        handle = self._next_handle
        self._next_handle += 1
        self._queue[handle] = request
        return handle

    def cancel(self, handle: int) -> int:
        """Drop a rollout; its worker does so after its present poll, and is not waited for.

        So what it had cost is estimated (`CancelCosts`): true in the sum over many, not for each.
        """
        if self._queue.pop(handle, None):
            return 0
        for member in self._members:
            if handle in member.rollouts:
                _, began = member.rollouts.pop(handle)
                self._tell(member, cancel=[handle])
                return self._costs.estimate(handle, time.monotonic() - began)
        return 0

    def poll(self) -> list[Completion]:
        """Wait until at least one rollout finishes on any worker; empty when idle.

        Raises EngineError if all workers are gone and have no restarts left.
        """
        finished: list[Completion] = []
        while not finished:
            self._assign()
            if not self._busy:
                break
            finished = self._listen(self._patience)
        return finished

    def update_weights(self, version: int, folder: Path | None = None) -> None:
        """Read the folder once and hand it to every worker through the object store.

        Without a folder, what `save` writes is read. Raises RuntimeError while rollouts are in
        flight, EngineError without both (no module is shared with another process) and if all
        workers fail over it.
        """
        if self._busy:
            raise RuntimeError("weights changed while rollouts were in flight")
        if folder is not None:
            weights = read_weights(version, folder)
        elif self._save is not None:
            with TemporaryDirectory(prefix="optpo-") as scratch:
                saved = Path(scratch) / "policy"
                self._save(saved)
                weights = read_weights(version, saved)
        else:
            raise EngineError(
                "the workers of a Ray pool share no module with this process; save the policy and "
                "give its folder"
            )
        import ray

        self._weights = ray.put(weights)
        self._homes.clear()
        for member in self._members:
            member.version = None
            self._tell(member, weights=self._weights)
        while not self._up or any(
            member.ready and member.version != version for member in self._members
        ):
            self._listen(self._patience)

    def close(self) -> None:
        """End the workers, and Ray if it was begun here."""
        import ray

        ends = [member.actor.end.remote() for member in self._members if member.ready]
        if ends:
            ray.wait(ends, num_returns=len(ends), timeout=CLOSE_SECONDS)
        for member in self._members:
            ray.kill(member.actor)
        self._members.clear()
        self._queue.clear()
        if self._began_ray:
            self._began_ray = False
            ray.shutdown()

    @property
    def _patience(self) -> float | None:
        """Seconds to wait for a worker to say something: without end if one is up."""
        return None if self._up else self._settings.start_seconds

    @property
    def _up(self) -> int:
        return sum(member.ready for member in self._members)

    @property
    def _busy(self) -> bool:
        return bool(self._queue) or any(member.rollouts for member in self._members)

    def _begin(self, restarts_left: int) -> _Member:
        import ray

        needs = dict(self._settings.resources)
        options: Any = ray.remote(Worker).options(
            num_cpus=needs.pop("CPU", 0),
            num_gpus=needs.pop("GPU", 0),
            resources=needs,
            scheduling_strategy="SPREAD",
            # One call is `run`, which lasts; beside it there is one to leave orders.
            max_concurrency=2,
            max_restarts=0,
        )
        actor = options.remote(self._factory)
        reports = actor.run.options(num_returns="streaming").remote(self._weights)
        return _Member(actor, reports, restarts_left)

    def _wait_for_all(self) -> None:
        deadline = time.monotonic() + self._settings.start_seconds
        while not all(member.ready for member in self._members):
            self._listen(max(0.0, deadline - time.monotonic()))
            if isinstance(self._failure, OptpoError):
                raise self._failure
            if self._failure:
                raise EngineError(
                    f"a worker of the Ray pool does not start: {_reason(self._failure)}"
                ) from self._failure

    def _assign(self) -> None:
        """Hand out what waits, in order, while workers have room; one message a worker."""
        handed: dict[_Member, dict[int, Request]] = {}
        for handle, request in self._queue.items():
            member = self._choose(request.prompt_id)
            if member is None:
                break
            handed.setdefault(member, {})[handle] = request
            member.rollouts[handle] = request, time.monotonic()
            self._homes[request.prompt_id] = member
        for member, begin in handed.items():
            for handle in begin:
                del self._queue[handle]
            self._tell(member, begin=begin)

    def _choose(self, prompt_id: str) -> _Member | None:
        # Some more than there are slots, so that none stands empty while a message is on its way.
        with_room = [
            member
            for member in self._members
            if member.ready and len(member.rollouts) < member.slots + member.slots // 4 + 1
        ]
        if not with_room:
            return None
        emptiest = min(with_room, key=lambda member: len(member.rollouts) / member.slots)
        home = self._homes.get(prompt_id)
        if home in with_room and home is not None:
            extra = len(home.rollouts) / home.slots - len(emptiest.rollouts) / emptiest.slots
            return home if extra * home.slots < TOGETHER else emptiest
        return emptiest

    def _tell(
        self,
        member: _Member,
        begin: Mapping[int, Request] | None = None,
        cancel: list[int] | None = None,
        weights: Any = None,
    ) -> None:
        member.actor.tell.remote(member.told, begin or {}, cancel or [], weights)
        member.told += 1

    def _listen(self, seconds: float | None) -> list[Completion]:
        """Wait until a worker says something, and hear all that do.

        Raises EngineError if in so many seconds none does, or if there is none left.
        """
        import ray

        if not self._members:
            raise EngineError(
                f"all {self._settings.workers} workers of the Ray pool are gone, after "
                f"{self._settings.restarts} restarts each; the last one: {_reason(self._failure)}"
            ) from self._failure
        streams = [member.reports for member in self._members]
        said, _ = ray.wait(streams, num_returns=1, timeout=seconds)
        if not said:
            raise EngineError(
                f"{self._up} of the Ray pool's {self._settings.workers} workers came up in "
                f"{self._settings.start_seconds:.0f} s; {needs_of_worker(self._settings)}"
            )
        said, _ = ray.wait(streams, num_returns=len(streams), timeout=0)
        speaking = [member for member in self._members if member.reports in said]
        return [completion for member in speaking for completion in self._hear(member)]

    def _hear(self, member: _Member) -> list[Completion]:
        import ray

        try:
            report: Report = ray.get(next(member.reports))
        except (ray.exceptions.RayError, StopIteration) as error:
            self._lose(member, error)
            return []
        member.ready = True
        member.slots, member.prefill_tokens = report.slots, report.prefill_tokens
        member.version, member.capabilities = report.version, report.capabilities
        for handle, tokens in report.cancelled.items():
            self._costs.counted(handle, tokens)
        finished = []
        for completion in report.finished:
            handle, tokens = completion.handle, len(completion.tokens)
            if handle in member.rollouts:
                _, began = member.rollouts.pop(handle)
                self._costs.ended(tokens, time.monotonic() - began)
                finished.append(completion)
            else:
                # It was cancelled when it had just ended.
                self._costs.counted(handle, tokens)
        return finished

    def _lose(self, member: _Member, error: Exception) -> None:
        """Take a worker out, put its rollouts first in the queue, and begin another in its place."""
        import ray

        # An engine that failed in a living process has left it in an unknown state.
        ray.kill(member.actor)
        self._failure = getattr(error, "cause", None) or error
        self._prefill_of_the_dead += member.prefill_tokens
        again = {handle: request for handle, (request, _) in member.rollouts.items()}
        self._queue = dict(sorted((again | self._queue).items()))
        self._homes = {name: home for name, home in self._homes.items() if home is not member}
        self._members.remove(member)
        if member.restarts_left:
            self._members.append(self._begin(member.restarts_left - 1))


def _reason(error: Exception | None) -> str:
    """What an error says at its end, where the cause stands, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"
