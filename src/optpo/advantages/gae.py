"""Generalised advantage estimation over the tokens of each rollout."""

from dataclasses import dataclass

import torch
from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.errors import SettingsError


@dataclass(frozen=True)
class GaeAdvantage:
    """GAE (1506.02438) with the reward on a rollout's last token, as PPO uses it (1707.06347).

    `whiten` brings the advantages of the batch to mean 0 and (unbiased) deviation 1.
    """

    gamma: float = 1.0
    lam: float = 0.95
    whiten: bool = True

    def __post_init__(self) -> None:
        ranges = {"gamma": self.gamma, "lam": self.lam}
        if problems := [
            f"{name} is {value}; it must lie between 0 and 1"
            for name, value in ranges.items()
            if not 0 <= value <= 1
        ]:
            raise SettingsError(problems)

    @property
    def needs_critic(self) -> bool:
        """Always."""
        return True

    def __call__(
        self, batch: RolloutBatch, rewards: Tensor, values: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Advantages and returns a completion token, (C,) each; `values` (C,) of the old critic.

        Raises ValueError without values.
        """
        if values is None:
            raise ValueError("generalised advantage estimation needs the values of a critic")
        last = batch.completion_offsets[1:] - 1
        is_last = torch.zeros(len(values), dtype=torch.bool).index_fill(0, last, value=True)
        next_values = torch.where(is_last, 0, values.roll(-1))
        deltas = self.gamma * next_values - values
        deltas = deltas.index_add(0, last, rewards.to(deltas.dtype))
        advantages = discounted_sum(deltas, batch.token_rollouts, self.gamma * self.lam)
        returns = advantages + values
        if self.whiten and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        return advantages, returns


def discounted_sum(values: Tensor, segments: Tensor, discount: float) -> Tensor:
    """Sum of discount^k times the k-th next value of the same segment, (N,); segments are sorted.

    A scan by doubling: after round j every entry holds its next 2^j terms.
    """
    total, reach, factor = values, 1, discount
    while reach < len(values) and bool((segments[reach:] == segments[:-reach]).any()):
        same = segments[reach:] == segments[:-reach]
        ahead = torch.where(same, total[reach:], 0)
        total = total + factor * torch.cat([ahead, ahead.new_zeros(reach)])
        reach, factor = 2 * reach, factor * factor
    return total
