"""How undecided the policy was at the tokens of the step before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.entropy_places import entropy_scale
from optpo.errors import SettingsError
from optpo.memory.protocol import Notes
from optpo.needs import Need

NAMES = ("least entropy", "quantile entropy", "most entropy")
"""What is noted of the run: logarithms of entropies in nats."""


@dataclass(frozen=True)
class EntropyMemory:
    """The scale by which `entropy_temperature` tells undecided tokens from decided ones (2509.16591).

    Of the tokens of the step's rollouts the least entropy, that at the `quantile`, and the most.
    """

    quantile: float = 0.8

    gives: ClassVar[frozenset[Need]] = frozenset({"entropies"})
    initial_rollouts: ClassVar[int] = 0
    forgets: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.quantile <= 1:
            raise SettingsError([f"quantile is {self.quantile}; it must lie between 0 and 1"])

    def begin(self, rewards: Sequence[float]) -> dict[str, float]:
        """Nothing is noted of a question."""
        return {}

    def recall(self, past: Sequence[Notes], run: Notes) -> dict[str, Tensor]:
        """Nothing: the notes are for sampling."""
        return {}

    def remember(
        self,
        past: Sequence[Notes],
        run: Notes,
        batch: RolloutBatch,
        rewards: Tensor,
        drifts: Sequence[float | None],
    ) -> tuple[list[dict[str, float]], dict[str, float]]:
        """The scale of this step's tokens. Raises ValueError without entropies."""
        if "entropy" not in batch.token_values:
            raise ValueError("a scale of entropies needs the entropies of the tokens")
        scale = entropy_scale(batch.token_values["entropy"], self.quantile).tolist()
        return [{} for _ in past], dict(zip(NAMES, scale, strict=True))
