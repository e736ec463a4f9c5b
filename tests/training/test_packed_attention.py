"""Scoring sequences laid end to end equals scoring each alone, with its gradients."""

import copy
from itertools import pairwise

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from optpo.training.packed_attention import packed
from optpo.training.policy import Policy, completion_places

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
KINDS = ["llama", "qwen2", "mistral", "gemma3", "gpt2"]


@pytest.fixture(scope="module")
def models(llama):
    torch.manual_seed(2)
    layers = ["sliding_attention", "full_attention"]
    gpt2 = GPT2Config(
        vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3
    )
    return {
        "llama": llama,
        "qwen2": Qwen2ForCausalLM(Qwen2Config(**TINY)).eval(),
        "mistral": MistralForCausalLM(MistralConfig(**TINY, sliding_window=5)).eval(),
        "gemma3": Gemma3ForCausalLM(
            Gemma3TextConfig(**TINY, head_dim=8, sliding_window=5, layer_types=layers)
        ).eval(),
        "gpt2": GPT2LMHeadModel(gpt2).eval(),
    }


def scores_alone(policy, batch):
    """Log-probs, and values where there is a critic, by one plain forward a rollout."""
    logps, values = [], []
    for number in range(batch.rollouts):
        tokens = batch.tokens[batch.offsets[number] : batch.offsets[number + 1]]
        prompt = int(batch.prompt_lengths[number])
        output = policy.model(tokens[None], output_hidden_states=True)
        logits = output.logits[0, prompt - 1 : -1] / policy.temperature
        logps.append(logits.log_softmax(-1).gather(-1, tokens[prompt:, None])[:, 0])
        if policy.value_head is not None:
            hidden = output.hidden_states[-1][0, prompt - 1 : -1]
            values.append(policy.value_head(hidden)[:, 0])
    return torch.cat(logps), torch.cat(values) if values else None


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_one_forward_a_rollout(models, tokenizer, ragged_batch, kind):
    """Packed log-probs are those of a plain forward within 1e-5: grouped-query attention, sliding
    windows shorter than the sequences, learned positions; at the sampling temperature."""
    policy = Policy(models[kind], tokenizer, (2,), temperature=0.7, pass_tokens=60)
    with torch.no_grad():
        expected, _ = scores_alone(policy, ragged_batch)
    found, values = policy.score_all(ragged_batch)
    assert values is None
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_one_forward_a_rollout(models, tokenizer, ragged_batch, kind):
    """Every parameter's gradient through the packed forward is the plain forwards' sum."""
    weights = torch.linspace(-1, 1, int(ragged_batch.lengths.sum()))
    gradients = []
    for packed_together in (True, False):
        policy = Policy(copy.deepcopy(models[kind]), tokenizer, (2,))
        if packed_together:
            logps, *_ = policy.score(ragged_batch, torch.arange(ragged_batch.rollouts))
        else:
            logps, _ = scores_alone(policy, ragged_batch)
        (logps * weights).sum().backward()
        gradients.append({name: value.grad for name, value in policy.trainable().items()})
    for name, expected in gradients[1].items():
        scale = float(expected.abs().max())
        assert scale > 0, name
        assert torch.allclose(gradients[0][name], expected, atol=1e-5 * max(scale, 1)), name


@pytest.mark.parametrize("pass_tokens", [1, 17, 10_000])
def test_scores_do_not_depend_on_the_passes(policy, ragged_batch, pass_tokens):
    """However the batch is cut into passes, log-probs and values agree within 1e-5."""
    policy.add_value_head()
    torch.nn.init.normal_(policy.value_head.weight, std=0.2)
    with torch.no_grad():
        expected, expected_values = scores_alone(policy, ragged_batch)
    policy.pass_tokens = pass_tokens
    logps, values = policy.score_all(ragged_batch)
    assert torch.allclose(logps, expected, atol=1e-5)
    assert torch.allclose(values, expected_values, atol=1e-5)
    assert values.abs().max() > 0.1


@pytest.mark.parametrize("pass_tokens", [1, 17, 25, 40, 10_000])
def test_passes_cover_the_rollouts_once(policy, ragged_batch, pass_tokens):
    """Each rollout is in one pass; a pass is within its bound unless one rollout alone is not, and
    no pass leaves out a rollout that would fit."""
    policy.pass_tokens = pass_tokens
    asked = torch.tensor([9, 0, 4, 3, 7, 10, 1, 2, 8])
    passes = list(policy.passes(ragged_batch, asked))
    assert sorted(torch.cat(passes).tolist()) == sorted(asked.tolist())
    spans = ragged_batch.offsets.diff()
    for one in passes:
        assert len(one) == 1 or int(spans[one].sum()) <= pass_tokens
    for one, following in pairwise(passes):
        assert int(spans[one].sum()) + int(spans[following[0]]) > pass_tokens


def test_places_are_those_of_the_tokens(ragged_batch):
    """The places of some rollouts' completion tokens, in the order asked for."""
    offsets = ragged_batch.completion_offsets.tolist()
    expected = [place for n in (5, 0, 8) for place in range(offsets[n], offsets[n + 1])]
    assert completion_places(ragged_batch, torch.tensor([5, 0, 8])).tolist() == expected


def test_the_models_own_attention_comes_back(llama, policy, ragged_batch):
    """After scoring, and after an error inside, the model attends as before: sampling goes on."""
    before = policy.model.config._attn_implementation
    policy.score_all(ragged_batch)
    assert policy.model.config._attn_implementation == before
    with pytest.raises(ValueError, match="cu_seq_lens_q"), packed(policy.model):
        policy.model(torch.tensor([[8, 9]]))
    assert policy.model.config._attn_implementation == before
    tokens = torch.tensor([[8, 9, 10]])
    assert policy.model(tokens).logits.equal(llama(tokens).logits)


def test_capped_attention_is_refused(tokenizer, ragged_batch):
    """A model whose attention logits are capped is not scored wrongly in silence."""
    model = Gemma2ForCausalLM(Gemma2Config(**TINY, head_dim=8)).eval()
    with pytest.raises(ValueError, match="cap"):
        Policy(model, tokenizer, (2,)).score_all(ragged_batch)
