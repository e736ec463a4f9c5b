"""What is sent for a rollout, and how its answer is read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.data import ChatMessage
from optpo.sampling.completion_protocol import (
    AnswerReader,
    Dialect,
    optional_fields,
    request_of,
    seed_of,
)
from optpo.sampling.engine import Request, SampleSettings
from optpo.sampling.retry import AttemptError

EVERYTHING = SampleSettings(
    temperature=0.7, top_p=0.9, top_k=20, min_p=0.05, max_new_tokens=99,
    stop=("</answer>",), stop_tokens=(7, 8),
)  # fmt: skip


def full(settings=EVERYTHING):
    return Dialect("tiny", frozenset(optional_fields(settings, chat=True)))


def asked(prompt=None, tokens=(), stream=-5, settings=EVERYTHING, api="chat"):
    return request_of(Request("q", tokens, 0, stream, prompt), settings, full(settings), api)


def test_every_setting_is_sent():
    """In the words of the protocol and of the servers that take more than it has."""
    path, body = asked("What?")
    assert path == "/chat/completions"
    assert body == {
        "model": "tiny", "stream": True, "messages": [{"role": "user", "content": "What?"}],
        "max_tokens": 99, "temperature": 0.7, "top_p": 0.9, "top_k": 20, "min_p": 0.05,
        "stop": ["</answer>"], "include_stop_str_in_output": True, "stop_token_ids": [7, 8],
        "repetition_penalty": 1.0, "seed": 2**31 - 5, "logprobs": True, "return_token_ids": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_what_is_off_is_said_to_be_off():
    """A server's own default for it, or the model's, would draw from another distribution."""
    _, body = asked("What?", settings=SampleSettings())
    wanted = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
    assert {name: body[name] for name in wanted} == wanted
    assert body["repetition_penalty"] == 1.0
    assert "stop" not in body and "stop_token_ids" not in body


def test_questions_go_where_they_belong():
    """Messages to chat, text to chat or, where asked, to completions, ids to completions; ids that
    come beside a prompt are left to the server."""
    messages = (ChatMessage("system", "Be short."), ChatMessage("user", "What?"))
    path, body = asked(messages, api="completions")
    assert path == "/chat/completions"
    assert body["messages"] == [
        {"role": "system", "content": "Be short."}, {"role": "user", "content": "What?"},
    ]  # fmt: skip
    path, body = asked("What?", tokens=(1, 2), api="completions")
    assert (path, body["prompt"], body["logprobs"]) == ("/completions", "What?", 1)
    path, body = asked(tokens=(1, 2))
    assert (path, body["prompt"]) == ("/completions", [1, 2])
    for nothing in ({}, {"prompt": ""}, {"prompt": ()}):
        with pytest.raises(ValueError, match="'q' is empty"):
            asked(**nothing)


def test_only_fields_that_the_server_takes_are_sent():
    """And the limit under the name that it knows."""
    dialect = Dialect("tiny", frozenset({"seed"}), "max_completion_tokens")
    _, body = request_of(Request("q", (), 0, 3, "What?"), EVERYTHING, dialect, "chat")
    assert body.keys() == {"model", "stream", "messages", "seed", "max_completion_tokens"}


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_seed_is_in_the_range_that_every_server_takes(stream):
    """31 bits, not negative, the same for the same stream."""
    assert 0 <= seed_of(stream) < 2**31 and seed_of(stream) % 2 == stream % 2


def chunk(piece="", finish=None, ids=None, logps=None, chat=True):
    choice = {"index": 0, "finish_reason": finish}
    choice |= {"delta": {"content": piece}} if chat else {"text": piece}
    if ids is not None:
        choice["token_ids"] = ids
    if logps is not None:
        choice["logprobs"] = (
            {"content": [{"logprob": logp} for logp in logps]}
            if chat
            else {"token_logprobs": logps}
        )
    return json.dumps({"choices": [choice]})


def usage(completion, prompt=5, cached=0):
    details = {"prompt_tokens_details": {"cached_tokens": cached}} if cached else {}
    told = {"completion_tokens": completion, "prompt_tokens": prompt, **details}
    return json.dumps({"choices": [], "usage": told})


def read(*events):
    reader = AnswerReader(quote=lambda text: text[:50])
    for event in events:
        reader.read(event)
    return reader.sampled()


@given(
    st.lists(st.tuples(st.text(max_size=5), st.lists(st.integers(0, 9), max_size=3)), min_size=1),
    st.booleans(),
    st.data(),
)
def test_a_stream_is_read_whole_or_not_at_all(pieces, chat, data):
    """However it is cut into events; and cut short at any event before its end it is no answer."""
    events = [chunk(text, ids=ids, logps=[-0.5] * len(ids), chat=chat) for text, ids in pieces]
    ids = (*(token for _, some in pieces for token in some), 2)
    events += [chunk("", "stop", [2], [-1.0], chat), usage(len(ids), 7, cached=3), "[DONE]"]
    sampled = read(*events)
    assert sampled.tokens == ids and len(sampled.logps) == len(ids)
    assert sampled.text == "".join(text for text, _ in pieces)
    assert (sampled.finish, sampled.prompt_tokens, sampled.cached_tokens) == ("stop", 7, 3)
    kept = data.draw(st.integers(0, len(pieces)))
    with pytest.raises(AttemptError) as caught:
        read(*events[:kept])
    assert caught.value.remedy == "again"


@given(st.text() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "delta", "content", "usage", "error", "logprobs", "index",
                         "token_ids", "finish_reason", "completion_tokens", "text", "code"]),
        inner, max_size=4,
    ),
    max_leaves=12,
).map(json.dumps))  # fmt: skip
def test_no_event_breaks_the_reader(event):
    """What is no answer is an attempt that failed, whatever it is."""
    reader = AnswerReader(quote=lambda text: text[:50])
    try:
        reader.read(event)
        reader.sampled()
    except AttemptError as failure:
        assert failure.remedy in ("again", "slower", "refused", "fatal")


def test_an_answer_that_is_delivered_twice_counts_once():
    """With the end mark between the two or without it."""
    events = [chunk("w9", ids=[9]), chunk(" w2", "stop", [2])]
    once = read(*events, usage(2), "[DONE]")
    assert read(*events, usage(2), "[DONE]", *events, usage(2), "[DONE]") == once
    assert read(*events, *events, usage(2)) == once
    assert read(*events, usage(2), "[DONE]", usage(3), "{") == once


def test_tokens_that_are_not_as_many_as_the_server_counts_are_no_answer():
    """One event that came twice, or was lost."""
    with pytest.raises(AttemptError, match="3 tokens arrived where the server counts 2"):
        read(chunk("w9", ids=[9]), chunk("w9", ids=[9]), chunk("", "stop", [2]), usage(2))


def test_without_token_ids_the_servers_count_stands():
    """Else that of the log-probs, else that of the pieces of text; the end token at the least."""
    assert read(chunk("a"), chunk("b", "length"), usage(7)).tokens == (-1,) * 7
    counted = read(chunk("a", logps=[-1, -2]), chunk("b", "length", logps=[-3]))
    assert (counted.tokens, counted.logps) == ((-1,) * 3, (-1, -2, -3))
    assert read(chunk("a"), chunk("b", "length")).tokens == (-1,) * 2
    assert read(chunk("", "stop")).tokens == (-1,)


def test_log_probs_are_one_a_token_or_none_at_all():
    """Where the server tells fewer, or none of some token, they are of no use."""
    assert read(chunk("a", ids=[4, 2], logps=[-1], finish="stop")).logps == ()
    assert read(chunk("a", ids=[4], logps=[None], finish="stop")).logps == ()


@pytest.mark.parametrize(
    ("word", "finish", "reason"),
    [
        ("stop", "stop", ""), ("eos", "stop", ""), ("tool_calls", "stop", ""),
        ("length", "length", ""), ("content_filter", "length", "content_filter"),
        ("something new", "length", "something new"),
    ],
)  # fmt: skip
def test_only_an_end_of_its_own_is_an_answer(word, finish, reason):
    """What ended a rollout otherwise cut it off."""
    sampled = read(chunk("w9", word))
    assert (sampled.finish, sampled.reason) == (finish, reason)


@pytest.mark.parametrize(
    ("event", "remedy"),
    [
        ({"error": {"message": "oh", "code": 500}}, "again"),
        ({"error": {"message": "oh", "code": "503"}}, "slower"),
        ({"error": {"message": "too long", "code": 400}}, "refused"),
        ({"error": {"message": "pay", "type": "insufficient_quota"}}, "fatal"),
        ({"error": "oh"}, "again"),
        ({"choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}]}, "again"),
    ],
)
def test_an_error_within_a_stream_has_its_remedy(event, remedy):
    """Servers that have begun to answer can only report it there."""
    with pytest.raises(AttemptError) as caught:
        read(chunk("w9"), json.dumps(event))
    assert caught.value.remedy == remedy


def test_a_whole_answer_reads_as_a_stream_does():
    """From servers that do not stream."""
    chat = {
        "choices": [
            {
                "index": 0, "message": {"role": "assistant", "content": "w9 w2"},
                "finish_reason": "stop", "logprobs": {"content": [{"logprob": -1.0}] * 2},
            }
        ],
        "usage": {"completion_tokens": 2, "prompt_tokens": 3},
    }  # fmt: skip
    sampled = read(json.dumps(chat))
    assert (sampled.text, sampled.tokens, sampled.logps) == ("w9 w2", (-1, -1), (-1.0, -1.0))
    plain = {"choices": [{"index": 0, "text": "w9", "finish_reason": "length"}]}
    assert read(json.dumps(plain)).text == "w9"
