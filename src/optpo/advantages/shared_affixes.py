"""GTPO: what right and wrong answers begin or end with in common is not punished."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from optpo.advantages.centred import CentredAdvantage
from optpo.batch import RolloutBatch, segment_mean
from optpo.errors import SettingsError
from optpo.memory.entropies import FIRST
from optpo.needs import Need


@dataclass(frozen=True)
class SharedAffixAdvantage:
    """GTPO's advantage (2508.03772): d (A - entropy_penalty <H>) times a weight a token.

    A is (reward - mean) / deviation in the question's group, or without the deviation (`scale`
    none); <H> is the mean entropy (nats) of the rollout's tokens. A rollout with <H> above
    `entropy_limit` counts for nothing (d = 0), if the policy's mean entropy before training was below
    it (`filter` low-start, the paper) or in any case (always, its code). Before training is the first
    step; in that step itself the mean is over its rollouts that were kept.

    A token shared with an answer of the other sign (see `shared_tokens`) weighs 0 in a
    negative answer and `positive_weight` in a positive one; all others weigh 1. One that is shared
    from both ends weighs that once (paper) or has it `multiplied` with itself (code). The published
    code also divides the loss by a count of shared tokens that is too low; here nothing does.
    """

    scale: Literal["std", "population-std", "none"] = "std"
    epsilon: float = 1e-6
    positive_weight: float = 2.0
    both_ends: Literal["once", "multiplied"] = "once"
    entropy_penalty: float = 0.1
    entropy_limit: float = math.log(2)
    filter: Literal["low-start", "always"] = "low-start"

    def __post_init__(self) -> None:
        least = {
            "positive_weight": self.positive_weight,
            "entropy_penalty": self.entropy_penalty,
            "entropy_limit": self.entropy_limit,
        }
        problems = [
            f"{name} is {value}; it must be 0 or more" for name, value in least.items() if value < 0
        ]
        if self.epsilon <= 0:
            problems.append(f"epsilon is {self.epsilon}; it must be above 0")
        if problems:
            raise SettingsError(problems)

    @property
    def needs(self) -> frozenset[Need]:
        """Entropies; where the filter goes by the first ones, a memory of them."""
        needs: frozenset[Need] = frozenset({"entropy", "entropies"})
        return needs if self.filter == "low-start" else needs - {"entropies"}

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> tuple[Tensor, None]:
        """Advantages a completion token, (C,) in the dtype of `rewards`; there are no returns."""
        signs = CentredAdvantage(scale="none").of_rollouts(batch, rewards).sign()
        weights = self.token_weights(batch, signs).to(rewards.dtype)
        return self.of_rollouts(batch, rewards)[batch.token_rollouts] * weights, None

    def of_rollouts(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Advantages a rollout before the weights of its tokens, (R,)."""
        centred = CentredAdvantage(scale=self.scale, epsilon=self.epsilon)
        entropies = segment_mean(
            batch.token_values["entropy"].to(rewards.dtype), batch.token_rollouts, batch.rollouts
        )
        penalised = centred.of_rollouts(batch, rewards) - self.entropy_penalty * entropies
        if not self._filters(batch):
            return penalised
        return torch.where(entropies > self.entropy_limit, 0, penalised)

    def _filters(self, batch: RolloutBatch) -> bool:
        if self.filter == "always":
            return True
        first = batch.question_values.get(FIRST, batch.token_values["entropy"].mean()[None])
        return bool(first[0] < self.entropy_limit)

    def token_weights(self, batch: RolloutBatch, signs: Tensor) -> Tensor:
        """Weights (C,) float32 where `signs` (R,) says which answers are positive or negative."""
        from_begin, from_end = shared_tokens(batch, signs)
        own = signs[batch.token_rollouts]
        at_ends = from_begin.int() + from_end.int()
        if self.both_ends == "once":
            at_ends = at_ends.clamp(max=1)
        weights = torch.where(own > 0, self.positive_weight ** at_ends.float(), 1)
        return torch.where((own < 0) & (at_ends > 0), 0, weights)


def shared_tokens(batch: RolloutBatch, signs: Tensor) -> tuple[Tensor, Tensor]:
    """Completion tokens in a run from the begin, and from the end, that both signs share, (C,) bool.

    A token is shared if a positive and a negative answer of its group (`signs` (R,) above and below
    0) have it at that position, counted from the begin or from the end; which answers may differ from
    one position to the next. It belongs to the run if all tokens between it and that end are shared.
    """
    rollouts, begins = batch.token_rollouts, batch.completion_offsets[:-1]
    places = torch.arange(len(rollouts))
    forward = places - begins[rollouts]
    backward = batch.lengths[rollouts] - 1 - forward
    tokens, own = batch.completion_tokens, signs[rollouts]

    def in_run(positions: Tensor, order: Tensor) -> Tensor:
        keys = batch.groups[rollouts] * (positions.max() + 1) + positions
        unique, held = torch.unique(keys * (tokens.max() + 1) + tokens, return_inverse=True)
        by_sign = torch.zeros(2, len(unique), dtype=torch.bool)
        by_sign[0, held[own > 0]] = True
        by_sign[1, held[own < 0]] = True
        broken = (~by_sign.all(0)[held])[order].long().cumsum(0)
        before = torch.cat([torch.zeros(1, dtype=torch.int64), broken])[begins]
        # Reading a rollout backwards keeps it where it is, and twice is not at all.
        return (broken == before[rollouts])[order]

    return in_run(forward, places), in_run(backward, begins[rollouts] + backward)
