"""Credit by steps: what each step of a rollout changed in the critic's expectation."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.errors import SettingsError
from optpo.needs import Need


@dataclass(frozen=True)
class StepAdvantage:
    """A = V(next step) - V(step) on every token of a step; the last step's is outcome - V(step).

    The advantage of Direct Advantage Policy Optimization (2412.18279; not ByteDance's DAPO). A step
    ends after `step_token` (none: after every token) and where its rollout ends. V(step) is the
    critic's value where the step begins. A rollout's advantages, counted once a step, sum to
    outcome - V(prompt). The critic is taught the outcome.
    """

    step_token: int | None = None

    needs: ClassVar[frozenset[Need]] = frozenset({"critic"})

    def __post_init__(self) -> None:
        if self.step_token is not None and self.step_token < 0:
            raise SettingsError([f"step_token is {self.step_token}; it must be 0 or more"])

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> tuple[Tensor, Tensor]:
        """Advantages and returns a completion token, (C,) each in the dtype of `rewards`."""
        ends = step_ends(batch, self.step_token)
        steps = ends.cumsum(0) - ends.long()
        begins = torch.cat([torch.zeros(1, dtype=torch.int64), ends.nonzero()[:, 0] + 1])
        of_steps = batch.token_values["value"].to(rewards.dtype)[begins[:-1]]
        last = steps[batch.completion_offsets[1:] - 1]
        following = of_steps.roll(-1).index_copy(0, last, rewards)
        return (following - of_steps)[steps], rewards[batch.token_rollouts]


def step_ends(batch: RolloutBatch, step_token: int | None) -> Tensor:
    """Which completion tokens end a step, (C,) bool: `step_token` (none: all), and each last one."""
    tokens = batch.completion_tokens
    ends = torch.ones_like(tokens, dtype=torch.bool) if step_token is None else tokens == step_token
    return ends.index_fill(0, batch.completion_offsets[1:] - 1, value=True)
