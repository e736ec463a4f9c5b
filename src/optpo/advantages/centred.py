"""Advantages relative to the other rollouts of the same question."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, segment_mean, segment_std, segment_sum
from optpo.errors import SettingsError


@dataclass(frozen=True)
class CentredAdvantage:
    """(reward - centre) / scale over a question's rollouts, the same for all tokens of a rollout.

    `centre` mean with `scale` std is GRPO (2402.03300, unbiased deviation plus `epsilon`, as in
    verl and TRL); scale none is Dr.GRPO (2503.20783); centre leave-one-out with scale none is
    RLOO (2402.14740). A group of one has no peers: its advantage is 0.
    """

    centre: Literal["mean", "leave-one-out"] = "mean"
    scale: Literal["std", "none"] = "std"
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if self.epsilon <= 0:
            raise SettingsError([f"epsilon is {self.epsilon}; it must be above 0"])

    @property
    def needs_critic(self) -> bool:
        """Never."""
        return False

    def __call__(
        self, batch: RolloutBatch, rewards: Tensor, values: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Advantages a completion token, (C,) in the dtype of `rewards`; there are no returns."""
        return self.of_rollouts(batch, rewards)[batch.token_rollouts], None

    def of_rollouts(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Advantages a rollout, (R,) in the dtype of `rewards`."""
        groups, count = batch.groups, batch.group_count
        advantages = rewards - segment_mean(rewards, groups, count)[groups]
        if self.centre == "leave-one-out":
            sizes = segment_sum(torch.ones_like(rewards), groups, count)[groups]
            advantages = advantages * sizes / (sizes - 1).clamp(min=1)
        if self.scale == "std":
            advantages = advantages / (segment_std(rewards, groups, count)[groups] + self.epsilon)
        return advantages
