"""The reward of test-time training: did a rollout vote with the consensus?"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.errors import SettingsError
from optpo.needs import Need


@dataclass(frozen=True)
class MajorityReward:
    """1 for a rollout whose answer is its question's decided label, else 0 (TTRL, 2504.16084).

    The rollouts of a question without a decided label have no reward: not a number.

    `minority_penalty` is taken from every other rollout of a decided question (TTPO, 2608.27448, by
    a third party's account). Whether it helps depends on the model: the same account measured
    minority answers wrong in .79 of cases on one and the opposite on another. Unparsed answers pay
    it too, or giving none would be worth more than dissent.

    Raises SettingsError for a penalty below 0.
    """

    minority_penalty: float = 0.0

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        if not 0 <= self.minority_penalty < float("inf"):
            raise SettingsError(
                [f"minority_penalty is {self.minority_penalty}; it must be 0 or more"]
            )

    def __call__(self, batch: RolloutBatch) -> Tensor:
        """Rewards (R,) float32."""
        labels = batch.labels[batch.groups]
        agrees = torch.where(batch.votes == labels, 1.0, -self.minority_penalty)
        return torch.where(labels >= 0, agrees, torch.nan)
