"""The engine for servers of the OpenAI protocol, against a real server on loopback."""

import json
import logging
import os
import signal
import sys
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
from engines import END_TOKENS, poll_all, requests_of
from model_server import LONGEST, Model, ModelServer
from voting_run import QUICK

from optpo.data import ChatMessage
from optpo.errors import EngineError
from optpo.sampling.endpoint import Endpoint
from optpo.sampling.engine import Request, SampleSettings
from optpo.sampling.openai_engine import open_endpoint
from optpo.sampling.transformers_engine import TransformersEngine

SETTINGS = SampleSettings(max_new_tokens=12)
KEY = "sk-very/secret-0123456789="


@pytest.fixture(scope="module")
def model(llama, tokenizer):
    with closing(Model(llama, tokenizer, END_TOKENS)) as model:
        yield model


@contextmanager
def serving(model, settings=SETTINGS, on_notice=lambda text: None, server=None, **endpoint):
    """A server, and an engine that samples from it."""
    with closing(ModelServer(model, **server or {})) as running:
        opened = open_endpoint(Endpoint(running.url, **QUICK | endpoint), settings, on_notice)
        with closing(opened) as engine:
            yield running, engine


def question(text, index=0, stream=1):
    return Request(text, (), index, stream, text)


def refusing(status, body=b'{"error": {"message": "no"}}', after=0, headers=None, when=None):
    """An answer that takes the place of every rollout's once `armed` is set."""
    state = {"armed": False, "asked": []}

    def answer(path, _headers, sent):
        if not state["armed"] or not path.endswith("/completions"):
            return None
        if when is not None and not when(sent):
            return None
        state["asked"].append(time.monotonic())
        return (status, headers or {}, body)

    return state, answer


def test_rollouts_are_the_models_own(model, llama, tokenizer):
    """Tokens, log-probs, end and text are those that the model gives in process for these seeds."""
    requests = [Request("q", (8, 9 + n), n, 7 * n) for n in range(30)]
    alone = TransformersEngine(
        llama, tokenizer.decode, END_TOKENS, SampleSettings(max_new_tokens=LONGEST)
    )
    handles = {alone.submit(request): request.index for request in requests}
    expected = {handles[handle]: done for handle, done in poll_all(alone).items()}
    with serving(model, SampleSettings(max_new_tokens=LONGEST)) as (_, engine):
        handles = {engine.submit(request): request.index for request in requests}
        found = {handles[handle]: done for handle, done in poll_all(engine).items()}
        assert engine.prefill_tokens == 2 * len(requests)
        assert engine.capabilities.token_ids and engine.capabilities.logps
    for index, completion in found.items():
        wanted = expected[index]
        assert (completion.tokens, completion.finish) == (wanted.tokens, wanted.finish)
        assert completion.logps == pytest.approx(wanted.logps, abs=1e-4)
        assert completion.text == tokenizer.decode(wanted.tokens, skip_special_tokens=True)


def test_text_and_messages_are_questions_too(model):
    """A text is a user's message; the server's chat template makes tokens of either."""
    with serving(model) as (server, engine):
        engine.submit(Request("a", (), 0, 1, "w8 w9"))
        engine.submit(Request("b", (), 0, 1, (ChatMessage("user", "w8"), ChatMessage("x", "w9"))))
        first, second = poll_all(engine).values()
        assert first.tokens == second.tokens
        assert sorted(len(body["messages"]) for body in server.requests[-2:]) == [1, 2]


def test_cancelling_closes_the_stream(model):
    """The server sees it and stops; the tokens that had come are told; a neighbour goes on."""
    with serving(model) as (server, engine):
        server.hold_after = 2
        long = next(n for n in range(99) if len(model_tokens(model, f"w{n + 8}", 5)) == 12)
        handles = [engine.submit(question(f"w{long + 8}", stream=5)) for _ in range(3)]
        deadline = time.monotonic() + 30
        while min(engine._outstanding[handle].tokens for handle in handles) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert engine.cancel(handles[0]) == 2
        assert engine.cancel(handles[0]) == 0
        engine.cancel(handles[1])
        while server.running > 1:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert server.seen["closed by the client"] == 2
        server.release()
        assert list(poll_all(engine)) == [handles[2]]


def test_tokens_of_a_failed_attempt_are_told_once(model):
    """As lost; not by a cancellation during the pause before the next attempt as well."""
    event = b'data: {"choices": [{"delta": {"content": "w8"}, "token_ids": [8]}]}\n\n'
    stream = {"content-type": "text/event-stream"}
    state, answer = refusing(200, 2 * event, headers=stream)
    with serving(model, server={"answer": answer}, backoff_seconds=1e9) as (_, engine):
        state["armed"] = True
        handle = engine.submit(question("w8"))
        deadline = time.monotonic() + 30
        while not engine.lost_tokens:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert (engine.lost_tokens, engine.cancel(handle)) == (2, 0)


def test_cancelling_what_has_ended_costs_nothing(model):
    """Also where it was not yet returned, and then never is."""
    with serving(model) as (server, engine):
        asked = server.seen["rollouts"] + 1
        handle = engine.submit(question("w8"))
        while server.seen["rollouts"] < asked or not engine._outstanding[handle].over:
            time.sleep(0.005)
        assert engine.cancel(handle) == 0 and engine.poll() == []


def model_tokens(model, text, seed):
    settings = SampleSettings(max_new_tokens=LONGEST, rows=32)
    return model.rollout(model.encode(text), seed, settings).result().tokens[:12]


def test_a_question_that_is_refused_is_an_error_of_its_own(model):
    """With the server's words; so is one that cannot be asked; the others are answered."""
    body = b'{"detail": "the prompt is too long"}'
    state, answer = refusing(422, body, when=lambda sent: "w66" in json.dumps(sent))
    with serving(model, server={"answer": answer}) as (_, engine):
        state["armed"] = True
        asked = ["w8", "w66", "w9", "\ud800"]
        handles = [engine.submit(question(text)) for text in asked]
        handles.append(engine.submit(Request("empty", (), 0, 1)))
        done = poll_all(engine)
    finishes = ["error" if done[handle].finish == "error" else "" for handle in handles]
    assert finishes == ["", "error", "", "error", "error"]
    assert "HTTP 422: the prompt is too long" in done[handles[1]].reason
    assert "'empty' is empty" in done[handles[4]].reason
    assert done[handles[1]].tokens == () and len(state["asked"]) == 1


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "environment variable OPTPO_TEST_KEY"), (403, "OPTPO_TEST_KEY"), (404, "model's name")],
)
def test_a_server_that_refuses_everybody_ends_the_engine_at_once(
    model, monkeypatch, status, advice
):
    """With address, status, the server's words and what to do, and again at every poll."""
    monkeypatch.setenv("OPTPO_TEST_KEY", KEY)
    state, answer = refusing(status, b'{"error": {"message": "not for you"}}')
    settings = {"key_variable": "OPTPO_TEST_KEY", "server": {"answer": answer}}
    with serving(model, **settings) as (server, engine):
        state["armed"] = True
        for _ in range(2):
            engine.submit(question("w8"))
            with pytest.raises(EngineError) as caught:
                poll_all(engine)
        for wanted in (server.url, f"HTTP {status}", "not for you", advice):
            assert wanted in str(caught.value)


def test_the_key_is_never_told(model, monkeypatch, caplog):
    """Not by a server that echoes what it got into status line, headers, body and stream, in no
    log, notice, error or repr; and the server did get it."""
    monkeypatch.setenv("OPTPO_TEST_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    got, told = [], []
    form = {"status": 500}

    def answer(path, headers, body):
        got.append(headers["authorization"])
        echo = {"x-echo": headers["authorization"], "location": f"http://x/{got[-1]}"}
        said = [json.dumps({"error": {"message": f"you sent {headers}"}}).encode(),
                f"you sent {headers}".encode(), json.dumps(headers).replace("/", "\\/").encode(),
                b"x" * 280 + got[-1].encode()]  # fmt: skip
        return form["status"], echo, said[len(got) % len(said)]

    with closing(ModelServer(model, answer=answer)) as server:
        for form["status"] in (500, 200, 401, 404, 307, 429):
            endpoint = Endpoint(server.url, key_variable="OPTPO_TEST_KEY", backoff_seconds=0.01)
            with pytest.raises(EngineError) as caught:
                open_endpoint(replace(endpoint, start_seconds=0.5), SETTINGS, told.append)
            told += [str(caught.value), repr(caught.value), repr(endpoint)]
        server.answer = None
        with closing(open_endpoint(endpoint, SETTINGS, told.append)) as engine:
            server.answer, form["status"] = answer, 400
            engine.submit(question("w8"))
            told += [repr(engine), *(done.reason for done in poll_all(engine).values())]
    assert set(got) == {f"Bearer {KEY}"}
    text = "\n".join([*told, caplog.text])
    assert "[key]" in text and "HTTP 429" in text and "receive_response_headers" in text
    assert "secret" not in text


def test_retry_after_holds_back_everybody(model):
    """For as long as the server asks no rollout is sent, also none that it has not refused."""
    came = []

    def answer(path, headers, body):
        came.append(time.monotonic())
        return (429, {"retry-after": "1"}, b"") if refused and len(came) == 1 else None

    refused = False
    with serving(model, server={"answer": answer}) as (_, engine):
        came.clear()
        refused = True
        first = engine.submit(question("w8"))
        while not engine._dispatch._not_before:
            time.sleep(0.005)
        second = engine.submit(question("w9"))
        assert poll_all(engine).keys() == {first, second}
    assert len(came) == 3 and came[1] - came[0] >= 0.99


def test_fewer_are_in_flight_at_a_server_that_protests(model):
    """Down to one; and all come back once it takes them."""
    state, answer = refusing(429)
    with serving(model, server={"answer": answer}) as (_, engine):
        state["armed"] = True
        for request in requests_of(40):
            engine.submit(request)
        while engine.slots > 1:
            time.sleep(0.005)
        state["armed"] = False
        assert len(poll_all(engine)) == 40


def test_an_outage_is_no_questions_fault(model):
    """A rollout that fails over and over while nothing comes back is asked for until it does."""
    state, answer = refusing(500)
    with serving(model, server={"answer": answer}, backoff_seconds=0.001) as (_, engine):
        state["armed"] = True
        handle = engine.submit(question("w8"))
        while len(state["asked"]) < 40:
            time.sleep(0.005)
        state["armed"] = False
        assert poll_all(engine)[handle].finish in ("stop", "length")


def test_a_server_that_asks_for_more_than_the_patience_ends_the_engine(model):
    """At once, and says what would help."""
    state, answer = refusing(503, headers={"retry-after": "86400"})
    with serving(model, server={"answer": answer}) as (_, engine):
        state["armed"] = True
        engine.submit(question("w8"))
        with pytest.raises(EngineError, match=r"wait for 86400 s.*raise patience_seconds"):
            engine.poll()


def test_patience_ends_once_nothing_has_come_for_that_long(model):
    """Spoken of once before; the error says what went wrong, and that waiting longer is a setting."""
    notices = []
    state, answer = refusing(500)
    settings = {"patience_seconds": 4.0, "server": {"answer": answer}}
    with serving(model, on_notice=notices.append, **settings) as (_, engine):
        state["armed"] = True
        for request in requests_of(9):
            engine.submit(request)
        with pytest.raises(EngineError, match=r"HTTP 500: no.*patience_seconds"):
            poll_all(engine)
    assert len(notices) == 1 and "waiting for the server for up to 4 s" in notices[0]
    assert len(state["asked"]) > 9


def test_a_question_that_always_fails_does_not_hold_up_the_others(model):
    """At a server that answers others it is given up as an error of its own."""
    state, answer = refusing(500, when=lambda sent: "w66" in json.dumps(sent))
    with serving(model, server={"answer": answer}, backoff_seconds=0.001) as (_, engine):
        state["armed"] = True
        bad = engine.submit(question("w66"))
        done, asked = {}, 0
        while bad not in done:
            # Another one is on its way, and comes back.
            asked += 1
            other = engine.submit(question("w9", stream=asked))
            while other not in done and bad not in done:
                done |= {completion.handle: completion for completion in engine.poll()}
        assert done[bad].finish == "error" and "failed 16 times" in done[bad].reason
        assert len(state["asked"]) >= 16


@pytest.mark.parametrize("stage", ["refuses connections", "hangs", "fails", "is no such server"])
def test_an_endpoint_that_never_works_fails_soon_with_one_message(model, stage):
    """Within its start_seconds; the message says what was tried, and no thread is left behind."""
    hold = threading.Event()

    def answer(path, headers, body):
        if stage == "hangs":
            hold.wait(30)
        return (500, {}, b"oh") if stage == "fails" else (200, {}, b"<html>hello</html>")

    notices = []
    server = ModelServer(model, answer=answer)
    url = server.url
    if stage == "refuses connections":
        server.close()
    with pytest.raises(EngineError) as caught:
        endpoint = Endpoint(url, start_seconds=3.0, backoff_seconds=0.05)
        open_endpoint(endpoint, SETTINGS, notices.append)
    hold.set()
    server.close()
    assert f"did not work within 3 s. {url}" in str(caught.value)
    assert len(notices) == (stage != "hangs") and not threads_of_engines()


def interrupt_within(function):
    """Send SIGINT to this process once its main thread is within a function of this name."""
    frame = None
    while frame is None:
        time.sleep(0.005)
        frame = sys._current_frames()[threading.main_thread().ident]
        while frame is not None and frame.f_code.co_name != function:
            frame = frame.f_back
    os.kill(os.getpid(), signal.SIGINT)


def threads_of_engines():
    return [thread for thread in threading.enumerate() if thread.name == "optpo-endpoint"]


def test_waiting_can_be_interrupted(model):
    """Ctrl-C ends a poll at once; the rollout comes back from the next one."""
    hold = threading.Event()
    state = {"armed": False}

    def answer(path, headers, body):
        if state["armed"]:
            hold.wait(30)

    with serving(model, server={"answer": answer}) as (_, engine):
        state["armed"] = True
        handle = engine.submit(question("w8"))
        # A test run that is itself in the background ignores the signal.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            threading.Thread(target=interrupt_within, args=("poll",)).start()
            with pytest.raises(KeyboardInterrupt):
                engine.poll()
        finally:
            signal.signal(signal.SIGINT, before)
        hold.set()
        assert poll_all(engine).keys() == {handle}


def test_no_more_are_in_flight_than_allowed_and_more_than_at_first(model):
    """The number grows from a few while that pays, up to the setting."""
    with serving(model, concurrency=7, server={"pace": 0.002}) as (server, engine):
        assert engine.slots == 4
        for request in requests_of(120):
            engine.submit(request)
        assert len(poll_all(engine)) == 120
        assert 4 < server.most_running <= 7 and engine.slots <= 7


def test_rollouts_are_sent_in_the_order_of_submission(model):
    """One at a time the server sees them one after the other."""
    with serving(model, concurrency=1) as (server, engine):
        before = len(server.requests)
        for n in range(20):
            engine.submit(question(f"w{8 + n}"))
        poll_all(engine)
        sent = [body["messages"][0]["content"] for body in server.requests[before:]]
        assert sent == [f"w{8 + n}" for n in range(20)]


def test_a_server_keeps_its_weights(model, tmp_path):
    """The version it has is no change; any other, or a folder, is an error; none while sampling."""
    with serving(model) as (_, engine):
        engine.update_weights(0)
        for version, folder in ((1, None), (0, tmp_path)):
            with pytest.raises(EngineError, match="keeps its weights"):
                engine.update_weights(version, folder)
        engine.submit(question("w8"))
        with pytest.raises(RuntimeError):
            engine.update_weights(0)
        (completion,) = poll_all(engine).values()
        assert completion.version == 0


def test_closing_lets_go_of_everything(model):
    """Streams, and the thread; a second time nothing happens."""
    with serving(model, server={"pace": 0.05}) as (server, engine):
        assert threads_of_engines()
        for request in requests_of(20):
            engine.submit(request)
        while not server.running:
            time.sleep(0.005)
        engine.close()
        engine.close()
        deadline = time.monotonic() + 30
        while server.running:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert engine.poll() == [] and not threads_of_engines()
