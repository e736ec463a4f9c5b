"""The embedded engine: a rollout is a function of its request, whatever else is in the batch."""

import copy
import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)

from optpo.errors import EngineError, ModelError
from optpo.sampling import prompt_cache
from optpo.sampling.engine import EntropyTemperature, Request, SampleSettings, stream_seed
from optpo.sampling.transformers_engine import TransformersEngine

END_TOKENS = (2, 3, 4, 5, 6, 7)
TINY = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def random_model(kind):
    torch.manual_seed(1)
    if kind == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**TINY)).eval()
    if kind == "mistral, window of 6":
        return MistralForCausalLM(MistralConfig(**TINY, sliding_window=6)).eval()
    if kind == "gemma3, window of 6 in one layer":
        layers = ["sliding_attention", "full_attention"]
        config = Gemma3TextConfig(**TINY, head_dim=8, sliding_window=6, layer_types=layers)
        return Gemma3ForCausalLM(config).eval()
    if kind == "gemma2, window of 6 in one layer, capped":
        return Gemma2ForCausalLM(Gemma2Config(**TINY, head_dim=8, sliding_window=6)).eval()
    if kind == "bloom":
        return BloomForCausalLM(BloomConfig(**{**TINY, "n_head": 4})).eval()
    config = GPT2Config(
        vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=1,
        eos_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def requests_of(count, prompts=20, longest=12, seed=0):
    """Rollouts of prompts of differing lengths, as the scheduler would ask for them."""
    draw = random.Random(seed)
    asked = [
        tuple(draw.randrange(8, 96) for _ in range(draw.randrange(1, longest + 1)))
        for _ in range(prompts)
    ]
    return [
        Request(
            f"q{n % prompts}", asked[n % prompts], n // prompts,
            stream_seed(seed, 0, f"q{n % prompts}", n // prompts, "test"),
        )
        for n in range(count)
    ]  # fmt: skip


def engine_of(model, decode=str, end_tokens=END_TOKENS, **settings):
    return TransformersEngine(model, decode, end_tokens, SampleSettings(**settings))


def run(engine, requests):
    """Submit all, poll to the end; completions in the order of `requests`."""
    handles = [engine.submit(request) for request in requests]
    found = {}
    while completions := engine.poll():
        for completion in completions:
            assert completion.handle not in found
            found[completion.handle] = completion
    assert found.keys() == set(handles)
    return [found[handle] for handle in handles]


def tokens_of(completions):
    return [completion.tokens for completion in completions]


def run_with_cancelled_neighbours(engine, requests, seed):
    """Submit in another order, among rollouts of other prompts that are cancelled at random."""
    draw = random.Random(seed)
    wanted = list(requests)
    extra = requests_of(len(requests) // 2, prompts=9, longest=30, seed=99)
    pending = [(request, True) for request in wanted] + [(request, False) for request in extra]
    draw.shuffle(pending)
    handles, doomed, found = {}, [], {}
    while pending or handles.keys() - found.keys() or doomed:
        for request, is_wanted in pending[:40]:
            handle = engine.submit(request)
            if is_wanted:
                handles[handle] = request
            else:
                doomed.append(handle)
        pending = pending[40:]
        for completion in engine.poll():
            found[completion.handle] = completion
        draw.shuffle(doomed)
        for handle in doomed[: 1 + len(doomed) // 2]:
            engine.cancel(handle)
        del doomed[: 1 + len(doomed) // 2]
    by_request = {request: found[handle].tokens for handle, request in handles.items()}
    assert len(by_request) == len(requests)
    return [by_request[request] for request in requests]


def assert_same_in_any_batch(model, requests, alone, **settings):
    """Rollouts of all `requests` at once, 7 at once, and of the first `alone` one at a time, with
    and without neighbours that are cancelled; returns their tokens."""
    reference = tokens_of(run(engine_of(model, rows=64, **settings), requests))
    first = tokens_of(run(engine_of(model, rows=1, **settings), requests[:alone]))
    assert first == reference[:alone]
    shuffled = random.Random(3).sample(requests, len(requests))
    by_request = dict(
        zip(shuffled, tokens_of(run(engine_of(model, rows=7, **settings), shuffled)), strict=True)
    )
    assert [by_request[request] for request in requests] == reference
    for rows in (7, 64):
        engine = engine_of(model, rows=rows, **settings)
        assert run_with_cancelled_neighbours(engine, requests, seed=rows) == reference
    return reference


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.6, "top_p": 0.8, "top_k": 12},
        {"temperature": 2.0, "min_p": 0.05},
    ],
)
def test_tokens_do_not_depend_on_the_batch(llama, settings):
    """Rollouts are the same one at a time, 7 or 64 at once, in any order of submission, and with
    neighbours that are cancelled half-way."""
    tokens = assert_same_in_any_batch(
        llama, requests_of(600), alone=120, max_new_tokens=10, **settings
    )
    # The test means something only where rollouts differ in length and content.
    assert len(set(tokens)) > 200
    assert len({len(one) for one in tokens}) > 5


def test_temperatures_by_entropy_do_not_depend_on_the_batch(llama):
    """The same where each token has its own temperature; and log-probs are those of the settings'."""
    plain = requests_of(600)
    requests = [
        replace(one, by_entropy=EntropyTemperature(0.5, -2.0, 0.5, 1.4) if place % 3 else None)
        for place, one in enumerate(plain)
    ]
    tokens = assert_same_in_any_batch(llama, requests, alone=120, max_new_tokens=10)
    drawn_plainly = tokens_of(run(engine_of(llama, rows=64, max_new_tokens=10), plain))
    # A draw that is repeated is repeated at its own temperature.
    anew = engine_of(llama, rows=64, max_new_tokens=10)
    anew._tolerance = 1e9
    assert tokens_of(run(anew, requests[:60])) == tokens[:60] and anew.repeated_draws > 60
    same = [one == other for one, other in zip(tokens, drawn_plainly, strict=True)]
    assert all(same[::3]) and not all(same[1::3])
    assert_log_probs_are_the_models_own(llama, {"temperature": 0.7}, requests)


@pytest.mark.slow
def test_tokens_do_not_depend_on_the_batch_in_ten_thousand_rollouts(llama):
    """The same over 10,000 rollouts, each by itself too; and over 600 longer ones. Near-ties
    among their draws are settled alike in every batch."""
    tokens = assert_same_in_any_batch(llama, requests_of(10_000), alone=10_000, max_new_tokens=4)
    assert len(set(tokens)) > 5000
    requests = requests_of(600, prompts=60, longest=40, seed=1)
    assert_same_in_any_batch(llama, requests, alone=60, max_new_tokens=40)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_tokens_do_not_depend_on_the_batch_on_cuda(llama):
    """The same on a GPU, and log-probs are those of a fresh forward there."""
    model = copy.deepcopy(llama).cuda()
    requests = requests_of(600)
    assert_same_in_any_batch(model, requests, alone=60, max_new_tokens=10)
    for truncation in ({"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}, {"temperature": 0}):
        assert_same_in_any_batch(model, requests[:80], alone=20, max_new_tokens=10, **truncation)
    assert_log_probs_are_the_models_own(model, {"temperature": 0.7})


class NoisyLlama(LlamaForCausalLM):
    """A model whose batched logits carry rounding far coarser than a real one's."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        if kwargs.get("use_cache"):
            noise = torch.rand(output.logits.shape, generator=self.generator)
            output.logits = output.logits + 4e-5 * (noise - 0.5)
        return output


@pytest.fixture(scope="module")
def tied_llama(llama):
    """Every token has a twin of exactly its logit, so that every greedy draw is a tie."""
    model = NoisyLlama(llama.config).eval()
    model.load_state_dict(llama.state_dict())
    with torch.no_grad():
        model.lm_head.weight[48:] = model.lm_head.weight[:48]
    model.generator = torch.Generator().manual_seed(0)
    return model


@pytest.mark.parametrize(
    "settings", [{"temperature": 0}, {"top_k": 3}, {"top_p": 0.5}, {"temperature": 0.05}]
)
def test_ties_are_settled_the_same_in_every_batch(tied_llama, settings):
    """Where rounding could decide a draw, the row is computed alone: all batches agree."""
    requests = requests_of(120)
    ends = (2, 3, 50, 51)
    outcomes = []
    for rows in (1, 7, 64):
        engine = engine_of(tied_llama, end_tokens=ends, rows=rows, max_new_tokens=8, **settings)
        outcomes.append(tokens_of(run(engine, requests)))
        assert engine.repeated_draws > 0
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_repeated_draws_are_rare(llama):
    """At an ordinary temperature hardly a draw in a thousand must be repeated: no second cost."""
    engine = engine_of(llama, max_new_tokens=10)
    tokens = sum(map(len, tokens_of(run(engine, requests_of(1000)))))
    assert engine.repeated_draws < tokens / 1000


def assert_log_probs_are_the_models_own(model, settings, requests=None):
    requests = (requests or requests_of(60))[:60]
    engine = engine_of(model, rows=16, top_p=0.9, max_new_tokens=60, **settings)
    temperature = settings["temperature"]
    for request, done in zip(requests, run(engine, requests), strict=True):
        assert len(done.logps) == len(done.tokens)
        sequence = torch.tensor([[*request.prompt_tokens, *done.tokens]], device=model.device)
        with torch.no_grad():
            logits = model(sequence).logits[0, len(request.prompt_tokens) - 1 : -1].cpu()
        expected = (logits / (temperature or 1.0)).log_softmax(-1)
        expected = expected.gather(-1, torch.tensor(done.tokens)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(done.logps), expected, atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0])
def test_log_probs_are_the_models_own(llama, temperature):
    """Each recorded log-prob is that of a fresh forward over the whole sequence, within 1e-4."""
    assert_log_probs_are_the_models_own(llama, {"temperature": temperature})


def greedy_by_generate(model, prompt, max_new_tokens, end_tokens):
    with torch.no_grad():
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(end_tokens),
            pad_token_id=0,
        )
    return tuple(output[0, len(prompt) :].tolist())


@pytest.mark.parametrize(
    "kind",
    [
        "llama",
        "qwen2",
        "gpt2",
        "mistral, window of 6",
        "gemma3, window of 6 in one layer",
        # These two attend in ways that pages do not serve.
        "gemma2, window of 6 in one layer, capped",
        "bloom",
    ],
)
def test_greedy_equals_generate(llama, kind):
    """At temperature 0 the engine gives what transformers' own generate gives, prompts of
    different lengths beside each other, sliding windows included."""
    model = llama if kind == "llama" else random_model(kind)
    requests = requests_of(12, prompts=12, longest=15)
    # An end token that greedy decoding meets now and then, so that rows leave at different times.
    free = [greedy_by_generate(model, request.prompt_tokens, 30, ()) for request in requests]
    ends = (free[0][4], free[1][9], free[2][14])
    engine = engine_of(model, end_tokens=ends, temperature=0, max_new_tokens=30, rows=5)
    expected = [greedy_by_generate(model, request.prompt_tokens, 30, ends) for request in requests]
    assert len({len(tokens) for tokens in expected}) > 1
    assert tokens_of(run(engine, requests)) == expected


def test_long_rollouts_beside_short_ones(llama):
    """Beyond 64 columns, with rows leaving and entering late, the cache slides and grows without
    changing a token: greedy long rollouts equal generate, sampled ones those drawn alone."""
    long = requests_of(6, prompts=6, longest=8)
    expected = [greedy_by_generate(llama, request.prompt_tokens, 150, ()) for request in long]
    engine = engine_of(llama, end_tokens=(), temperature=0, max_new_tokens=150, rows=4)
    assert tokens_of(run(engine, long)) == expected
    # Few end tokens: most rollouts run to 90 tokens, some end at once, 9 slots for 60.
    requests = requests_of(60, prompts=30, longest=70, seed=4)
    settings = {"end_tokens": (2, 3), "max_new_tokens": 90}
    together = tokens_of(run(engine_of(llama, rows=9, **settings), requests))
    assert together == tokens_of(run(engine_of(llama, rows=1, **settings), requests))
    assert min(map(len, together)) < 20 and max(map(len, together)) == 90


def test_a_prompt_longer_than_every_row_so_far(llama):
    """A long prompt may enter between short rows that are under way, in any order."""
    short, long = (8, 9), tuple(range(8, 90))
    requests = [
        Request(f"q{n}", long[:n] if n in (70, 82) else short, n, n * 977)
        for n in (1, 2, 3, 70, 4, 5, 82, 6, 7)
    ]
    together = tokens_of(run(engine_of(llama, rows=2, max_new_tokens=12), requests))
    alone = [
        tokens_of(run(engine_of(llama, rows=2, max_new_tokens=12), [one]))[0] for one in requests
    ]
    assert together == alone


def test_a_prompt_is_computed_once(llama):
    """Prefill costs a prompt's tokens once, however many rollouts share it."""
    requests = requests_of(200, prompts=20)
    engine = engine_of(llama, max_new_tokens=5, rows=16)
    run(engine, requests)
    distinct = {request.prompt_tokens for request in requests}
    assert engine.prefill_tokens == sum(map(len, distinct))
    run(engine, requests[:40])
    assert engine.prefill_tokens == sum(map(len, distinct))


def test_new_weights_make_prompts_be_computed_anew(llama):
    """After `update_weights` completions carry the new version and come from the new weights."""
    model = copy.deepcopy(llama)
    requests = requests_of(30)
    engine = engine_of(model, max_new_tokens=5)
    before = run(engine, requests)
    with torch.no_grad():
        model.lm_head.weight.mul_(-1.0)
    engine.update_weights(7)
    after = run(engine, requests)
    assert {done.version for done in before} == {0}
    assert {done.version for done in after} == {7}
    assert tokens_of(after) == tokens_of(run(engine_of(model, max_new_tokens=5), requests))
    assert tokens_of(after) != tokens_of(before)


def three_of_different_lengths(model, max_new_tokens):
    """A short rollout, then two longer ones."""
    requests = requests_of(100)
    done = run(engine_of(model, max_new_tokens=max_new_tokens), requests)
    lengths = [len(one.tokens) for one in done]
    short = lengths.index(2)
    longer = [n for n, length in enumerate(lengths) if length == max_new_tokens]
    return [requests[n] for n in (short, *longer[:2])]


def test_new_weights_are_refused_while_rollouts_are_in_flight(llama):
    """No rollout may mix two policies."""
    engine = engine_of(llama, max_new_tokens=6)
    for request in three_of_different_lengths(llama, 6):
        engine.submit(request)
    assert len(engine.poll()) == 1
    with pytest.raises(RuntimeError, match="in flight"):
        engine.update_weights(1)
    assert len(engine.poll()) == 2
    engine.update_weights(1)


def test_a_folder_is_read_into_the_module(llama, tmp_path):
    """Tokens after it are those of the model that was saved; another model's folder, one without
    all weights and one that is not there are refused with the reason."""
    changed = copy.deepcopy(llama)
    with torch.no_grad():
        changed.lm_head.weight.mul_(-1.0)
    changed.save_pretrained(tmp_path / "changed")
    requests = requests_of(30)
    engine = engine_of(copy.deepcopy(llama), max_new_tokens=5)
    engine.update_weights(7, tmp_path / "changed")
    after = run(engine, requests)
    assert {done.version for done in after} == {7}
    assert tokens_of(after) == tokens_of(run(engine_of(changed, max_new_tokens=5), requests))
    random_model("qwen2").save_pretrained(tmp_path / "another")
    weights = load_file(tmp_path / "changed" / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "changed" / "model.safetensors", {"format": "pt"})
    for folder, problem in (
        ("nowhere", "nowhere"),
        ("another", "not those of this model.*k_proj.bias"),
        ("changed", r"1 are missing or too many \(lm_head.weight"),
    ):
        with pytest.raises(EngineError, match=problem):
            engine.update_weights(8, tmp_path / folder)


def test_the_prompt_cache_forgets_old_prompts_only(llama, monkeypatch):
    """Beyond its bound the cache drops prompts unused for longest, never one about to be used,
    and a dropped prompt gives the same rollouts when it is computed again."""
    reference = tokens_of(run(engine_of(llama, max_new_tokens=4), requests_of(90, prompts=30)))
    monkeypatch.setattr(prompt_cache, "KEPT_TOKENS", 40)
    monkeypatch.setattr(prompt_cache, "COMPUTED_PROMPTS", 3)
    engine = engine_of(llama, max_new_tokens=4, rows=5)
    requests = requests_of(90, prompts=30)
    set_of_prompts = {request.prompt_tokens for request in requests}
    assert tokens_of(run(engine, requests)) == reference
    held = sum(len(prompt) for prompt in set_of_prompts if engine._prompts.get(prompt))
    needed = max(
        sum(len(prompt) for prompt in {request.prompt_tokens for request in requests[n : n + 5]})
        for n in range(90)
    )
    assert held <= max(40, needed)
    assert engine.prefill_tokens > sum(len(request.prompt_tokens) for request in requests[:30])


def test_rollouts_end_at_an_end_token_or_at_the_limit(llama):
    """`stop` means that the last token, and no earlier one, is an end token; `length` that none is
    and the limit is reached."""
    finishes = set()
    for done in run(engine_of(llama, max_new_tokens=9), requests_of(300)):
        ends = [place for place, token in enumerate(done.tokens) if token in END_TOKENS]
        if done.finish == "stop":
            assert ends == [len(done.tokens) - 1]
        else:
            assert done.finish == "length" and not ends and len(done.tokens) == 9
        finishes.add(done.finish)
    assert finishes == {"stop", "length"}


def test_a_limit_of_one_token(llama):
    """Rollouts that end at their first token leave room at once; none is lost or repeated."""
    completions = run(engine_of(llama, max_new_tokens=1, rows=3), requests_of(50))
    assert {len(done.tokens) for done in completions} == {1}


def test_stop_tokens_end_a_rollout(llama):
    """A stop token ends a rollout as an end token does, beside those; it is part of the tokens."""
    free = run(engine_of(llama, max_new_tokens=12), requests_of(80))
    stops = (free[0].tokens[0], free[1].tokens[1])
    assert not set(stops) & set(END_TOKENS)
    engine = engine_of(llama, max_new_tokens=12, stop_tokens=stops)
    shorter = 0
    for done, whole in zip(run(engine, requests_of(80)), free, strict=True):
        places = [place for place, token in enumerate(whole.tokens) if token in stops]
        assert done.tokens == (whole.tokens[: places[0] + 1] if places else whole.tokens)
        assert done.finish == ("stop" if places else whole.finish)
        shorter += len(done.tokens) < len(whole.tokens)
    assert shorter > 1


def test_stop_strings_end_a_rollout(llama, tokenizer):
    """A rollout ends with the token that completes a stop string, also across tokens."""
    free = run(
        engine_of(llama, tokenizer.decode, end_tokens=(), max_new_tokens=12), requests_of(80)
    )
    texts = [tokenizer.decode(done.tokens) for done in free]
    words = texts[0].split()
    stops = (f"{words[2]} {words[3]}", words[8])
    engine = engine_of(llama, tokenizer.decode, end_tokens=(), max_new_tokens=12, stop=stops)
    stopped = 0
    for done, whole in zip(run(engine, requests_of(80)), free, strict=True):
        expected = next(
            (
                length
                for length in range(1, 13)
                if any(stop in tokenizer.decode(whole.tokens[:length]) for stop in stops)
            ),
            None,
        )
        assert done.tokens == whole.tokens[:expected]
        assert done.finish == ("length" if expected is None else "stop")
        stopped += expected is not None
    assert 0 < stopped < 80


def test_cancelling_says_what_it_cost(llama):
    """A rollout in flight costs the tokens it had, one that waits or has ended costs nothing; a
    cancelled one never comes back."""
    short, long, other = three_of_different_lengths(llama, 6)
    engine = engine_of(llama, max_new_tokens=6, rows=2)
    asked = (short, long, other, other)
    first, second, third, waiting = (engine.submit(request) for request in asked)
    assert [done.handle for done in engine.poll()] == [first]
    assert engine.cancel(second) == 2
    assert engine.cancel(second) == 0
    assert engine.cancel(first) == 0
    assert engine.cancel(waiting) == 0
    assert [done.handle for done in engine.poll()] == [third]
    assert engine.poll() == []


def test_cancelling_does_not_look_through_what_waits(llama):
    """With 300,000 rollouts waiting, cancelling nearly all of them one by one is a matter of
    moments, not of hours, and the others are sampled as ever."""
    engine = engine_of(llama, max_new_tokens=3)
    requests = requests_of(300)
    handles = [engine.submit(requests[n % 300]) for n in range(300_000)]
    for handle in reversed(handles[300:]):
        assert engine.cancel(handle) == 0
    found = {}
    while completions := engine.poll():
        found |= {done.handle: done.tokens for done in completions}
    assert sorted(found) == handles[:300]
    reference = tokens_of(run(engine_of(llama, max_new_tokens=3), requests))
    assert [found[handle] for handle in handles[:300]] == reference


def test_what_is_finished_is_returned_before_others_begin(llama):
    """A poll returns with the first rollout that ends: it does not first compute a prompt for the
    place that has become free."""
    engine = engine_of(llama, max_new_tokens=5, rows=1)
    requests = requests_of(2)
    assert requests[0].prompt_tokens != requests[1].prompt_tokens
    for request in requests:
        engine.submit(request)
    assert len(engine.poll()) == 1
    assert engine.prefill_tokens == len(requests[0].prompt_tokens)
    assert len(engine.poll()) == 1


def test_an_idle_engine_returns_nothing(llama):
    """Polling with nothing asked for is empty, again and again."""
    engine = engine_of(llama)
    assert engine.poll() == []
    assert engine.poll() == []


def test_capabilities_promise_exact_streams_in_float32_only(llama):
    """In float32 rollouts depend on their request alone, and the engine says so; in bfloat16 it
    promises nothing, and still samples."""
    assert engine_of(llama).capabilities.exact_streams
    coarse = engine_of(copy.deepcopy(llama).bfloat16(), max_new_tokens=5)
    assert not coarse.capabilities.exact_streams
    assert len(run(coarse, requests_of(30))) == 30
    assert coarse.repeated_draws == 0
    mixed = TransformersEngine(
        llama, str, END_TOKENS, SampleSettings(), lambda: torch.autocast("cpu", torch.bfloat16)
    )
    assert not mixed.capabilities.exact_streams


@pytest.mark.parametrize("layer", ["linear_attention", "chunked_attention", "mamba"])
def test_layers_whose_state_cannot_be_shared_are_refused(llama, layer):
    """A model that is not attention all through is refused before the first forward, by name."""
    model = copy.deepcopy(llama)
    model.config.layer_types = ["full_attention", layer]
    with pytest.raises(ModelError, match=layer):
        engine_of(model)


@pytest.mark.parametrize("kind", [(MambaConfig, MambaForCausalLM), (RwkvConfig, RwkvForCausalLM)])
def test_a_recurrent_model_is_refused(kind):
    """A model without a key-value cache is refused with a reason, not with a failing forward."""
    config, model_class = kind
    model = model_class(config(vocab_size=96, hidden_size=16, num_hidden_layers=2))
    with pytest.raises(ModelError, match="attention"):
        engine_of(model)


def test_streams_differ_in_everything_they_are_made_of():
    """Seed, version, question, index and purpose each give another stream; the same, the same."""
    base = (0, 0, "q", 0, "train 1")
    others = [(1, 0, "q", 0, "train 1"), (0, 1, "q", 0, "train 1"), (0, 0, "p", 0, "train 1"),
              (0, 0, "q", 1, "train 1"), (0, 0, "q", 0, "train 2")]  # fmt: skip
    seeds = [stream_seed(*some) for some in (base, *others)]
    assert len(set(seeds)) == 6
    assert stream_seed(*base) == seeds[0]
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)
