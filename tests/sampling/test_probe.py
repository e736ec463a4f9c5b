"""Finding out what a server can do."""

import json
from contextlib import closing

import pytest
from engines import END_TOKENS
from model_server import Model, ModelServer
from voting_run import QUICK

from optpo.errors import EngineError, SettingsError
from optpo.sampling.endpoint import Endpoint
from optpo.sampling.engine import Capabilities, Request, SampleSettings
from optpo.sampling.openai_engine import open_endpoint

OPTIONAL = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "logprobs",
    "return_token_ids", "stream_options",
)  # fmt: skip
PLAIN = SampleSettings(max_new_tokens=12)


@pytest.fixture(scope="module")
def model(llama, tokenizer):
    with closing(Model(llama, tokenizer, END_TOKENS)) as model:
        yield model


def probed(model, settings=PLAIN, notices=None, endpoint=None, **server):
    """The capabilities of such a server, and the body of a rollout that was sent to it."""
    with closing(ModelServer(model, **server)) as running:
        where = Endpoint(running.url, **QUICK | (endpoint or {}))
        hear = (lambda text: None) if notices is None else notices.append
        with closing(open_endpoint(where, settings, hear)) as engine:
            engine.submit(Request("q", (), 0, 1, "w8 w9"))
            (completion,) = engine.poll()
            assert completion.finish in ("stop", "length") and completion.tokens
            return engine.capabilities, running.requests[-1]


def test_a_server_that_takes_everything_has_every_capability(model):
    """But a prefix cache, which nobody can see for a prompt of a few tokens."""
    capabilities, body = probed(model)
    assert capabilities == Capabilities(
        cancel=True, logps=True, seed=True, exact_streams=True, prefix_cache=False, token_ids=True
    )
    assert set(OPTIONAL) <= body.keys()


@pytest.mark.parametrize("refused", OPTIONAL)
def test_a_field_that_is_refused_is_left_out_alone(model, refused):
    """And the capability that hangs on it is gone, no other."""
    capabilities, body = probed(model, refuses=(refused,))
    assert set(OPTIONAL) - body.keys() == {refused}
    missing = {
        "seed": {"exact_streams"}, "logprobs": {"logps"}, "return_token_ids": {"token_ids"},
    }.get(refused, set())  # fmt: skip
    # Without seeds this server always draws with the same.
    missing |= {"seed"} if refused == "seed" else set()
    everything = {"cancel", "logps", "seed", "exact_streams", "token_ids"}
    assert {name for name in everything if getattr(capabilities, name)} == everything - missing


def test_a_server_of_the_bare_protocol_will_do(model):
    """Nothing optional, and the limit under its newer name."""
    capabilities, body = probed(
        model, refuses=(*OPTIONAL, "max_tokens"), endpoint={"api": "completions"}
    )
    assert body.keys() == {"model", "stream", "prompt", "max_completion_tokens"}
    assert capabilities == Capabilities(
        cancel=True, logps=False, seed=False, exact_streams=False, prefix_cache=False,
        token_ids=False,
    )  # fmt: skip


def test_a_server_that_fails_for_a_field_does_without_it(model):
    """As some do where they should refuse."""

    def fails(path, headers, body):
        return (500, {}, b"KeyError: min_p") if "min_p" in body else None

    capabilities, body = probed(model, answer=fails)
    assert set(OPTIONAL) - body.keys() == {"min_p"} and capabilities.exact_streams


def test_a_server_that_refuses_everything_is_an_error(model):
    """With its words, and not as if some setting were to blame."""

    def refuses(path, headers, body):
        return (400, {}, b"bad day") if path != "/v1/models" else None

    settings = SampleSettings(temperature=0.5, max_new_tokens=12)
    with pytest.raises(EngineError, match="HTTP 400: bad day"):
        probed(model, settings, answer=refuses)


def test_settings_that_the_server_refuses_are_an_error(model):
    """All of them at once, with its words: another distribution than asked for is not an option."""
    settings = SampleSettings(temperature=0.5, top_k=20, stop=("w8",), max_new_tokens=12)
    with pytest.raises(SettingsError) as caught:
        probed(model, settings, refuses=("top_k", "min_p", "stop"))
    first, second = caught.value.problems
    assert "top_k = 20" in first and "unknown field 'top_k'" in first and "stop" in second


def test_a_seed_that_is_taken_and_not_used_is_no_seed(model):
    """The server accepts it, and draws anew each time."""
    capabilities, body = probed(model, honours_seed=False)
    assert "seed" in body and not capabilities.seed and not capabilities.exact_streams


def test_equal_rollouts_for_other_seeds_are_spoken_of(model):
    """A server that does not sample would make every vote the same; greedy settings want that."""

    def greedy(path, headers, body):
        body["temperature"] = 0.0

    notices = []
    capabilities, _ = probed(model, notices=notices, answer=greedy)
    assert len(notices) == 1 and "does not sample" in notices[0]
    assert not capabilities.seed and not capabilities.exact_streams
    notices.clear()
    capabilities, _ = probed(model, SampleSettings(temperature=0.0, max_new_tokens=12), notices)
    assert notices == [] and capabilities.exact_streams


def listing(*names):
    """A server's list of models."""
    body = json.dumps({"data": [{"id": name} for name in names]}).encode()
    return lambda path, headers, sent: (200, {}, body) if path == "/v1/models" else None


def test_the_only_model_needs_no_name(model):
    """It is asked for by the name that the server gives it."""
    assert probed(model)[1]["model"] == "tiny"


@pytest.mark.parametrize(("names", "told"), [(("tiny", "huge"), "tiny, huge"), ((), "not tell")])
def test_one_of_several_models_must_be_named(model, names, told):
    """The message lists them."""
    with pytest.raises(EngineError, match=f"name the model.*{told}"):
        probed(model, answer=listing(*names))
    assert probed(model, answer=listing(*names), endpoint={"model": "tiny"})


def test_a_wrong_name_is_answered_with_the_right_ones(model):
    """And the server's words."""
    with pytest.raises(EngineError, match=r"HTTP 404: no model 'large'.*The server has tiny\."):
        probed(model, endpoint={"model": "large"})


def test_a_server_without_a_list_of_models_will_do(model):
    """Where the model is named; such as one whose list is broken."""

    def broken(path, headers, body):
        return (500, {}, b"") if path == "/v1/models" else None

    def gone(path, headers, body):
        return (404, {}, b"") if path == "/v1/models" else None

    assert probed(model, answer=broken, endpoint={"model": "tiny"})
    with pytest.raises(EngineError, match="does not tell which it has"):
        probed(model, answer=gone)


def test_a_server_that_does_not_stream_will_do(model):
    """An answer that comes whole, as JSON, counts."""

    def whole(path, headers, body):
        if path == "/v1/models":
            return None
        text = f"w{8 + body['seed'] % 7}"
        choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
        said = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
        return 200, {}, json.dumps(said).encode()

    with (
        closing(ModelServer(model, answer=whole)) as server,
        closing(open_endpoint(Endpoint(server.url, **QUICK), PLAIN)) as engine,
    ):
        engine.submit(Request("q", (), 0, 3, "w8"))
        (completion,) = engine.poll()
        assert (completion.text, completion.tokens) == ("w11", (-1, -1))
        assert engine.capabilities.exact_streams and not engine.capabilities.token_ids
