"""Attention over sequences laid end to end, padded nowhere but inside the attention itself.

Linear layers see the flat tokens; for the attention the sequences are spread over rows, so that its
cost grows with the square of a sequence's length and not of the whole pack's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

NAME = "optpo_packed"


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sequence; query, key, value (1, heads, tokens, head size).

    `cu_seq_lens_q` (sequences + 1,) says where each sequence begins, as for flash attention.
    """
    if cu_seq_lens_q is None:
        raise ValueError("packed attention needs cu_seq_lens_q")
    if softcap is not None:
        raise ValueError("packed attention cannot cap its logits, as this model asks for")
    lengths = cu_seq_lens_q.diff()
    longest = int(lengths.max())
    places = torch.arange(longest, device=query.device)
    inside = places < lengths[:, None]
    source = (cu_seq_lens_q[:-1, None] + places).clamp(max=query.shape[2] - 1)
    rows_query, rows_key, rows_value = (
        states[0][:, source].transpose(0, 1) for states in (query, key, value)
    )
    # Padding at the end needs no mask: a causal query never looks ahead.
    mask = None
    if sliding_window is not None and sliding_window < longest:
        distance = places[:, None] - places
        mask = (distance >= 0) & (distance < sliding_window)
    output = scaled_dot_product_attention(
        rows_query,
        rows_key,
        rows_value,
        attn_mask=mask,
        dropout_p=dropout,
        scale=scaling,
        is_causal=mask is None,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.transpose(1, 2)[inside][None], None


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, lambda *_, **__: None)


@contextmanager
def packed(model: PreTrainedModel) -> Iterator[None]:
    """Within this context the model attends by `packed_attention`."""
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
