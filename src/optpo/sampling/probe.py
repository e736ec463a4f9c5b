"""Find out what a server can do, by asking it for a few tokens."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from optpo.errors import EngineError, SettingsError
from optpo.sampling.completion_protocol import Dialect, Sampled, optional_fields, request_of
from optpo.sampling.endpoint import Endpoint
from optpo.sampling.endpoint_client import EndpointClient
from optpo.sampling.engine import Capabilities, Request, SampleSettings
from optpo.sampling.retry import AttemptError, pause

PROBE_TEXT = "Write a random sentence."
PROBE_TOKENS = 16
SEEDS = (2, 1, 3, 1) * 4

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Server:
    """What a probe found: how to speak to the server, and what it can do."""

    dialect: Dialect
    capabilities: Capabilities
    notices: tuple[str, ...] = ()


class _Prober:
    """Asks until there is an answer or the time is over; `last` is what went wrong last."""

    def __init__(
        self,
        client: EndpointClient,
        endpoint: Endpoint,
        settings: SampleSettings,
        on_notice: Callable[[str], None],
    ) -> None:
        self.last: AttemptError | None = None
        self._client = client
        self._endpoint = endpoint
        self._settings = settings
        self._on_notice = on_notice

    async def insist(
        self, ask: Callable[[], Awaitable[_Answer]], attempts: float = math.inf
    ) -> _Answer:
        """Ask until there is an answer; raises AttemptError where asking again is no use.

        `attempts` limits how often the server may fail, but not how often it may be overloaded.
        """
        failures = 0
        while True:
            try:
                return await ask()
            except AttemptError as failure:
                attempts -= failure.remedy == "again"
                if failure.remedy in ("refused", "fatal") or attempts <= 0:
                    raise
                if self.last is None:
                    seconds = self._endpoint.start_seconds
                    self._on_notice(f"{failure}; asking again for up to {seconds:g} s")
                self.last = failure
                failures += 1
                wait = failure.wait + pause(failures, self._endpoint.backoff_seconds)
            await asyncio.sleep(wait)

    async def sample(
        self,
        dialect: Dialect,
        seed: int = 0,
        tokens: int = PROBE_TOKENS,
        attempts: float = math.inf,
    ) -> Sampled:
        """A few tokens with the fields of a dialect."""
        request = Request("probe", (), 0, seed, PROBE_TEXT)
        settings = replace(self._settings, max_new_tokens=tokens)
        path, body = request_of(request, settings, dialect, self._endpoint.api)
        return await self.insist(lambda: self._client.sample(path, body), attempts)

    async def takes(self, dialect: Dialect) -> AttemptError | None:
        """None where the server takes these fields, else its refusal.

        Some fail where they should refuse; without any field a failure must be something else.
        """
        try:
            attempts = 3 if dialect.fields else math.inf
            await self.sample(dialect, tokens=1, attempts=attempts)
        except AttemptError as failure:
            if failure.remedy == "fatal":
                raise
            return failure
        return None


async def probe(
    client: EndpointClient,
    endpoint: Endpoint,
    settings: SampleSettings,
    on_notice: Callable[[str], None],
) -> Server:
    """Find the server, its model where none is named, the fields it takes, and what seeds do.

    Where the server refuses a request with every field, each is tried alone. A rollout of
    `PROBE_TOKENS` tokens, and sixteen more at once (as `concurrency` allows), then show whether
    the same seed gives the same tokens, also beside others, and another seed other tokens. That is
    a sign and no proof: a longer rollout, a fuller batch or another prompt may still differ, and
    many servers promise nothing.

    Raises:
        EngineError: nothing there works; says what was tried and what to do.
        SettingsError: the server refuses fields that the settings need, all of them.
    """
    prober = _Prober(client, endpoint, settings, on_notice)
    try:
        async with asyncio.timeout(endpoint.start_seconds):
            model = endpoint.model or await _only_model(prober, client, endpoint)
            dialect = await _dialect(prober, model, endpoint, settings)
            return await _measured(prober, dialect, endpoint, settings)
    except TimeoutError:
        why = str(prober.last or f"{endpoint.base}: no answer")
        raise EngineError(
            f"the endpoint did not work within {endpoint.start_seconds:g} s. {why}. Is the server "
            "running at this address? One that loads its model first may need more start_seconds"
        ) from None
    except AttemptError as failure:
        raise EngineError(f"{failure}{await _known_models(client)}") from None


async def _only_model(prober: _Prober, client: EndpointClient, endpoint: Endpoint) -> str:
    """The one model that there is."""
    names = await prober.insist(client.models)
    if names is not None and len(names) == 1:
        return names[0]
    has = f"it has {', '.join(names[:20])}" if names else "it does not tell which it has"
    raise EngineError(f"name the model to ask {endpoint.base} for; {has}")


async def _known_models(client: EndpointClient) -> str:
    """The models that the server has, as the end of a message; nothing where it does not tell."""
    try:
        names = await client.models()
    except AttemptError:
        names = None
    return f" The server has {', '.join(names[:20])}." if names else ""


async def _dialect(
    prober: _Prober, model: str, endpoint: Endpoint, settings: SampleSettings
) -> Dialect:
    """The optional fields that the server takes, and its name for the longest rollout."""
    fields = optional_fields(settings, chat=endpoint.api == "chat")
    full = Dialect(model, frozenset(fields))
    if await prober.takes(full) is None:
        return full
    bare = Dialect(model, frozenset())
    if refusal := await prober.takes(bare):
        bare = replace(bare, length_field="max_completion_tokens")
        if await prober.takes(bare):
            raise refusal
    refusals = {
        name: refusal
        for name in fields
        if (refusal := await prober.takes(replace(bare, fields=frozenset([name]))))
    }
    needed = {
        "temperature": settings.temperature != 1,
        "top_p": settings.top_p < 1,
        "top_k": settings.top_k > 0,
        "min_p": settings.min_p > 0,
        "stop": bool(settings.stop),
        "stop_token_ids": bool(settings.stop_tokens),
    }
    if problems := [
        f"the server does not take {name} = {fields[name]}: {refusal}"
        for name, refusal in refusals.items()
        if needed.get(name)
    ]:
        raise SettingsError(problems)
    return replace(bare, fields=frozenset(fields) - refusals.keys())


async def _measured(
    prober: _Prober, dialect: Dialect, endpoint: Endpoint, settings: SampleSettings
) -> Server:
    """See what comes back with those fields."""
    first = await prober.sample(dialect, seed=1)
    # Together, as rollouts will be: some servers keep one random state for all.
    together = asyncio.Semaphore(min(len(SEEDS), endpoint.concurrency))

    async def sample(seed: int) -> Sampled:
        async with together:
            return await prober.sample(dialect, seed)

    more = await asyncio.gather(*map(sample, SEEDS))

    def drawn(sampled: Sampled) -> tuple[str, tuple[int, ...]]:
        return sampled.text, sampled.tokens

    greedy = settings.temperature == 0
    same = [drawn(first) == drawn(sampled) for sampled in more]
    repeats = all(equal for seed, equal in zip(SEEDS, same, strict=True) if seed == 1)
    differs = not all(same)
    seed = "seed" in dialect.fields and repeats and (differs or greedy)
    notices = []
    if repeats and not differs and not greedy:
        notices.append(
            f"{endpoint.base}: rollouts with different seeds came out equal; if it does not sample, "
            "every vote of a question is the same"
        )
    capabilities = Capabilities(
        cancel=True,
        logps=bool(first.logps),
        seed=seed,
        exact_streams=seed or (greedy and repeats),
        prefix_cache=any(sampled.cached_tokens > 0 for sampled in more),
        token_ids=first.tokens[0] >= 0,
    )
    return Server(dialect, capabilities, tuple(notices))
