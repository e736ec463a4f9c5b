"""A reward for answers shorter than the shortest right one so far."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.errors import SettingsError
from optpo.needs import Need


@dataclass(frozen=True)
class HistoryShape:
    """HAPO's length reward (history-aware, 2505.11225): shorter than the question's record is better.

    With h the record before this batch and L the rollout's length, f = cos(pi/2 min(L/h, 2)); a right
    rollout (reward above 0) gets weight * max(lowest, f) more, a wrong one weight * min(0, f). With a
    weight of at most 1 every right answer stays above every wrong one. Without a record nothing is
    added.

    `form` "linear" is the published code's other one: 1 - L/h up to h, 0 within `tolerance` h above
    it, then 1 + tolerance - L/h, not below -1.

    Raises SettingsError for a weight or tolerance below 0 or `lowest` outside -1..0.
    """

    weight: float = 1.0
    form: Literal["cosine", "linear"] = "cosine"
    lowest: float = -0.7
    tolerance: float = 0.2

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {value}; it must be 0 or more"
            for name, value in (("weight", self.weight), ("tolerance", self.tolerance))
            if not 0 <= value < math.inf
        ]
        if not -1 <= self.lowest <= 0:
            problems.append(f"lowest is {self.lowest}; it must lie between -1 and 0")
        if problems:
            raise SettingsError(problems)

    @property
    def needs(self) -> frozenset[Need]:
        """The record of each question, `question_values["shortest"]`, infinite where there is none."""
        return frozenset({"shortest"})

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Rewards (R,) in the dtype of `rewards`."""
        shortest = batch.question_values["shortest"][batch.groups].to(rewards.dtype)
        known = shortest.isfinite() & (shortest > 0)
        share = batch.lengths / torch.where(known, shortest, 1)
        if self.form == "cosine":
            value = torch.cos(math.pi / 2 * share.clamp(max=2))
        else:
            late = (1 + self.tolerance - share).clamp(max=0)
            value = torch.maximum(1 - share, late).clamp(min=-1)
        right = rewards > 0
        value = torch.where(right, value.clamp(min=self.lowest), value.clamp(max=0))
        return rewards + self.weight * torch.where(known, value, 0)
