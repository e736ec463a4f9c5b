"""The ragged batch that holds many rollouts end to end, and reductions by group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from optpo.rollout import Rollout


@dataclass(frozen=True)
class RolloutBatch:
    """Rollouts laid end to end; groups (the rollouts of one question) are of any size, also one.

    Shapes: R rollouts, G groups, T tokens (prompts and completions), C completion tokens.
    `tokens` (T,) int64; `offsets` (R + 1,) int64, where each rollout begins in `tokens`;
    `prompt_lengths` (R,) int64; `groups` (R,) int64 in 0..G-1, each of them present;
    `votes` (R,) int64, -1 unparsed; `labels` (G,) int64, the answer class a group's verdict decided
    for, -1 for none; `logps` (C,) float32 as recorded at sampling; `versions` (R,) int64; `indices`
    (R,) int64, a rollout's place in its question's sequence; `unfinished` (R,) bool, cut at its limit;
    `scores` (R,) float32, what a verifier gave, not a number where nothing did; `longest` the most
    tokens that a completion may have, 0 where nothing says.

    `question_values` (G,) and `token_values` (C,) hold by name what parts have asked for beside that
    (see `optpo.needs`).
    """

    tokens: Tensor
    offsets: Tensor
    prompt_lengths: Tensor
    groups: Tensor
    votes: Tensor
    labels: Tensor
    logps: Tensor
    versions: Tensor
    indices: Tensor
    unfinished: Tensor
    scores: Tensor
    longest: int = 0
    question_values: Mapping[str, Tensor] = field(default_factory=dict)
    token_values: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def rollouts(self) -> int:
        """Number of rollouts, R."""
        return len(self.groups)

    @property
    def group_count(self) -> int:
        """Number of groups, G."""
        return len(self.labels)

    @property
    def lengths(self) -> Tensor:
        """Completion tokens a rollout, (R,) int64."""
        return self.offsets.diff() - self.prompt_lengths

    @cached_property
    def token_rollouts(self) -> Tensor:
        """The rollout each completion token belongs to, (C,) int64."""
        return torch.repeat_interleave(torch.arange(self.rollouts), self.lengths)

    @property
    def completion_offsets(self) -> Tensor:
        """Where each rollout begins among the completion tokens, (R + 1,) int64."""
        return torch.cat([torch.zeros(1, dtype=torch.int64), self.lengths.cumsum(0)])

    @property
    def completion_tokens(self) -> Tensor:
        """The completion tokens themselves, (C,) int64."""
        return self.tokens[self.is_completion]

    @property
    def is_completion(self) -> Tensor:
        """Whether each token belongs to a completion, (T,) bool."""
        spans = self.offsets.diff()
        place = torch.arange(len(self.tokens)) - torch.repeat_interleave(self.offsets[:-1], spans)
        return place >= torch.repeat_interleave(self.prompt_lengths, spans)

    def length_limit(self, named: int) -> int:
        """The limit of length that a part's settings name, or `longest` where they name none (0).

        Raises ValueError where there is neither.
        """
        if limit := named or self.longest:
            return limit
        raise ValueError(
            "a part that goes by the limit of length has been named none, and the batch does not say "
            "how long a completion may be (RolloutBatch.longest is 0); name the limit in the part"
        )

    def select(self, keep: Tensor) -> "RolloutBatch":
        """Only the rollouts where `keep` (R,) bool is true; groups left empty disappear."""
        spans = self.offsets.diff()
        token_keep = torch.repeat_interleave(keep, spans)
        kept_tokens = torch.repeat_interleave(keep, self.lengths)
        kept_groups = torch.unique(self.groups[keep])
        renumber = torch.full((self.group_count,), -1, dtype=torch.int64)
        renumber[kept_groups] = torch.arange(len(kept_groups))
        return replace(
            self,
            tokens=self.tokens[token_keep],
            offsets=torch.cat([torch.zeros(1, dtype=torch.int64), spans[keep].cumsum(0)]),
            prompt_lengths=self.prompt_lengths[keep],
            groups=renumber[self.groups[keep]],
            votes=self.votes[keep],
            labels=self.labels[kept_groups],
            logps=self.logps[kept_tokens],
            versions=self.versions[keep],
            indices=self.indices[keep],
            unfinished=self.unfinished[keep],
            scores=self.scores[keep],
            question_values={
                name: values[kept_groups] for name, values in self.question_values.items()
            },
            token_values={name: values[kept_tokens] for name, values in self.token_values.items()},
        )


def pack(groups: Sequence[Sequence[Rollout]], labels: Sequence[int]) -> RolloutBatch:
    """Lay groups of rollouts end to end; `labels` holds the decided answer class a group, -1 none.

    Raises ValueError for an empty group, prompt or completion, or tokens or log-probs missing.
    """
    if len(groups) != len(labels):
        raise ValueError(f"{len(groups)} groups but {len(labels)} labels")
    rollouts = [rollout for group in groups for rollout in group]
    if any(len(group) == 0 for group in groups):
        raise ValueError("a group without rollouts cannot be packed")
    if any(len(rollout.tokens) == 0 for rollout in rollouts):
        raise ValueError("a rollout without tokens cannot be packed")
    if any(len(rollout.prompt_tokens) == 0 for rollout in rollouts):
        raise ValueError("a rollout without a prompt cannot be packed: nothing predicts its begin")
    spans = [len(rollout.prompt_tokens) + len(rollout.tokens) for rollout in rollouts]
    sizes = torch.tensor([len(group) for group in groups], dtype=torch.int64)
    offsets = torch.tensor([0, *spans], dtype=torch.int64).cumsum(0)
    tokens = chain.from_iterable(piece for r in rollouts for piece in (r.prompt_tokens, r.tokens))
    laid = torch.from_numpy(np.fromiter(tokens, np.int64, int(offsets[-1])))
    if len(missing := (laid < 0).nonzero()):
        without = rollouts[int(torch.searchsorted(offsets, missing[0, 0], right=True)) - 1]
        raise ValueError(
            f"rollout {without.index} of {without.prompt_id!r} has no token ids: its engine does not "
            "tell them, so it cannot be trained on"
        )
    for rollout in rollouts:
        if len(rollout.logps) != len(rollout.tokens):
            raise ValueError(
                f"rollout {rollout.index} of {rollout.prompt_id!r} has "
                f"{len(rollout.logps)} log-probs for {len(rollout.tokens)} tokens"
            )
    return RolloutBatch(
        tokens=laid,
        offsets=offsets,
        prompt_lengths=torch.tensor([len(r.prompt_tokens) for r in rollouts], dtype=torch.int64),
        groups=torch.repeat_interleave(torch.arange(len(groups)), sizes),
        votes=torch.tensor([r.vote for r in rollouts], dtype=torch.int64),
        labels=torch.tensor(list(labels), dtype=torch.int64),
        logps=torch.from_numpy(
            np.fromiter(chain.from_iterable(r.logps for r in rollouts), np.float32)
        ),
        versions=torch.tensor([r.version for r in rollouts], dtype=torch.int64),
        indices=torch.tensor([r.index for r in rollouts], dtype=torch.int64),
        unfinished=torch.tensor([r.finish == "length" for r in rollouts]),
        scores=torch.full((len(rollouts),), torch.nan),
    )


def segment_sum(values: Tensor, segments: Tensor, count: int) -> Tensor:
    """Sum of `values` (N,) over each of `count` segments, (count,)."""
    return values.new_zeros(count).index_add(0, segments, values)


def segment_mean(values: Tensor, segments: Tensor, count: int) -> Tensor:
    """Mean of `values` (N,) over each of `count` segments, (count,); 0 for an empty segment."""
    sizes = segment_sum(torch.ones_like(values), segments, count)
    return segment_sum(values, segments, count) / sizes.clamp(min=1)


def segment_std(values: Tensor, segments: Tensor, count: int, *, unbiased: bool = True) -> Tensor:
    """Standard deviation of `values` (N,) over each segment, (count,); 0 for a segment of one."""
    sizes = segment_sum(torch.ones_like(values), segments, count)
    deviation = values - segment_mean(values, segments, count)[segments]
    squares = segment_sum(deviation.square(), segments, count)
    return (squares / (sizes - int(unbiased)).clamp(min=1)).sqrt()


def segment_spread(values: Tensor, segments: Tensor, count: int) -> Tensor:
    """Largest minus smallest of `values` (N,) in each segment, (count,); 0 for an empty segment.

    Exactly 0 where all are equal, which a rounded standard deviation is not.
    """
    highest, lowest = (
        values.new_zeros(count).scatter_reduce(0, segments, values, extreme, include_self=False)
        for extreme in ("amax", "amin")
    )
    return highest - lowest
