"""The policy: a causal language model with its tokenizer, an optional critic and a version."""

import copy
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from optpo.batch import RolloutBatch
from optpo.training.distributed import ALONE, Processes, whole
from optpo.training.packed_attention import packed
from optpo.training.run_directory import replace_folder


class Scored(NamedTuple):
    """A forward pass, a row a completion token: (C,), (C,) where there is a critic, and (C, V)."""

    logps: Tensor
    values: Tensor | None
    logits: Tensor


@dataclass
class Policy:
    """`version` counts optimiser steps; `value_head` is the critic of methods that have one.

    `autocast` is the type that forwards compute in (float32: as the weights are).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    end_tokens: tuple[int, ...]
    temperature: float = 1.0
    version: int = 0
    value_head: torch.nn.Linear | None = None
    autocast: torch.dtype = torch.float32
    pass_tokens: int = 2048

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """The parameters that training moves, by name."""
        named = {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
        if self.value_head is not None:
            named |= {
                f"value_head.{name}": parameter
                for name, parameter in self.value_head.named_parameters()
            }
        return named

    def add_value_head(self) -> None:
        """A critic on the last hidden state; it begins at 0 everywhere."""
        size = self.model.config.hidden_size
        self.value_head = torch.nn.Linear(size, 1, device=self.model.device)
        torch.nn.init.zeros_(self.value_head.weight)
        torch.nn.init.zeros_(self.value_head.bias)

    def copy(self) -> "Policy":
        """A policy with these weights that stays when this one moves on, without the critic.

        Weights that training does not move are shared, not copied.
        """
        shared = {
            id(parameter): parameter
            for parameter in self.model.parameters()
            if not parameter.requires_grad
        }
        return replace(self, model=copy.deepcopy(self.model, shared), value_head=None)

    @torch.no_grad()
    def take_weights(self, other: "Policy") -> None:
        """Be as another policy, of which this one is a copy, is now."""
        if other is self:
            return
        newer = other.trainable()
        for name, parameter in self.trainable().items():
            parameter.copy_(whole(newer[name]))
        self.version = other.version

    def shard(self, processes: Processes) -> "Policy":
        """Keep only this process's part of what is trained; returns a policy that stays whole.

        Only the whole one can be sampled from; it takes the weights when it is told to. In one
        process alone it is the same one.
        """
        if processes.world == 1:
            return self
        unsharded = self.copy()
        critic = [] if self.value_head is None else [self.value_head]
        blocks = getattr(self.model, "_no_split_modules", None) or ()
        processes.shard([self.model, *critic], blocks)
        return unsharded

    def save(self, folder: Path) -> None:
        """Write model and tokenizer as a folder that transformers loads; adapters are merged in."""
        temporary = folder.with_name(f".{folder.name}.writing")
        shutil.rmtree(temporary, ignore_errors=True)
        model: Any = self.model
        if hasattr(model, "merge_and_unload"):
            model = copy.deepcopy(model).merge_and_unload()
        model.save_pretrained(temporary)
        self.tokenizer.save_pretrained(temporary)
        replace_folder(temporary, folder)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of completion tokens, without special ones."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def mixed(self) -> AbstractContextManager[object]:
        """The context that forwards run in."""
        if self.autocast == torch.float32:
            return nullcontext()
        return torch.autocast(self.model.device.type, dtype=self.autocast)

    def score(self, batch: RolloutBatch, rollouts: Tensor) -> Scored:
        """Log-probs, values and logits at these rollouts' completion tokens.

        `rollouts` (K,) int64, numbers within the batch; results are float32 on the CPU's side of
        autograd, end to end in the order of `rollouts`. Logits are over the sampling temperature.
        """
        device = self.model.device
        spans = batch.offsets.diff()[rollouts]
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), spans.cumsum(0)])
        positions = torch.arange(int(starts[-1])) - torch.repeat_interleave(starts[:-1], spans)
        tokens = batch.tokens[
            torch.repeat_interleave(batch.offsets[:-1][rollouts], spans) + positions
        ]
        is_completion = positions >= torch.repeat_interleave(batch.prompt_lengths[rollouts], spans)
        targets = is_completion.nonzero()[:, 0]
        # The packed forward reads its own causal mask from where the sequences begin.
        with packed(self.model), self.mixed():
            output = self.model(
                input_ids=tokens[None].to(device),
                position_ids=positions[None].to(device),
                cu_seq_lens_q=starts.to(device),
                use_cache=False,
                output_hidden_states=self.value_head is not None,
                logits_to_keep=(targets - 1).to(device),
            )
        logits = output.logits[0].float()
        if self.temperature > 0:
            logits = logits / self.temperature
        chosen = logits.gather(-1, tokens[targets, None].to(device))[:, 0]
        logps = chosen - logits.logsumexp(-1)
        if self.value_head is None:
            return Scored(logps, None, logits)
        hidden = output.hidden_states[-1][0, (targets - 1).to(device)].float()
        return Scored(logps, self.value_head(hidden)[:, 0], logits)

    @torch.no_grad()
    def score_all(
        self, batch: RolloutBatch, processes: Processes = ALONE
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probs and values of the whole batch, (C,) each in the batch's order, on the CPU.

        Several processes that have the same batch do their share each.
        """
        offsets = batch.completion_offsets
        logps = torch.zeros(int(offsets[-1]))
        values = torch.zeros(int(offsets[-1])) if self.value_head is not None else None
        passes = list(self.passes(batch, torch.arange(batch.rollouts)))
        for rollouts, counts in processes.equal_share(passes):
            piece, piece_values, _ = self.score(batch, rollouts)
            if not counts:
                continue
            places = completion_places(batch, rollouts)
            logps[places] = piece.cpu()
            if values is not None and piece_values is not None:
                values[places] = piece_values.cpu()
        for scores in (logps, values):
            if scores is not None:
                processes.sum(scores)
        return logps, values

    @torch.no_grad()
    def entropies(self, batch: RolloutBatch, processes: Processes = ALONE) -> Tensor:
        """Entropy (nats) of what each completion token was drawn from, (C,) on the CPU."""
        entropies = torch.zeros(int(batch.lengths.sum()))
        passes = list(self.passes(batch, torch.arange(batch.rollouts)))
        for rollouts, counts in processes.equal_share(passes):
            logps = self.score(batch, rollouts).logits.log_softmax(-1)
            if counts:
                piece = -(logps.exp() * logps).sum(-1)
                entropies[completion_places(batch, rollouts)] = piece.cpu()
        processes.sum(entropies)
        return entropies

    @torch.no_grad()
    def heads(
        self, batch: RolloutBatch, count: int, processes: Processes = ALONE
    ) -> tuple[Tensor, Tensor]:
        """The likeliest tokens at each completion token and their log-probs, (C, count) on the CPU.

        Fewer where the vocabulary has fewer.
        """
        size = int(batch.lengths.sum())
        count = min(count, self.model.config.get_text_config().vocab_size)
        tokens, logps = torch.zeros(size, count, dtype=torch.int64), torch.zeros(size, count)
        passes = list(self.passes(batch, torch.arange(batch.rollouts)))
        for rollouts, counts in processes.equal_share(passes):
            likeliest = self.score(batch, rollouts).logits.log_softmax(-1).topk(count, dim=-1)
            if counts:
                places = completion_places(batch, rollouts)
                tokens[places], logps[places] = likeliest.indices.cpu(), likeliest.values.cpu()
        processes.sum(tokens)
        processes.sum(logps)
        return tokens, logps

    def passes(self, batch: RolloutBatch, rollouts: Tensor) -> Iterator[Tensor]:
        """Cut rollouts into forward passes of at most `pass_tokens` tokens (or one rollout).

        Rollouts of like length go together: that keeps the attention's own padding small.
        """
        spans = batch.offsets.diff()[rollouts]
        order = rollouts[torch.argsort(spans, stable=True)]
        ends = batch.offsets.diff()[order].cumsum(0)
        first, used = 0, 0
        while first < len(order):
            fits = int(torch.searchsorted(ends, used + self.pass_tokens, right=True))
            last = max(fits, first + 1)
            yield order[first:last]
            used, first = int(ends[last - 1]), last


def completion_places(batch: RolloutBatch, rollouts: Tensor) -> Tensor:
    """Where the completion tokens of these rollouts lie among the batch's, end to end, int64."""
    offsets, lengths = batch.completion_offsets, batch.lengths[rollouts]
    within = torch.arange(int(lengths.sum())) - torch.repeat_interleave(
        lengths.cumsum(0) - lengths, lengths
    )
    return torch.repeat_interleave(offsets[:-1][rollouts], lengths) + within
