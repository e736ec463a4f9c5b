"""A run that remembers nothing of its rewards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.memory.protocol import Notes
from optpo.needs import Need


@dataclass(frozen=True)
class NoMemory:
    """Every visit of a question is like the first."""

    gives: ClassVar[frozenset[Need]] = frozenset()
    initial_rollouts: ClassVar[int] = 0
    forgets: ClassVar[bool] = False

    def begin(self, rewards: Sequence[float]) -> dict[str, float]:
        """No notes."""
        return {}

    def recall(self, past: Sequence[Notes], run: Notes) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def remember(
        self,
        past: Sequence[Notes],
        run: Notes,
        batch: RolloutBatch,
        rewards: Tensor,
        drifts: Sequence[float | None],
    ) -> tuple[list[dict[str, float]], dict[str, float]]:
        """No notes."""
        return [{} for _ in past], {}
