"""No token is left out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from optpo.batch import RolloutBatch


@dataclass(frozen=True)
class NoMask:
    """Every completion token teaches the policy."""

    def __call__(self, batch: RolloutBatch) -> Tensor:
        """True everywhere, (C,) bool."""
        return torch.ones(len(batch.logps), dtype=torch.bool)
