"""Prompts computed once, however many rollouts begin with them."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from optpo.sampling.page_cache import PromptPages, in_pages

KEPT_TOKENS = 16384
COMPUTED_PROMPTS = 32
PASS_TOKENS = 4096

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class ComputedPrompt:
    """A prompt's keys and values, and its next-token logits (vocabulary,)."""

    pages: PromptPages
    logits: Tensor


class PromptCache:
    """Computed prompts; those unused for longest are dropped beyond `KEPT_TOKENS`.

    `computed_tokens` counts what was computed, without padding.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._prompts: OrderedDict[Tokens, ComputedPrompt] = OrderedDict()
        self.computed_tokens = 0

    def get(self, prompt: Tokens) -> ComputedPrompt | None:
        """The prompt where it has been computed."""
        return self._prompts.get(prompt)

    def clear(self) -> None:
        """Forget everything: the weights have changed."""
        self._prompts.clear()

    def compute(self, needed: Sequence[Tokens]) -> None:
        """Compute the first `COMPUTED_PROMPTS` of these that are missing; drop none of these."""
        wanted = dict.fromkeys(needed)
        missing = [prompt for prompt in wanted if prompt not in self._prompts]
        for prompt in wanted.keys() & self._prompts.keys():
            self._prompts.move_to_end(prompt)
        for prompts in of_like_length(missing[:COMPUTED_PROMPTS]):
            self._forward(prompts)
        kept = sum(map(len, self._prompts))
        for prompt in list(self._prompts):
            if kept <= KEPT_TOKENS or prompt in wanted:
                break
            kept -= len(prompt)
            del self._prompts[prompt]

    def _forward(self, prompts: Sequence[Tokens]) -> None:
        longest = max(map(len, prompts))
        padded = np.zeros((2, len(prompts), longest), dtype=np.int64)
        for place, prompt in enumerate(prompts):
            padded[0, place, longest - len(prompt) :] = prompt
            padded[1, place, longest - len(prompt) :] = 1
        tokens, mask = torch.from_numpy(padded).to(self._model.device)
        cache = DynamicCache()
        output = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        for place, prompt in enumerate(prompts):
            layers = [_own_columns(layer, place, len(prompt)) for layer in cache.layers]
            self._prompts[prompt] = ComputedPrompt(
                PromptPages(len(prompt), layers), output.logits[place, -1].clone()
            )
        self.computed_tokens += sum(map(len, prompts))


def of_like_length(prompts: Sequence[Tokens]) -> Iterator[list[Tokens]]:
    """Cut prompts into forward passes of `PASS_TOKENS` with padding, little of which is padding."""
    together: list[Tokens] = []
    for prompt in sorted(prompts, key=len):
        if together:
            shortest = len(together[0])
            # A few tokens of padding cost less than another pass.
            alike = len(prompt) <= shortest + max(8, shortest // 4)
            if not alike or len(prompt) * (len(together) + 1) > PASS_TOKENS:
                yield together
                together = []
        together.append(prompt)
    if together:
        yield together


def _own_columns(layer: object, row: int, length: int) -> tuple[Tensor, Tensor]:
    """Keys and values of a left-padded row without its padding, in pages."""
    assert isinstance(layer, DynamicLayer)
    assert layer.keys is not None and layer.values is not None
    keys, values = (in_pages(states[row, :, -length:]) for states in (layer.keys, layer.values))
    return keys, values
