"""Small models and rollouts that many tests share; nothing here needs a network."""

import copy
import random

import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from optpo.batch import pack
from optpo.rollout import Rollout
from optpo.training.policy import Policy

torch.set_num_threads(1)
# The shared machine is slow at times: a deadline an example would make tests assert a time.
settings.register_profile(
    "optpo", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
# For a quick look (`make test-fast`): fewer examples of each property.
settings.register_profile("fast", settings.get_profile("optpo"), max_examples=20)
settings.load_profile("optpo")

VOCABULARY = 96
END_TOKENS = (2, 3, 4, 5, 6, 7)


@pytest.fixture(scope="session")
def llama():
    """A random Llama with grouped-query attention; tests must not change it."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def tokenizer():
    """One word a token: "<pad>", "<s>", "</s>", then "w3", "w4", ..."""
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{n}": n for n in range(3, VOCABULARY)}
    words["w95"], words["<unk>"] = VOCABULARY, 95
    del words["w95"]
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


@pytest.fixture
def policy(llama, tokenizer):
    """A policy whose weights a test may change."""
    return Policy(copy.deepcopy(llama), tokenizer, END_TOKENS)


@pytest.fixture
def ragged_batch():
    """Four groups of 3, 1, 5 and 2 rollouts of differing lengths; labels 0, -1, 1, 0."""
    draw = random.Random(5)
    groups = []
    for group, size in enumerate((3, 1, 5, 2)):
        prompt = tuple(draw.randrange(8, VOCABULARY) for _ in range(2 + 2 * group))
        groups.append(
            [make_rollout(prompt, draw, group, index) for index in range(size)],
        )
    return pack(groups, [0, -1, 1, 0])


def make_rollout(prompt, draw, group, index):
    length = draw.randrange(1, 12)
    return Rollout(
        prompt_id=f"q{group}",
        index=index,
        version=0,
        prompt_tokens=prompt,
        tokens=tuple(draw.randrange(VOCABULARY) for _ in range(length)),
        logps=tuple(-5 * draw.random() for _ in range(length)),
        finish="stop",
        vote=draw.randrange(-1, 2),
    )
