"""The reward of training with a verifier: what it gave."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.needs import Need


@dataclass(frozen=True)
class VerifiedReward:
    """The score that a verifier gave a rollout; not a number where none did."""

    needs: ClassVar[frozenset[Need]] = frozenset({"score"})

    def __call__(self, batch: RolloutBatch) -> Tensor:
        """Rewards (R,) float32."""
        return batch.scores
