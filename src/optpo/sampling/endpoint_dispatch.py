"""Which rollouts are with a server, and what becomes of those that fail: the loop's side of the engine.

Everything here runs in the loop's thread. The caller's thread reads single numbers, and is told of
everything else through `tell`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush

from optpo.errors import EngineError
from optpo.sampling.completion_protocol import Dialect, Sampled, request_of
from optpo.sampling.concurrency import Concurrency
from optpo.sampling.endpoint import Endpoint
from optpo.sampling.endpoint_client import EndpointClient
from optpo.sampling.engine import Completion, Request, SampleSettings
from optpo.sampling.retry import AttemptError, pause

ATTEMPTS = 16
"""How often a rollout may fail at a server that answers others, until its question is given up."""

NOTICE_SHARE = 0.1
"""Of the patience, the share after which a server that went away is spoken of; 10 s at the most."""

News = Completion | EngineError | str
"""A rollout that is back, the end of the engine, or a notice for a person."""


@dataclass(eq=False)
class Errand:
    """One rollout on its way: the `tokens` that have come, and whether it is `over`."""

    handle: int
    request: Request
    tokens: int = 0
    over: bool = False
    failures: int = 0
    strikes: int = 0
    struck_at: int = -1
    asked: float = 0.0
    first_token: float | None = None
    task: "asyncio.Task[None] | None" = None


class Dispatch:
    """Keeps as many rollouts with the server as it makes good use of, in order of their handles."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: SampleSettings,
        dialect: Dialect,
        client: EndpointClient,
        tell: Callable[[News], None],
    ) -> None:
        self.concurrency = Concurrency(endpoint.concurrency)
        self.prefill_tokens = 0
        self.lost_tokens = 0
        self.version = 0
        self._endpoint = endpoint
        self._settings = settings
        self._dialect = dialect
        self._client = client
        self._tell = tell
        self._waiting: list[tuple[int, Errand]] = []
        self._running: set[Errand] = set()
        self._ended = False
        self._successes = 0
        self._trouble_since: float | None = None
        self._noticed = False
        self._not_before = 0.0

    def enter(self, errand: Errand) -> None:
        """Queue a rollout, for the first time or again."""
        heappush(self._waiting, (errand.handle, errand))
        self._launch()

    def drop(self, errand: Errand) -> None:
        """Forget a rollout, and close its stream."""
        errand.over = True
        if errand.task is not None:
            errand.task.cancel()

    def end(self) -> None:
        """Drop all, and launch no more."""
        self._ended = True
        self._waiting.clear()
        for errand in list(self._running):
            self.drop(errand)

    def _launch(self) -> None:
        now = _now()
        if self._ended or now < self._not_before:
            return
        while self._waiting and len(self._running) < self.concurrency.limit:
            _, errand = heappop(self._waiting)
            if not errand.over:
                errand.asked, errand.tokens, errand.first_token = now, 0, None
                self._running.add(errand)
                errand.task = asyncio.get_running_loop().create_task(self._attempt(errand))
                # Not within the task: one that is cancelled before it began runs nothing.
                errand.task.add_done_callback(partial(self._leave, errand))
        self.concurrency.observe(now, len(self._running))

    def _leave(self, errand: Errand, _: "asyncio.Task[None]") -> None:
        errand.task = None
        self._running.discard(errand)
        self._launch()

    async def _attempt(self, errand: Errand) -> None:
        def count(new: int) -> None:
            now = _now()
            errand.first_token = errand.first_token or now
            errand.tokens += new
            self.concurrency.observe(now, len(self._running), new)

        failure: AttemptError | None = None
        try:
            path, body = request_of(
                errand.request, self._settings, self._dialect, self._endpoint.api
            )
            self._succeed(errand, await self._client.sample(path, body, count))
        except AttemptError as caught:
            failure = caught
        except ValueError as error:
            # A question that cannot be put into a request: empty, or not Unicode.
            failure = AttemptError("refused", str(error))
        except Exception as error:
            # Whatever it is, the caller must not wait for it for ever.
            failure = AttemptError("fatal", f"{self._endpoint.base}: {error!r}")
        if failure is not None and not errand.over:
            # Zero first, as another thread reads both: a cancellation must not tell them again.
            lost, errand.tokens = errand.tokens, 0
            self.lost_tokens += lost
            self._fail(errand, failure)

    def _succeed(self, errand: Errand, sampled: Sampled) -> None:
        self._successes += 1
        self._trouble_since, self._noticed = None, False
        self.prefill_tokens += sampled.prompt_tokens - sampled.cached_tokens
        completion = Completion(
            errand.handle,
            sampled.tokens,
            sampled.logps,
            sampled.finish,
            self.version,
            sampled.text,
            sampled.reason,
        )
        self._deliver(errand, completion)

    def _fail(self, errand: Errand, failure: AttemptError) -> None:
        """Give up the engine or the question, or ask again later."""
        if failure.remedy == "fatal":
            self._give_up(str(failure))
            return
        now = _now()
        alive = self._others_alive(errand, now)
        # A failure may be the question's own where the server answers others.
        errand.strikes += alive or self._successes > errand.struck_at
        errand.struck_at = self._successes
        errand.failures += 1
        if failure.remedy == "refused" or errand.strikes >= ATTEMPTS:
            reason = str(failure)
            if failure.remedy != "refused":
                reason = f"failed {ATTEMPTS} times where others did not, the last time so: {reason}"
            self._deliver(
                errand, Completion(errand.handle, (), (), "error", self.version, "", reason)
            )
            return
        if failure.remedy == "slower":
            self.concurrency.protest(now, errand.asked)
        if self._trouble_since is None:
            self._trouble_since = now
        if not alive:
            self._lose_patience(now - self._trouble_since, failure)
        call_later = asyncio.get_running_loop().call_later
        if failure.wait:
            # What a server asks of one it asks of all.
            self._not_before = max(self._not_before, now + failure.wait)
            call_later(failure.wait, self._launch)
        again = failure.wait + pause(errand.failures, self._endpoint.backoff_seconds)
        call_later(again, self.enter, errand)

    def _lose_patience(self, seconds: float, failure: AttemptError) -> None:
        """Give up after too many seconds without a rollout; speak of it once before that."""
        patience = self._endpoint.patience_seconds
        if seconds + failure.wait >= patience:
            asked = f", and asked to wait for {failure.wait:g} s" if failure.wait else ""
            self._give_up(
                f"no rollout came back for {seconds:.0f} s{asked}. {failure}. Is the server running? "
                f"Once it is, start again; to wait for longer than {patience:g} s, raise "
                "patience_seconds"
            )
        elif not self._noticed and seconds >= min(10.0, NOTICE_SHARE * patience):
            self._noticed = True
            self._tell(f"{failure}; waiting for the server for up to {patience:g} s")

    def _others_alive(self, failed: Errand, now: float) -> bool:
        """Whether another stream has been going on for so long that the server must be well."""
        half = self._endpoint.patience_seconds / 2
        return any(
            errand.first_token is not None and now - errand.first_token >= half
            for errand in self._running - {failed}
        )

    def _give_up(self, why: str) -> None:
        self._tell(EngineError(why))
        self.end()

    def _deliver(self, errand: Errand, completion: Completion) -> None:
        if not errand.over:
            errand.over = True
            self._tell(completion)


def _now() -> float:
    """The loop's clock, in seconds."""
    return asyncio.get_running_loop().time()
