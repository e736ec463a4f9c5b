"""How undecided the policy was at the tokens of the step before, and before training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.entropy_places import entropy_scale
from optpo.errors import SettingsError
from optpo.memory.protocol import Notes
from optpo.needs import Need

NAMES = ("least entropy", "quantile entropy", "most entropy")
"""What is noted of the run: logarithms of entropies in nats."""

FIRST = "first mean entropy"
"""What is noted of its first step, and how `question_values` calls it: nats."""


@dataclass(frozen=True)
class EntropyMemory:
    """The scale by which `entropy_temperature` tells undecided tokens from decided ones (2509.16591).

    Of the tokens of the step's rollouts the least entropy, that at the `quantile`, and the most.
    Beside it the mean entropy of the first step's tokens, when nothing had been learnt yet.
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
        """The mean entropy of the first step, (G,) float32 and the same for all questions, once it is
        known; the scale is for sampling.
        """
        return {FIRST: torch.full((len(past),), run[FIRST])} if FIRST in run else {}

    def remember(
        self,
        past: Sequence[Notes],
        run: Notes,
        batch: RolloutBatch,
        rewards: Tensor,
        drifts: Sequence[float | None],
    ) -> tuple[list[dict[str, float]], dict[str, float]]:
        """The scale of this step's tokens, and the first mean. Raises ValueError without entropies."""
        if "entropy" not in batch.token_values:
            raise ValueError("a scale of entropies needs the entropies of the tokens")
        entropies = batch.token_values["entropy"]
        scale = entropy_scale(entropies, self.quantile).tolist()
        first = run.get(FIRST, float(entropies.double().mean()))
        return [{} for _ in past], {**dict(zip(NAMES, scale, strict=True)), FIRST: first}
