"""What the scheduler relies on, of every engine there is."""

import copy

import pytest
import torch
from engines import ENGINES, Tiny, poll_all, requests_of

from optpo.errors import EngineError
from optpo.sampling.engine import SampleSettings


@pytest.fixture(scope="session")
def tiny(llama, tokenizer, tmp_path_factory):
    """The tiny model, and one that differs."""
    folders = [tmp_path_factory.mktemp(name) for name in ("tiny", "other")]
    other = copy.deepcopy(llama)
    with torch.no_grad():
        other.lm_head.weight.mul_(-1)
    for model, folder in zip((llama, other), folders, strict=True):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return Tiny(llama, tokenizer, *folders)


@pytest.fixture(params=list(ENGINES))
def open_engine(request, tiny):
    """Open an engine with these settings."""
    return lambda **settings: ENGINES[request.param](tiny, SampleSettings(**settings))


def sample_all(engine, requests):
    """Completions by what was asked."""
    handles = {engine.submit(request): request for request in requests}
    return {
        (handles[handle].prompt_id, handles[handle].index): completion
        for handle, completion in poll_all(engine).items()
    }


def test_each_handle_comes_back_once(open_engine):
    """Everything submitted comes back, once, and then the engine is idle."""
    with open_engine(max_new_tokens=12, rows=8) as engine:
        assert list(engine.poll()) == []
        handles = [engine.submit(request) for request in requests_of(60)]
        assert len(set(handles)) == 60
        assert set(poll_all(engine)) == set(handles)
        assert list(engine.poll()) == []
        more = [engine.submit(request) for request in requests_of(10)]
        assert set(poll_all(engine)) == set(more) and not set(more) & set(handles)
        assert engine.slots >= 1 and engine.prefill_tokens >= 0


def test_a_cancelled_rollout_never_comes_back(open_engine):
    """Neither one that waits, nor one in flight, nor one that was cancelled before; one that came
    back already is left alone; neighbours come back, with the tokens they would have had."""
    settings = {"max_new_tokens": 24, "rows": 8}
    with open_engine(**settings) as engine:
        alone = sample_all(engine, requests_of(40))
    with open_engine(**settings) as engine:
        requests = requests_of(40)
        handles = [engine.submit(request) for request in requests]
        dropped = set(handles[30:34])
        assert [engine.cancel(handle) for handle in handles[30:34]] == [0] * 4
        done = {completion.handle: completion for completion in engine.poll()}
        assert done
        returned = next(iter(done))
        assert engine.cancel(returned) == 0
        in_flight = [handle for handle in handles[:12] if handle not in done][:3]
        costs = [engine.cancel(handle) for handle in in_flight]
        assert all(0 <= cost <= 24 for cost in costs)
        dropped |= set(in_flight)
        assert [engine.cancel(handle) for handle in in_flight] == [0] * len(in_flight)
        done |= poll_all(engine)
        assert set(done) == set(handles) - dropped
        if engine.capabilities.exact_streams:
            for handle, request in zip(handles, requests, strict=True):
                if handle in done:
                    expected = alone[request.prompt_id, request.index]
                    assert done[handle].tokens == expected.tokens


def test_cancelling_everything_leaves_the_engine_idle(open_engine):
    """And ready for more."""
    with open_engine(max_new_tokens=16, rows=8) as engine:
        handles = [engine.submit(request) for request in requests_of(20)]
        came = {completion.handle for completion in engine.poll()}
        for handle in handles:
            engine.cancel(handle)
        assert came and list(engine.poll()) == []
        assert len(sample_all(engine, requests_of(5))) == 5


def test_limits_are_respected(open_engine):
    """No rollout is longer than asked; one that was cut says so, one that was not ends by itself."""
    for limit in (1, 6):
        with open_engine(max_new_tokens=limit, rows=8) as engine:
            done = sample_all(engine, requests_of(40))
        lengths = {len(completion.tokens) for completion in done.values()}
        assert min(lengths) >= 1 and max(lengths) == limit
        finishes = {completion.finish for completion in done.values()}
        assert finishes == {"stop", "length"}
        for completion in done.values():
            assert len(completion.tokens) == limit or completion.finish == "stop"


def test_a_stop_string_ends_a_rollout(open_engine, tokenizer):
    """Text beyond a stop string is never sampled."""
    with open_engine(max_new_tokens=40, rows=8, stop=("w40", "w50", "w60")) as engine:
        done = sample_all(engine, requests_of(60))
    ended = 0
    for completion in done.values():
        if min(completion.tokens) >= 0:
            words = tokenizer.decode(completion.tokens).split()
            stops = [word for word in words if word in ("w40", "w50", "w60")]
            assert stops in ([], words[-1:])
            assert not stops or completion.finish == "stop"
            ended += len(stops)
    assert ended > 0 or not any(min(completion.tokens) >= 0 for completion in done.values())


def test_a_stop_token_ends_a_rollout(open_engine):
    """It is the last of the rollout's tokens."""
    with open_engine(max_new_tokens=40, rows=8, stop_tokens=(40, 50, 60)) as engine:
        done = sample_all(engine, requests_of(60))
    told = [completion for completion in done.values() if min(completion.tokens) >= 0]
    ended = [completion for completion in told if {40, 50, 60} & {*completion.tokens}]
    assert ended or not told
    for completion in ended:
        assert completion.tokens[-1] in (40, 50, 60)
        assert not {40, 50, 60} & {*completion.tokens[:-1]}
        assert completion.finish == "stop"


def test_completions_are_what_the_capabilities_say(open_engine):
    """Log-probs one a token or none at all; token ids, or a text and -1 for each token."""
    with open_engine(max_new_tokens=12, rows=8) as engine:
        capabilities = engine.capabilities
        done = sample_all(engine, requests_of(30))
    for completion in done.values():
        assert len(completion.logps) == (len(completion.tokens) if capabilities.logps else 0)
        assert all(value <= 1e-6 for value in completion.logps)
        if capabilities.token_ids:
            assert min(completion.tokens) >= 0
        else:
            assert set(completion.tokens) == {-1} and completion.text is not None


def test_a_rollout_is_a_function_of_its_request(open_engine):
    """Where the engine claims so: asked in another order, with others, in other batches."""
    with open_engine(max_new_tokens=20, rows=8) as engine:
        if not engine.capabilities.exact_streams:
            pytest.skip("this engine does not claim it")
        whole = sample_all(engine, requests_of(48))
    with open_engine(max_new_tokens=20, rows=3) as engine:
        some = sample_all(engine, requests_of(48)[::-3])
    for key, completion in some.items():
        assert completion.tokens == whole[key].tokens
        assert completion.logps == pytest.approx(whole[key].logps, abs=1e-4)
    assert len({completion.tokens for completion in whole.values()}) > 40


def test_versions_are_true(open_engine, tiny):
    """New weights give other tokens, tagged with their version; not while rollouts are in flight."""
    with open_engine(max_new_tokens=20, rows=8) as engine:
        requests = requests_of(120)[97::2]
        before = sample_all(engine, requests)
        assert {completion.version for completion in before.values()} == {0}
        # One that the engine `recorded` has, and one that it has not.
        for request in (requests_of(1)[0], requests[0]):
            engine.submit(request)
            with pytest.raises(RuntimeError):
                engine.update_weights(3, tiny.other_folder)
            assert len(poll_all(engine)) == 1
        try:
            engine.update_weights(3, tiny.other_folder)
        except EngineError:
            return  # a server's weights are its own
        after = sample_all(engine, requests)
        assert {completion.version for completion in after.values()} == {3}
        assert [done.tokens for done in after.values()] != [d.tokens for d in before.values()]


def test_closing_drops_what_is_in_flight(open_engine):
    """Nothing comes back after it, and it may be done twice."""
    with open_engine(max_new_tokens=20, rows=4) as engine:
        for request in requests_of(20):
            engine.submit(request)
        engine.poll()
        engine.close()
        engine.close()
        assert engine.poll() == []
