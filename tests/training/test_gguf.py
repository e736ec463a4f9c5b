"""A GGUF file is read, and what was adapted from it is saved as a folder that transformers loads."""

from pathlib import Path

import gguf
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from optpo.training.loading import load_policy
from optpo.training.settings import LoraSettings, ModelSettings

WORDS = ["<unk>", "<s>", "</s>", *"abcdefghijkl", "ab"]
WHOLE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A one-layer Llama with a byte-level tokenizer, as llama.cpp stores them."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    weights = LlamaForCausalLM(config).state_dict()
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(16)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([2, 3, 3, *[1] * (len(WORDS) - 3)])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(2)
    for name, short in WHOLE.items():
        writer.add_tensor(f"{short}.weight", weights[f"{name}.weight"].numpy())
    for name, short in LAYER.items():
        tensor = weights[f"model.layers.0.{name}.weight"].numpy()
        writer.add_tensor(f"blk.0.{short}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("rank", [0, 4])
def test_what_is_read_from_gguf_can_be_saved(file: Path, tmp_path: Path, rank: int) -> None:
    """The saved folder gives the same logits, whether all weights were trained or adapters."""
    policy = load_policy(ModelSettings(name=str(file), lora=LoraSettings(rank=rank)), 1.0)
    assert policy.end_tokens == (2,)
    policy.save(tmp_path / "final")
    again = load_policy(ModelSettings(name=str(tmp_path / "final")), 1.0)
    tokens = torch.tensor([policy.tokenizer("abc")["input_ids"]])
    with torch.no_grad():
        expected, actual = policy.model(tokens).logits, again.model(tokens).logits
    assert torch.equal(expected, actual)
