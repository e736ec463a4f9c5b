"""Rewards as they are."""

from dataclasses import dataclass

from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.needs import Need


@dataclass(frozen=True)
class NoShape:
    """No shaping."""

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing."""
        return frozenset()

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """The rewards, (R,)."""
        return rewards
