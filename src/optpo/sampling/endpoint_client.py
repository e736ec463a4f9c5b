"""One attempt at an answer over HTTP: sent, read as it streams in, and what went wrong in words."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx2

from optpo.sampling.completion_protocol import AnswerReader, Sampled
from optpo.sampling.endpoint import Endpoint
from optpo.sampling.retry import AttemptError, remedy_of, retry_after

_LOGGERS = (
    "httpx2",
    *(f"httpcore2.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")),
)
_LONGEST_REFUSAL = 65536
_LONGEST_QUOTE = 300
_SHORTEST_SECRET = 8
_CLOSING_SECONDS = 1.0


class EndpointClient:
    """A pool of connections to an endpoint. The key is in what it sends, and in nothing it says.

    A key of less than 8 characters is taken for a placeholder, such as EMPTY, and not hidden.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        key = endpoint.key()
        self._has_key = key is not None
        secret = key if key is not None and len(key) >= _SHORTEST_SECRET else None
        self._secrets = (secret, secret.replace("/", "\\/"), quote(secret, "")) if secret else ()
        self._client = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(None, connect=endpoint.connect_seconds),
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=endpoint.concurrency
            ),
        )
        # At the finest level these log what a server sends, and a server may echo what it got.
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self._hide_in_log)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self._hide_in_log)

    async def models(self) -> list[str] | None:
        """The names of the models that the server has; none where it does not tell.

        Raises AttemptError, whose words tell address and reason.
        """
        url = f"{self._endpoint.base}/models"
        with self._failures(url, None):
            async with (
                asyncio.timeout(self._endpoint.first_token_seconds),
                self._client.stream("GET", url) as response,
            ):
                said = await self._beginning(response)
                if response.status_code in (404, 405, 501):
                    return None
                if not response.is_success:
                    raise self._refusal(response, said)
            try:
                return [str(model["id"]) for model in json.loads(said)["data"]]
            except (ValueError, TypeError, KeyError):
                why = f"it sent what is no list of models: {self._quote(said)}"
                raise AttemptError("again", why) from None

    async def sample(
        self, path: str, body: dict[str, Any], on_tokens: Callable[[int], None] = lambda new: None
    ) -> Sampled:
        """Ask for one rollout and return it whole; `on_tokens` is told of tokens as they arrive.

        Cancelling closes the stream. Raises AttemptError, whose words tell address and reason.
        """
        url = f"{self._endpoint.base}{path}"
        reader = AnswerReader(self._quote)
        now = asyncio.get_running_loop().time
        with self._failures(url, reader):
            async with (
                asyncio.timeout(self._endpoint.first_token_seconds) as limit,
                self._client.stream("POST", url, json=body) as response,
            ):
                if not response.is_success:
                    raise self._refusal(response, await self._beginning(response))
                if "event-stream" not in response.headers.get("content-type", ""):
                    reader.read((await response.aread()).decode(errors="replace"))
                    on_tokens(reader.tokens)
                    return reader.sampled()
                async for event in httpx2.EventSource(response):
                    before = reader.tokens
                    reader.read(event.data)
                    if new := reader.tokens - before:
                        on_tokens(new)
                        limit.reschedule(now() + self._endpoint.stall_seconds)
                    elif reader.ended:
                        # Read on, so that the connection can be used again, but not for long.
                        limit.reschedule(now() + _CLOSING_SECONDS)
        with self._failures(url, None):
            return reader.sampled()

    @contextmanager
    def _failures(self, url: str, reader: AnswerReader | None) -> Iterator[None]:
        """Tell every failure as an AttemptError; what fails after an answer's end is none."""
        try:
            yield
        except AttemptError as failure:
            raise AttemptError(failure.remedy, f"{url}: {failure.why}", failure.wait) from None
        except (TimeoutError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            if reader is None or not reader.ended:
                broken = self._broken(error, reader.tokens if reader else 0)
                raise AttemptError(broken.remedy, f"{url}: {broken.why}") from None

    def _broken(self, error: Exception, tokens: int) -> AttemptError:
        """What a broken or silent connection is called."""
        endpoint = self._endpoint
        if isinstance(error, httpx2.InvalidURL):
            return AttemptError("fatal", f"this is no address: {error}")
        if isinstance(error, httpx2.ConnectTimeout):
            return AttemptError("slower", f"no connection within {endpoint.connect_seconds:g} s")
        if isinstance(error, TimeoutError | httpx2.TimeoutException):
            if tokens:
                why = f"no more came for {endpoint.stall_seconds:g} s after {tokens} tokens"
            else:
                why = f"no answer within {endpoint.first_token_seconds:g} s"
            return AttemptError("slower", why)
        said = self._quote(str(error) or type(error).__name__)
        if isinstance(error, httpx2.ConnectError):
            return AttemptError("slower", f"no connection ({said})")
        when = f"after {tokens} tokens" if tokens else "before an answer"
        return AttemptError("again", f"the connection broke off {when} ({said})")

    async def _beginning(self, response: httpx2.Response) -> str:
        """The body of an answer that is no rollout, as far as anyone would read it."""
        said = b""
        async for part in response.aiter_bytes():
            said += part
            if len(said) > _LONGEST_REFUSAL:
                break
        return said.decode(errors="replace")

    def _refusal(self, response: httpx2.Response, said: str) -> AttemptError:
        """What an answer that is no success means, and what to do about it."""
        status = response.status_code
        words, code = _words(said)
        why = f"HTTP {status}: {self._quote(words)}" if words else f"HTTP {status}"
        variable = self._endpoint.key_variable
        if status in (401, 403) and not self._has_key:
            why += f"; put the key into the environment variable {variable}, which is not set"
        elif status in (401, 403):
            why += f"; is the key in the environment variable {variable} the right one?"
        elif status in (404, 405):
            why += "; are the address and the model's name right?"
        elif 300 <= status < 400:
            target = self._quote(response.headers.get("location", "nowhere"))
            why += f"; it redirects to {target}: give the address that it redirects to"
        return AttemptError(remedy_of(status, code), why, retry_after(response.headers))

    def _quote(self, text: str) -> str:
        """The beginning of what a server said, on one line and without the key."""
        line = " ".join(self._hide(text).split())
        return line if len(line) <= _LONGEST_QUOTE else f"{line[:_LONGEST_QUOTE]} ..."

    def _hide(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return text

    def _hide_in_log(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if (hidden := self._hide(text)) != text:
            record.msg, record.args = hidden, ()
        return True


def _words(said: str) -> tuple[str, str | None]:
    """What a refusal says, and its code, out of the forms that servers give it."""
    try:
        told = json.loads(said)
        told = told.get("error", told)
        if isinstance(told, str):
            return told, None
        words = told.get("message") or told.get("detail") or told
        return (words if isinstance(words, str) else json.dumps(words)), told.get("code")
    except (ValueError, AttributeError):
        return said, None
