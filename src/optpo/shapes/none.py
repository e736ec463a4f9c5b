"""Rewards as they are."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.needs import Need


@dataclass(frozen=True)
class NoShape:
    """No shaping."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """The rewards, (R,)."""
        return rewards
