"""Attention of one new token a row over keys and values in pages.

Each page is attended to by itself, as one row of a batched product; the pages of a row are put
together afterwards. What is read is what the rows hold: no row is padded to the longest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from optpo.sampling.page_cache import Step

NAME = "optpo_paged"


def paged_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    step: Step | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Softmax attention; `query` (rows, heads, 1, size), `key`, `value` (pages, heads, PAGE, size).

    Heads of the query are a multiple of those of the keys. Returns (rows, 1, heads, size).
    """
    if step is None:
        raise ValueError("paged attention needs the step of its page cache")
    rows, heads, size = query.shape[0], query.shape[1], query.shape[3]
    shared, owner = key.shape[1], step.owner
    scaled = query * (size**-0.5 if scaling is None else scaling)
    by_page = scaled.reshape(rows, shared, heads // shared, size)[owner]
    scores = torch.matmul(by_page, key.transpose(2, 3)).float() + step.bias(sliding_window)
    # Softmax over a row's pages: relative to the highest score of them all.
    best = scores.amax(-1)
    highest = best.new_full((rows, *best.shape[1:]), -torch.inf)
    highest.scatter_reduce_(0, owner[:, None, None].expand_as(best), best, "amax")
    weights = (scores - highest[owner][..., None]).exp_()
    total = _sum_by_row(weights.sum(-1), owner, rows)
    parts = torch.matmul(weights.to(value.dtype), value)
    output = _sum_by_row(parts.float(), owner, rows) / total[..., None]
    return output.to(query.dtype).view(rows, 1, heads, value.shape[-1]), None


def _sum_by_row(parts: Tensor, owner: Tensor, rows: int) -> Tensor:
    if not parts.is_cuda:
        return parts.new_zeros(rows, *parts.shape[1:]).index_add_(0, owner, parts)
    # There index_add_ adds in no fixed order, and the last bits of a log-prob would vary.
    member = (torch.arange(rows, device=owner.device)[:, None] == owner).to(parts.dtype)
    return (member @ parts.flatten(1)).view(rows, *parts.shape[1:])


AttentionInterface.register(NAME, paged_attention)


@contextmanager
def paged(model: PreTrainedModel) -> Iterator[None]:
    """Within this context the model attends by `paged_attention`."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def can_attend_by_page(model: PreTrainedModel) -> bool:
    """Whether the model's own attention is a plain softmax behind transformers' interface."""
    plain = model.config.get_text_config()._attn_implementation == "sdpa"
    return plain and bool(model._supports_attention_backend)
