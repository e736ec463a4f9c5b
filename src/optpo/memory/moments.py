"""Mean and deviation of all rewards of the run so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.memory.protocol import Notes
from optpo.needs import Need

NAMES = ("rewards seen", "mean reward", "deviation of rewards")
"""What is noted of the run, and how `question_values` calls it."""


@dataclass(frozen=True)
class MomentsMemory:
    """PPO-max's running moments of rewards (2307.04964), of the run as a whole.

    Batches are merged exactly: the moments are those of all rewards at once, and the deviation is
    unbiased.
    """

    gives: ClassVar[frozenset[Need]] = frozenset({"moments"})
    initial_rollouts: ClassVar[int] = 0
    forgets: ClassVar[bool] = False

    def begin(self, rewards: Sequence[float]) -> dict[str, float]:
        """Nothing is noted of a question."""
        return {}

    def recall(self, past: Sequence[Notes], run: Notes) -> dict[str, Tensor]:
        """The `NAMES`, (G,) float32 each and the same for all questions; 0 before the first reward."""
        return {name: torch.full((len(past),), run.get(name, 0.0)) for name in NAMES}

    def remember(
        self,
        past: Sequence[Notes],
        run: Notes,
        batch: RolloutBatch,
        rewards: Tensor,
        drifts: Sequence[float | None],
    ) -> tuple[list[dict[str, float]], dict[str, float]]:
        """The run's moments with this step's rewards."""
        seen, mean, deviation = torch.tensor(
            [run.get(name, 0.0) for name in NAMES], dtype=torch.float64
        )
        after = merge_moments(seen, mean, deviation, rewards.double())
        notes = {name: float(value) for name, value in zip(NAMES, after, strict=True)}
        return [{} for _ in past], {**run, **notes}


def merge_moments(
    seen: Tensor, mean: Tensor, deviation: Tensor, rewards: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Number, mean and unbiased deviation (0 of one) of `seen` rewards of these moments and new ones.

    Scalars, and `rewards` (N,) of which those that are not a number are left out. Chan's parallel
    form of the variance, which loses no digits where the mean is large.
    """
    new = rewards[~rewards.isnan()]
    if not len(new):
        return seen, mean, deviation
    total = seen + len(new)
    own = new.mean()
    squares = deviation.square() * (seen - 1).clamp(min=0) + (new - own).square().sum()
    squares = squares + (own - mean).square() * seen * len(new) / total
    merged = mean + (own - mean) * len(new) / total
    return total, merged, (squares / (total - 1).clamp(min=1)).sqrt()
