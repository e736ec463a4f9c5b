"""The reward of test-time training: did a rollout vote with the consensus?"""

from dataclasses import dataclass

import torch
from torch import Tensor

from optpo.batch import RolloutBatch


@dataclass(frozen=True)
class MajorityReward:
    """1 for a rollout whose answer is its question's decided label, else 0 (TTRL, 2504.16084).

    The rollouts of a question without a decided label have no reward: not a number. Unparsed
    answers of a decided question get 0.
    """

    def __call__(self, batch: RolloutBatch) -> Tensor:
        """Rewards (R,) float32."""
        labels = batch.labels[batch.groups]
        agrees = (batch.votes == labels).float()
        return torch.where(labels >= 0, agrees, torch.nan)
