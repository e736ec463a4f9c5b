"""Rewards on the scale of all rewards of the run so far."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.errors import SettingsError
from optpo.memory.moments import NAMES, merge_moments
from optpo.needs import Need


@dataclass(frozen=True)
class RunningShape:
    """PPO-max's reward normalisation and clipping (2307.04964).

    `form` "normalise" takes the mean of all rewards of the run off and divides by their deviation, this
    batch's included; "scale", as in the script published with it, only divides. Then rewards are
    clipped to -clip..clip (0: not; .3 and .8 were studied). While all rewards are equal they are not
    divided.

    Raises SettingsError for a clip below 0.
    """

    form: Literal["normalise", "scale"] = "normalise"
    clip: float = 0.8

    needs: ClassVar[frozenset[Need]] = frozenset({"moments"})

    def __post_init__(self) -> None:
        if not self.clip >= 0:
            raise SettingsError([f"clip is {self.clip}; it must be 0 (off) or more"])

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Rewards (R,) in the dtype of `rewards`."""
        seen, mean, deviation = (batch.question_values[name][0].double() for name in NAMES)
        _, mean, deviation = merge_moments(seen, mean, deviation, rewards.double())
        # Rounding leaves equal rewards a deviation: dividing by that would make noise of them.
        spread = torch.where(deviation > 1e-6 * (1 + mean.abs()), deviation, 1)
        shaped = rewards.double() - (mean if self.form == "normalise" else 0)
        shaped = shaped / spread
        if self.clip > 0:
            shaped = shaped.clamp(-self.clip, self.clip)
        return shaped.to(rewards.dtype)
