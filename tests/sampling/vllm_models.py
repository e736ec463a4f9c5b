"""Small models that vLLM's kernels for CPUs take: their heads have 32 numbers at the least."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

LONGEST_PROMPT = 80


def wide_llama(seed, tied=False):
    """A random Llama over the tests' vocabulary of 96 tokens; tied, its head is its embeddings."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).eval()


def as_folder(model, tokenizer, folder):
    """The folder, with model and tokenizer saved in it."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
