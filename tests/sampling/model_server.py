"""A server of the OpenAI protocol on loopback that answers with a real model, or as it is told.

Its tokens are those of a `TransformersEngine`, so that a seed repeats them whatever else is in the
batch. It has the optional fields that vLLM has; `refuses` takes some away.
"""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from queue import Empty, SimpleQueue

from faulty_proxy import left

from optpo.sampling.engine import Completion, Request, SampleSettings
from optpo.sampling.transformers_engine import TransformersEngine

LONGEST = 64


class Model:
    """Rollouts of a model, each (prompt, seed, settings) computed once, in batches by a thread."""

    def __init__(self, model, tokenizer, end_tokens):
        self.tokenizer = tokenizer
        self._model, self._end_tokens = model, end_tokens
        self._known: dict[tuple, Future[Completion]] = {}
        self._asked: dict[SampleSettings, SimpleQueue] = {}
        self._workers: list[threading.Thread] = []
        self._closed = False

    def encode(self, text):
        return tuple(self.tokenizer(text)["input_ids"])

    def rollout(self, prompt, seed, settings) -> "Future[Completion]":
        if settings not in self._asked:
            self._asked[settings] = SimpleQueue()
            self._workers.append(threading.Thread(target=self._work, args=(settings,), daemon=True))
            self._workers[-1].start()
        key = (prompt, seed, settings)
        if key not in self._known:
            self._known[key] = Future()
            self._asked[settings].put((prompt, seed, self._known[key]))
        return self._known[key]

    def close(self):
        self._closed = True
        for queue in self._asked.values():
            queue.put(None)
        for worker in self._workers:
            worker.join()

    def _work(self, settings):
        engine = TransformersEngine(self._model, self.tokenizer.decode, self._end_tokens, settings)
        futures = {}
        while not self._closed:
            try:
                while asked := self._asked[settings].get(block=not futures):
                    prompt, seed, future = asked
                    futures[engine.submit(Request("", prompt, 0, seed))] = future
            except Empty:
                pass
            try:
                for completion in engine.poll():
                    futures.pop(completion.handle).set_result(completion)
            except Exception as error:
                for future in futures.values():
                    future.set_exception(error)
                raise


class ModelServer:
    """Serves a `Model`; `answer` may take a request's place, `seen` counts what happened.

    Streams of which `hold_after` tokens are out wait for `release`.
    """

    def __init__(
        self,
        model: Model,
        *,
        refuses: tuple[str, ...] = (),
        pace: float = 0.0,
        honours_seed: bool = True,
        answer: Callable[[str, Mapping, dict], tuple[int, dict, bytes] | None] | None = None,
    ):
        self.model, self.refuses, self.pace = model, refuses, pace
        self.hold_after: int | None = None
        self.honours_seed, self.answer = honours_seed, answer
        self.requests: list[dict] = []
        self.seen: Counter[str] = Counter()
        self.running = 0
        self.most_running = 0
        self._released = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        self._ready.wait()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def release(self):
        """Streams that wait go on."""
        self._loop.call_soon_threadsafe(self._released.set)

    def close(self):
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    async def _main(self):
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader, writer):
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                path, headers, body = await read_request(reader)
                await self._serve(path, headers, json.loads(body or b"{}"), reader, writer)
                if "close" in headers.get("connection", ""):
                    break
        writer.close()

    async def _serve(self, path, headers, body, reader, writer):
        self.seen[path] += 1
        if self.answer and (said := self.answer(path, headers, body)):
            return await _whole(writer, *said)
        if path == "/v1/models":
            return await _whole(writer, 200, {}, _json({"data": [{"id": "tiny"}]}))
        if body.get("model") != "tiny":
            return await _whole(writer, 404, {}, _error(f"no model {body.get('model')!r}", 404))
        if unknown := [name for name in self.refuses if name in body]:
            return await _whole(writer, 400, {}, _error(f"unknown field {unknown[0]!r}", 400))
        self.requests.append(body)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            gone = asyncio.create_task(left(reader))
            told = asyncio.create_task(self._stream(path, body, writer))
            await asyncio.wait((gone, told), return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)
                return told.result()
            self.seen["closed by the client"] += 1
            told.cancel()
            raise ConnectionResetError
        finally:
            self.running -= 1

    async def _stream(self, path, body, writer):
        chat = path.endswith("/chat/completions")
        prompt = body.get("prompt")
        if chat:
            prompt = " ".join(message["content"] for message in body["messages"])
        prompt = self.model.encode(prompt) if isinstance(prompt, str) else tuple(prompt)
        self.seen["rollouts"] += 1
        seed = body.get("seed", 0) if self.honours_seed else self.seen["rollouts"]
        settings = SampleSettings(
            temperature=body.get("temperature", 1.0),
            top_p=body.get("top_p", 1.0),
            top_k=max(0, body.get("top_k", 0)),
            min_p=body.get("min_p", 0.0),
            stop=tuple(body.get("stop", ())),
            stop_tokens=tuple(body.get("stop_token_ids", ())),
            max_new_tokens=LONGEST,
            rows=32,
        )
        # Shielded: a rollout that one client left may be wanted by another.
        done = await asyncio.shield(asyncio.wrap_future(self.model.rollout(prompt, seed, settings)))
        longest = body.get("max_tokens") or body["max_completion_tokens"]
        if len(done.tokens) > longest:
            done = replace(
                done, tokens=done.tokens[:longest], logps=done.logps[:longest], finish="length"
            )
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        text = ""
        for place, token in enumerate(done.tokens):
            so_far = self.model.tokenizer.decode(done.tokens[: place + 1], skip_special_tokens=True)
            piece, text = so_far[len(text) :], so_far
            last = place + 1 == len(done.tokens)
            choice = {"index": 0, "finish_reason": done.finish if last else None}
            choice |= {"delta": {"content": piece}} if chat else {"text": piece}
            if body.get("return_token_ids"):
                choice["token_ids"] = [token]
            if body.get("logprobs"):
                logp = done.logps[place]
                choice["logprobs"] = (
                    {"content": [{"token": piece, "logprob": logp}]}
                    if chat
                    else {"tokens": [piece], "token_logprobs": [logp]}
                )
            _event(writer, {"choices": [choice]})
            if self.pace:
                await writer.drain()
                await asyncio.sleep(self.pace)
            if place + 1 == self.hold_after:
                await writer.drain()
                await self._released.wait()
        if body.get("stream_options"):
            usage = {"prompt_tokens": len(prompt), "completion_tokens": len(done.tokens)}
            _event(writer, {"choices": [], "usage": usage})
        _chunk(writer, b"data: [DONE]\n\n")
        _chunk(writer, b"")
        await writer.drain()


async def read_request(reader):
    """One HTTP request: its path, headers and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {}
    for name, _, value in (line.partition(":") for line in head[1:]):
        headers.setdefault(name.lower(), value.strip())
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return head[0].split()[1], headers, body


async def _whole(writer, status, headers, body):
    lines = {"content-type": "application/json", "content-length": len(body), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode() + body)
    await writer.drain()


def _json(value):
    return json.dumps(value).encode()


def _error(message, code):
    return _json({"error": {"message": message, "code": code}})


def _event(writer, value):
    _chunk(writer, b"data: " + _json(value) + b"\n\n")


def _chunk(writer, data):
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))
