"""DRPO's weights: length counts among the right rollouts only."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, segment_sum
from optpo.errors import SettingsError
from optpo.needs import Need


@dataclass(frozen=True)
class DecoupledAdvantage:
    """Positive weights for the right rollouts of a question, -1 / n_wrong for its wrong ones.

    DRPO (2510.04474): omega = softmax over the right ones of (1 - length / context) / temperature,
    so shorter ones weigh more and none is ever pushed away; they sum to 1. Right is a reward above
    0. A question all right or all wrong gets 0. At infinite `temperature` it is Dr.GRPO over p (1 - p),
    p the share that is right. A `context` of 0 is the most tokens that a completion may have (8192 in
    the paper). The objective that belongs to it reads the wrong ones' sign alone.
    """

    context: int = 0
    temperature: float = 0.1

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        problems = []
        if self.context < 0:
            problems.append(
                f"context is {self.context}; it must be 0 (the longest completion) or more"
            )
        if not self.temperature > 0:
            problems.append(f"temperature is {self.temperature}; it must be above 0")
        if problems:
            raise SettingsError(problems)

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> tuple[Tensor, None]:
        """Weights a completion token, (C,) in the dtype of `rewards`; there are no returns."""
        return self.of_rollouts(batch, rewards)[batch.token_rollouts], None

    def of_rollouts(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Weights a rollout, (R,) in the dtype of `rewards`.

        Raises ValueError where neither `context` nor the batch says how long a completion may be.
        """
        groups, count, right = batch.groups, batch.group_count, rewards > 0
        context = batch.length_limit(self.context)
        scores = (1 - batch.lengths.to(rewards.dtype) / context) / self.temperature
        scores = torch.where(right, scores, -torch.inf)
        highest = scores.new_full((count,), -torch.inf).scatter_reduce(0, groups, scores, "amax")
        raised = torch.where(right, (scores - highest[groups]).exp(), 0)
        weights = raised / segment_sum(raised, groups, count)[groups]
        wrong = segment_sum((~right).to(rewards.dtype), groups, count)[groups]
        mixed = (wrong > 0) & highest.isfinite()[groups]
        return torch.where(mixed, torch.where(right, weights, -1 / wrong), 0)
