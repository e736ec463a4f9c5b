"""vLLM as an engine: what it must do beyond the contract, on a real vLLM."""

import os
import random
import shutil
import signal
import threading
from contextlib import closing, contextmanager

import pytest
import torch
from engines import poll_all
from safetensors.torch import save_file
from vllm_models import LONGEST_PROMPT, as_folder, wide_llama

from optpo.errors import EngineError, SettingsError
from optpo.sampling.engine import Request, SampleSettings, stream_seed
from optpo.sampling.vllm_engine import VllmEngine, open_vllm
from optpo.sampling.vllm_process import logprobs_mode

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` installs it")
psutil = pytest.importorskip("psutil")
pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def model():
    return wide_llama(0)


@pytest.fixture(scope="module")
def folder(model, tokenizer, tmp_path_factory):
    return as_folder(model, tokenizer, tmp_path_factory.mktemp("wide"))


@contextmanager
def opened(folder, end_tokens=(2, 3), save=None, **settings):
    asked = SampleSettings(**settings)
    with closing(open_vllm(folder, asked, end_tokens, LONGEST_PROMPT, save=save)) as engine:
        yield engine


@pytest.fixture(scope="module")
def policy():
    """What the engine's weights are saved from."""
    return {}


@pytest.fixture(scope="module")
def engine(model, folder, policy, tokenizer, tmp_path_factory):
    """One for the tests that leave it as they found it; the folder it starts with is gone."""
    first = as_folder(model, tokenizer, tmp_path_factory.mktemp("first"))

    def save(place):
        policy["model"].save_pretrained(place)

    with opened(first, save=save, max_new_tokens=40, rows=32) as engine:
        shutil.rmtree(first)
        yield engine


def requests_of(count, questions=20, longest=70):
    """Rollouts of questions of up to `longest` tokens."""
    draw = random.Random(1)
    prompts = [
        tuple(draw.randrange(8, 95) for _ in range(draw.randrange(1, longest + 1)))
        for _ in range(questions)
    ]
    return [
        Request(
            f"q{n % questions}", prompts[n % questions], n // questions,
            stream_seed(2, 0, f"q{n % questions}", n // questions, "vllm"),
        )
        for n in range(count)
    ]  # fmt: skip


def sample(engine, requests):
    """Completions in the order of the requests."""
    handles = [engine.submit(request) for request in requests]
    done = poll_all(engine)
    return [done[handle] for handle in handles]


def forward_logps(model, request, tokens, temperature=1.0):
    """The log-probs of every token of the vocabulary at each place of a completion."""
    sequence = torch.tensor([[*request.prompt_tokens, *tokens]])
    with torch.no_grad():
        logits = model(sequence).logits[0, len(request.prompt_tokens) - 1 : -1]
    return (logits / temperature).log_softmax(-1)


def left_by(logps, settings):
    """Which tokens min-p, then top-k, then top-p leave; at an edge, give or take rounding."""
    chances = logps.exp()
    kept = chances >= chances.max(-1, keepdim=True).values * settings.min_p * 0.999
    chances = chances * kept
    kept &= chances >= chances.topk(settings.top_k or 96).values[:, -1:] * 0.999
    ordered = (chances * kept).sort(descending=True).values
    shares = ordered / ordered.sum(-1, keepdim=True)
    within = (shares.cumsum(-1) - shares < settings.top_p + 1e-3).sum(-1, keepdim=True)
    return kept & (chances >= ordered.gather(-1, within - 1) * 0.999)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"temperature": 1.0, "top_p": 0.8, "top_k": 12, "min_p": 0.02},
        {"temperature": 0.0},
    ],
)
def test_log_probs_are_those_of_a_rollout(model, folder, settings):
    """At the temperature and before tokens are cut off, as a fresh forward gives them; and only
    tokens are drawn that the settings leave."""
    asked = SampleSettings(max_new_tokens=30, rows=16, **settings)
    requests = requests_of(60)
    with opened(folder, max_new_tokens=30, rows=16, **settings) as engine:
        assert engine.capabilities.logps
        done = sample(engine, requests)
    for request, completion in zip(requests, done, strict=True):
        logps = forward_logps(model, request, completion.tokens, asked.temperature or 1.0)
        tokens = torch.tensor(completion.tokens)[:, None]
        told = torch.tensor(completion.logps)
        assert torch.allclose(told, logps.gather(-1, tokens)[:, 0], atol=1e-4)
        if asked.temperature == 0:
            assert torch.allclose(told, logps.max(-1).values, atol=1e-4)
        else:
            assert left_by(logps, asked).gather(-1, tokens).all()


def test_without_log_probs_it_still_samples(folder):
    """Where vLLM has none of the kind that a rollout records, it says so and gives none."""
    settings = {"temperature": 0.7, "top_k": 5, "max_new_tokens": 10, "rows": 8}
    assert logprobs_mode(SampleSettings(**settings)) is None
    with opened(folder, **settings) as engine:
        assert not engine.capabilities.logps
        done = sample(engine, requests_of(20))
    assert {completion.logps for completion in done} == {()}
    assert all(completion.tokens for completion in done)


def test_a_seed_repeats_its_tokens_in_every_batch(folder, engine):
    """In float32 on a CPU: asked in another order, in larger batches and alone. One rollout in a
    hundred may differ, since rounding may decide a draw."""
    requests = requests_of(300)
    by_request = dict(zip(requests, sample(engine, requests), strict=True))
    with opened(folder, max_new_tokens=40, rows=64) as other:
        shuffled = random.Random(4).sample(requests, len(requests))
        batched = dict(zip(shuffled, sample(other, shuffled), strict=True))
    alone = {request: sample(engine, [request])[0] for request in requests[:30]}
    for repeated in (batched, alone):
        differ = sum(
            completion.tokens != by_request[request].tokens
            for request, completion in repeated.items()
        )
        assert differ <= len(repeated) / 100
    assert len({completion.tokens for completion in by_request.values()}) > 250


def test_cancelling_leaves_neighbours_alone(engine):
    """Those that stay have the tokens they would have had; those that go cost what they had."""
    requests = requests_of(60)
    alone = sample(engine, requests)
    handles = [engine.submit(request) for request in requests]
    done = {completion.handle: completion for completion in engine.poll()}
    dropped = {}
    for place in range(0, 60, 3):
        if handles[place] not in done:
            dropped[place] = engine.cancel(handles[place])
    done |= poll_all(engine)
    stayed = [place for place in range(60) if place not in dropped]
    assert set(done) == {handles[place] for place in stayed}
    assert [done[handles[place]].tokens for place in stayed] == [
        alone[place].tokens for place in stayed
    ]
    assert all(cost <= len(alone[place].tokens) for place, cost in dropped.items())
    assert max(dropped.values()) > 0 == dropped[57]


def test_full_blocks_of_a_prompt_are_computed_once(folder, engine):
    """Prefill counts what was computed: of a prompt seen before only what fills no block of 32; all
    of it again after new weights."""
    prompt = tuple(range(10, 80))
    for again, expected in ((False, 70), (False, 6), (True, 70)):
        if again:
            engine.update_weights(0, folder)
        before = engine.prefill_tokens
        sample(engine, [Request("long", prompt, 0, 1)])
        assert engine.prefill_tokens - before == expected


def gap(model, requests, completions):
    """The largest difference, in nats, between the log-probs told and the model's own."""
    return max(
        float(
            (
                forward_logps(model, request, done.tokens).gather(
                    -1, torch.tensor(done.tokens)[:, None]
                )[:, 0]
                - torch.tensor(done.logps)
            )
            .abs()
            .max()
        )
        for request, done in zip(requests, completions, strict=True)
    )


def test_a_head_that_is_the_embeddings_is_new_as_well(tokenizer, tmp_path):
    """Though it is in no folder: log-probs are those of the new model, and of the next."""
    models = [wide_llama(seed, tied=True) for seed in range(3)]
    folders = [as_folder(model, tokenizer, tmp_path / str(n)) for n, model in enumerate(models)]
    requests = requests_of(10)
    with opened(folders[0], max_new_tokens=20, rows=8) as engine:
        for version in (1, 2):
            engine.update_weights(version, folders[version])
            assert gap(models[version], requests, sample(engine, requests)) < 1e-4


@pytest.mark.parametrize("from_folder", [True, False])
def test_new_weights_are_those_given(folder, policy, tokenizer, engine, tmp_path, from_folder):
    """Log-probs are those of the folder's model from then on, or of the policy as it is where no
    folder is named; and of the old one after going back."""
    other = wide_llama(5 + from_folder)
    requests = requests_of(10)
    before = sample(engine, requests)
    if from_folder:
        engine.update_weights(1, as_folder(other, tokenizer, tmp_path))
    else:
        policy["model"] = other
        engine.update_weights(1)
    after = sample(engine, requests)
    assert {completion.version for completion in after} == {1}
    assert gap(other, requests, after) < 1e-4
    engine.update_weights(0, folder)
    assert [done.tokens for done in sample(engine, requests)] == [done.tokens for done in before]


def test_weights_that_are_not_there_are_refused(engine, tmp_path):
    """A folder without safetensors, or without some of them, or none and no policy to save, leave
    the engine as it was; so do rollouts in flight."""
    (tmp_path / "model.bin").write_bytes(b"pickle")
    with pytest.raises(EngineError, match="are missing"):
        engine.update_weights(1, tmp_path)
    save_file({"lm_head.weight": torch.zeros(96, 64)}, tmp_path / "model.safetensors")
    with pytest.raises(EngineError, match="are missing"):
        engine.update_weights(1, tmp_path)
    with pytest.raises(EngineError, match="give its folder"):
        VllmEngine(engine._llm, engine._loop, SampleSettings(), (), engine._names).update_weights(1)
    engine.submit(requests_of(1)[0])
    with pytest.raises(RuntimeError, match="in flight"):
        engine.update_weights(1)
    poll_all(engine)
    assert {done.version for done in sample(engine, requests_of(5))} == {0}


def test_a_question_that_cannot_be_asked_is_an_error_of_its_own(engine):
    """Too long, empty, or with a token that the model does not have: with the reason, and the
    others are answered."""
    prompts = ((9,) * 200, (), (96,), (9,))
    done = sample(engine, [Request(f"q{n}", prompt, 0, n) for n, prompt in enumerate(prompts)])
    assert [completion.finish == "error" for completion in done] == [True, True, True, False]
    reasons = [completion.reason for completion in done]
    assert "longer than" in reasons[0] and "empty" in reasons[1] and "token 96" in reasons[2]


def test_many_long_prompts_at_once(engine):
    """More prompt tokens than vLLM computes at once: none is computed in pieces, which on a CPU
    would be the end of it."""
    requests = [Request(f"q{n}", (8 + n % 80, *range(9, 88)), 0, n) for n in range(60)]
    assert len(sample(engine, requests)) == 60


def test_an_interrupt_is_the_callers(engine):
    """It ends the waiting, not the engine: what was in flight still comes back."""
    with pytest.raises(KeyboardInterrupt):
        interrupted(engine)
    handles = {engine.submit(request) for request in requests_of(10)}
    for child in psutil.Process().children(recursive=True):
        child.send_signal(signal.SIGINT)
    assert handles <= set(poll_all(engine))


def interrupted(engine):
    """Poll until an interrupt comes, a little later."""
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    while True:
        for request in requests_of(200):
            engine.submit(request)
        poll_all(engine)


def test_vllm_killed_is_an_error(folder, capfd):
    """And no endless wait; nothing of it all is on standard output, and closing still works."""
    children = set(psutil.Process().children(recursive=True))
    with opened(folder, max_new_tokens=800, rows=8, end_tokens=()) as engine:
        for request in requests_of(16):
            engine.submit(request)
        for child in set(psutil.Process().children(recursive=True)) - children:
            child.kill()
        with pytest.raises(EngineError, match="has stopped"):
            poll_all(engine)
    assert engine.poll() == []
    assert capfd.readouterr().out == ""


def test_a_model_that_vllm_cannot_run_is_refused(tmp_path):
    """A folder that is none, with the reason in words."""
    with pytest.raises(EngineError, match="cannot run"):
        open_vllm(tmp_path, SampleSettings(), (2,), 10)


@pytest.mark.parametrize("temperature", [0.005, 2.5])
def test_a_temperature_that_vllm_would_change_is_refused(folder, temperature):
    """Rather than drawn at another one."""
    with pytest.raises(SettingsError, match="vLLM draws at 0"):
        open_vllm(folder, SampleSettings(temperature=temperature), (2,), 10)
