"""Attention of one new token a row over keys and values in pages.

Each page is attended to by itself, as one of a batch of products; the pages of a row are put
together afterwards. What is read is what the rows hold: no row is padded to the longest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

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
    **rest: Any,
) -> tuple[Tensor, None]:
    """Softmax attention, `query` (rows, heads, 1, size), `key`, `value` (pages, heads, PAGE, size).

    Heads of the query are a multiple of those of the keys. Returns (rows, 1, heads, size). Without
    a `step`, as in a prompt's forward, this is transformers' own attention.
    """
    if step is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **rest
        )
        return output, None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if key.dtype == torch.float32 and not torch.is_autocast_enabled(query.device.type):
        return _attend(query, key, value, scale, step, sliding_window), None
    # Scores rounded to half precision would be worse than what other attentions compute.
    with torch.autocast(query.device.type, enabled=False):
        exact = _attend(query.float(), key.float(), value.float(), scale, step, sliding_window)
    return exact.to(query.dtype), None


def _attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float, step: Step, window: int | None
) -> Tensor:
    rows, heads, size = query.shape[0], query.shape[1], query.shape[3]
    pages, shared, columns = key.shape[:3]
    bias, owner = step.bias(window, shared), step.owner
    by_page = query.reshape(rows, shared, heads // shared, size)[owner].flatten(0, 1)
    scores = torch.baddbmm(bias, by_page, key.flatten(0, 1).transpose(1, 2), alpha=scale)
    scores = scores.view(pages, heads, columns)
    # Softmax over a row's pages: relative to the highest score of them all.
    best = scores.amax(-1)
    highest = best.new_full((rows, heads), -torch.inf)
    highest.scatter_reduce_(0, owner[:, None].expand_as(best), best, "amax")
    weights = scores.sub_(highest[owner][:, :, None]).exp_()
    total = step.sum_by_row(weights.sum(-1))
    parts = torch.bmm(weights.view(pages * shared, -1, columns), value.flatten(0, 1))
    output = step.sum_by_row(parts.view(pages, heads, -1))
    return output.div_(total[:, :, None])[:, None]


AttentionInterface.register(NAME, paged_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


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
