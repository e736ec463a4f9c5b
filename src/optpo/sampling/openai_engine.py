"""The engine for servers of the OpenAI protocol: rollouts over HTTP, through whatever faults there are.

A rollout is one streamed request. One that fails is asked for again, whole and with the same seed,
and never put together from pieces; so where the server repeats a rollout for its seed, faults do not
change a verdict. Cancelling closes the stream, which is how these servers are told to stop.
"""

from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

from optpo.errors import EngineError
from optpo.sampling.background_loop import BackgroundLoop
from optpo.sampling.endpoint import Endpoint
from optpo.sampling.endpoint_client import EndpointClient
from optpo.sampling.endpoint_dispatch import Dispatch, Errand, News
from optpo.sampling.engine import Capabilities, Completion, Request, SampleSettings
from optpo.sampling.probe import Server, probe

_POLL_SECONDS = 0.5


def open_endpoint(
    endpoint: Endpoint,
    settings: SampleSettings,
    on_notice: Callable[[str], None] = lambda text: None,
) -> "OpenAIEngine":
    """Connect to a server, find out what it can do, and return an engine that samples from it.

    Args:
        endpoint: where, and how patiently; the key is read from the environment.
        settings: how tokens are drawn; `rows` is not used.
        on_notice: told, before this returns or within `poll`, what a person may want to know: that
            the server is waited for, or seems not to sample.

    Raises:
        EngineError: the server does not work within `start_seconds`, or refuses.
        SettingsError: the server cannot do what the settings ask for, or the key cannot be sent.
    """
    loop = BackgroundLoop("optpo-endpoint")
    try:
        client = EndpointClient(endpoint)
        try:
            server = loop.run(probe(client, endpoint, settings, on_notice))
        except BaseException:
            loop.run(client.close())
            raise
    except BaseException:
        loop.close()
        raise
    for notice in server.notices:
        on_notice(notice)
    return OpenAIEngine(endpoint, settings, server, client, loop, on_notice)


class OpenAIEngine:
    """Samples from a server; `open_endpoint` makes one.

    A question that the server refuses comes back as an "error". So does one that fails 16 times
    while others succeed. What ends neither by itself nor at `max_new_tokens`, such as at a content
    filter, counts as cut off, with the server's word for it as the `reason`; what the server breaks
    off ("abort") is asked for again. Log-probs are as the server tells them; many tell them before
    the temperature.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        settings: SampleSettings,
        server: Server,
        client: EndpointClient,
        loop: BackgroundLoop,
        on_notice: Callable[[str], None],
    ) -> None:
        self._base = endpoint.base
        self._capabilities = server.capabilities
        self._client = client
        self._loop = loop
        self._on_notice = on_notice
        self._news: SimpleQueue[News] = SimpleQueue()
        self._dispatch = Dispatch(endpoint, settings, server.dialect, client, self._news.put)
        self._outstanding: dict[int, Errand] = {}
        self._next_handle = 0
        self._error: EngineError | None = None
        self._closed = False

    @property
    def capabilities(self) -> Capabilities:
        """What the probe found (`probe` says what that shows)."""
        return self._capabilities

    @property
    def slots(self) -> int:
        """The rollouts that the server makes good use of, as far as is known by now."""
        return self._dispatch.concurrency.limit

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens of the rollouts that came back, less what the server said was cached."""
        return self._dispatch.prefill_tokens

    @property
    def lost_tokens(self) -> int:
        """Tokens of attempts that failed: they are in no rollout."""
        return self._dispatch.lost_tokens

    def submit(self, request: Request) -> int:
        """Queue a rollout; requests are sent in the order of submission."""
        errand = Errand(self._next_handle, request)
        self._next_handle += 1
        self._outstanding[errand.handle] = errand
        self._loop.call(self._dispatch.enter, errand)
        return errand.handle

    def cancel(self, handle: int) -> int:
        """Close a rollout's stream; returns the tokens that had arrived."""
        errand = self._outstanding.pop(handle, None)
        if errand is None or errand.over:
            return 0
        self._loop.call(self._dispatch.drop, errand)
        return errand.tokens

    def poll(self) -> list[Completion]:
        """Wait until at least one rollout is back; empty when none is on its way.

        Can be interrupted; the engine goes on.
        Raises EngineError where the server refuses everybody, or stays away for too long.
        """
        completions: list[Completion] = []
        while self._outstanding and not completions:
            if self._error is not None:
                raise self._error
            try:
                completions += self._read(self._news.get(timeout=_POLL_SECONDS))
                while True:
                    completions += self._read(self._news.get_nowait())
            except Empty:
                continue
        return completions

    def update_weights(self, version: int, folder: Path | None = None) -> None:
        """Do nothing where the version is the one it has: a server keeps its weights.

        Raises RuntimeError while rollouts are in flight, EngineError for any other version.
        """
        if self._outstanding:
            raise RuntimeError("weights changed while rollouts were in flight")
        if folder is not None or version != self._dispatch.version:
            raise EngineError(
                f"{self._base} keeps its weights: it cannot sample with version {version} of the "
                "policy; train with an engine that takes weights, such as transformers"
            )

    def close(self) -> None:
        """Close every stream and connection."""
        if self._closed:
            return
        self._closed = True
        self._outstanding.clear()
        self._loop.call(self._dispatch.end)
        self._loop.run(self._client.close())
        self._loop.close()

    def _read(self, news: News) -> list[Completion]:
        """The completion in a piece of news, if it is one that is waited for."""
        if isinstance(news, str):
            self._on_notice(news)
        elif isinstance(news, EngineError):
            self._error = news
        elif self._outstanding.pop(news.handle, None) is not None:
            return [news]
        return []
