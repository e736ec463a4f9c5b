"""A proxy that misbehaves by a seeded script, in front of a server of the OpenAI protocol.

`python faulty_proxy.py PORT UPSTREAM_PORT` runs one that behaves, to be killed.
"""

import asyncio
import random
import sys
import threading
from collections import Counter
from contextlib import suppress

RARE = ("refused", "hang", "stall")
"""Faults that take their time, staged much less often."""

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


class FaultyProxy:
    """Stages one of `faults` for a share of the requests, once it is `armed`; `staged` counts them."""

    def __init__(self, upstream: int, faults=(), share=0.2, seed=0, port=0):
        self.upstream, self.faults, self.share = upstream, tuple(faults), share
        self.armed = False
        self.staged: Counter[str] = Counter()
        self.port = port
        self._draw = random.Random(seed)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        self._ready.wait()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def close(self):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _main(self):
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        await self._listen()
        self.port = self._server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self):
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)

    async def _refuse_for(self, seconds):
        if self._server.is_serving():
            self._server.close()
            await asyncio.sleep(seconds)
            await self._listen()

    async def _connection(self, reader, writer):
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.lower().split(b"\r\n")
                        if line.startswith(b"content-length")
                    ),
                    0,
                )
                request = head + await reader.readexactly(length)
                fault = self._choose(head)
                self.staged[fault] += fault is not None
                gone = asyncio.create_task(left(reader))
                told = asyncio.create_task(self._answer(fault, request, writer))
                await asyncio.wait((gone, told), return_when=asyncio.FIRST_COMPLETED)
                if not told.done():
                    told.cancel()
                    await asyncio.gather(told, return_exceptions=True)
                    break
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)
                if told.result() == "abort":
                    writer.transport.abort()
                    return
        writer.close()

    def _choose(self, head):
        if not self.armed or not head.startswith(b"POST"):
            return None
        fault = self._draw.choice(self.faults)
        share = self.share / 15 if fault in RARE else self.share
        return fault if self._draw.random() < share else None

    async def _answer(self, fault, request, writer):
        """Answer one request; "abort" where the connection is to be broken."""
        if fault is None:
            await self._forward(request, writer.write)
        elif fault == "refused":
            asyncio.get_running_loop().create_task(self._refuse_for(0.05))
            return "abort"
        elif fault == "reset":
            return "abort"
        elif fault == "500":
            _whole(writer, "500 Internal Server Error", b'{"error": {"message": "oh"}}')
        elif fault == "502":
            _whole(writer, "502 Bad Gateway", b"<html>bad gateway</html>")
        elif fault == "429":
            after = self._draw.choice(
                ["retry-after: 0", "retry-after-ms: 30", "retry-after: 0.02", "x-none: 1"]
            )
            _whole(writer, "429 Too Many Requests", b'"slow down"', after)
        elif fault == "hang":
            await asyncio.sleep(3600)
        elif fault in ("cut", "stall"):
            whole = await self._fetch(request)
            writer.write(whole[: self._draw.randrange(len(HEAD), len(whole) - len(END))])
            await writer.drain()
            if fault == "stall":
                await asyncio.sleep(3600)
            return "abort"
        elif fault == "short":
            # Ends in form, and too early.
            events = (await self._fetch(request)).removesuffix(END).removeprefix(HEAD)
            events = events.split(b"\r\n\r\n")
            kept = events[: self._draw.randrange(len(events) - 3)]
            writer.write(HEAD + b"".join(event + b"\r\n\r\n" for event in kept) + END)
        elif fault == "wrong json":
            _events(writer, b'{"choices": [{"index": 0, "delta": {"content": "w9', b"[DONE]")
        elif fault == "no json":
            _whole(writer, "200 OK", b"I am a cache, not a model")
        elif fault == "empty choices":
            _events(writer, b'{"choices": []}', b"[DONE]")
        elif fault == "error event":
            _events(writer, b'{"error": {"message": "the engine died", "code": 500}}')
        elif fault == "abort":
            _events(
                writer,
                b'{"choices": [{"index": 0, "delta": {"content": "w9"}, "text": "w9",'
                b' "finish_reason": "abort"}]}',
                b"[DONE]",
            )
        elif fault == "delivered twice":
            whole = await self._fetch(request)
            writer.write(whole.removesuffix(END) + whole.removeprefix(HEAD))
        elif fault == "event twice":
            events = (await self._fetch(request)).removeprefix(HEAD).split(b"\r\n\r\n")
            place = self._draw.randrange(len(events) - 4)
            events.insert(place, events[place])
            writer.write(HEAD + b"\r\n\r\n".join(events))
        else:
            raise ValueError(fault)
        await writer.drain()
        return None

    async def _fetch(self, request):
        parts = []
        await self._forward(request, parts.append)
        return b"".join(parts)

    async def _forward(self, request, write):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        try:
            writer.write(request.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
            while data := await reader.read(65536):
                write(data)
        finally:
            writer.close()


async def left(reader):
    """Wait until the other side has closed, or broken off with bytes unread; reads nothing."""
    while not reader.at_eof() and reader.exception() is None:
        await asyncio.sleep(0.005)


def _whole(writer, status, body, header="x-none: 1"):
    head = f"HTTP/1.1 {status}\r\n{header}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def _events(writer, *events):
    data = b"".join(b"data: " + event + b"\n\n" for event in events)
    writer.write(HEAD + b"%x\r\n%s\r\n" % (len(data), data) + END)


if __name__ == "__main__":
    FaultyProxy(int(sys.argv[2]), port=int(sys.argv[1]))
    threading.Event().wait()
