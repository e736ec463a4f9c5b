"""Supervised learning on the rollouts kept."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from optpo.needs import Need
from optpo.objectives.aggregate import Aggregate
from optpo.objectives.token_batch import TokenBatch


@dataclass(frozen=True)
class SupervisedObjective:
    """-log pi of every token kept, whatever its advantage: OptPO's other option (2512.02882)."""

    aggregate: Aggregate = "token-mean"

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses (C,); no metrics."""
        return -batch.logp, {}
