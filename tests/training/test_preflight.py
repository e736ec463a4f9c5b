"""Models that can be trained packed, and those that cannot."""

import pytest
import torch
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
)

from optpo.errors import ModelError
from optpo.training.policy import Policy
from optpo.training.preflight import check_training

SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
PROMPTS = [(3, 4, 5, 6), (7, 8), (9,)]


def test_a_packable_model_passes() -> None:
    """Llama attends through the interface, packed as plain; a prompt of one token is passed over."""
    policy = Policy(LlamaForCausalLM(LlamaConfig(**SMALL)).eval(), None, (2,))
    weights = {name: value.clone() for name, value in policy.model.state_dict().items()}
    check_training(policy, PROMPTS)
    check_training(policy, [(9,)])
    left = policy.model.state_dict()
    assert all(torch.equal(value, left[name]) for name, value in weights.items())
    assert all(parameter.grad is None for parameter in policy.model.parameters())


@pytest.mark.parametrize(
    ("model", "config"),
    [(StableLmForCausalLM, StableLmConfig), (FalconForCausalLM, FalconConfig)],
)
def test_a_model_that_cannot_be_packed_is_refused(model, config) -> None:
    """One that attends in a way of its own is refused before anything is sampled."""
    policy = Policy(model(config(**SMALL)).eval(), None, (2,))
    with pytest.raises(ModelError, match="optpo vote"):
        check_training(policy, PROMPTS)


def test_other_numbers_are_refused(monkeypatch) -> None:
    """A packed forward that gives other log-probs is refused."""
    policy = Policy(LlamaForCausalLM(LlamaConfig(**SMALL)).eval(), None, (2,))
    true = policy.score_all
    monkeypatch.setattr(policy, "score_all", lambda batch: (true(batch)[0] + 0.1, None))
    with pytest.raises(ModelError, match="other log-probs"):
        check_training(policy, PROMPTS)
