"""Rewards of rollouts that were each told a token budget."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.errors import SettingsError
from optpo.needs import Need


@dataclass(frozen=True)
class BudgetShape:
    """HBPO's reward by budget (2507.15844): a right rollout's depends on its length and its budget.

    With n tokens and a budget b of `budgets` (that of a rollout: see `budget_numbers`), context L: for
    n <= b the plateau height cos(pi b / 2L); above, height cos(pi n / 2L) - slope |n - b|. Wrong
    rollouts (reward 0 or less) and those longer than L get 0.

    `form` "code" is the published code's minimum of plateau and the second expression for every n,
    which takes up to .037 from very short answers to the smallest budget. That code also puts a
    configured negative reward on a badly formed answer; here the verifier does.

    Raises SettingsError for budgets that are not between 1 and below `context` (one equal to it has a
    plateau of 0), or height and slope that are not above and not below 0.
    """

    budgets: tuple[int, ...] = (512, 1024, 2048, 2560)
    height: float = 4.0
    slope: float = 1 / 4096
    context: int = 4096
    form: Literal["paper", "code"] = "paper"

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        checks = {
            f"budgets are {list(self.budgets)}; there must be one or more, each from 1 and below "
            f"context {self.context}": bool(self.budgets)
            and all(1 <= budget < self.context for budget in self.budgets),
            f"height is {self.height}; it must be above 0": 0 < self.height < math.inf,
            f"slope is {self.slope}; it must be 0 or more": 0 <= self.slope < math.inf,
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Rewards (R,) in the dtype of `rewards`; one that is not a number stays so."""
        number = budget_numbers(batch, len(self.budgets))
        budget = torch.tensor(self.budgets, dtype=rewards.dtype)[number]
        length = batch.lengths.to(rewards.dtype)
        plateau = self._cosine(budget)
        beyond = self._cosine(length) - self.slope * (length - budget).abs()
        if self.form == "code":
            right = torch.minimum(plateau, beyond)
        else:
            right = torch.where(length > budget, beyond, plateau)
        shaped = torch.where((rewards > 0) & (length <= self.context), right, 0)
        return torch.where(rewards.isnan(), rewards, shaped)

    def _cosine(self, length: Tensor) -> Tensor:
        return self.height * torch.cos(math.pi * length / (2 * self.context))


def budget_numbers(batch: RolloutBatch, budgets: int) -> Tensor:
    """Which of so many budgets each rollout has, (R,) int64: they take turns by rollout index.

    So that a group of any size, and one that stops early, has them all as equally as can be.
    """
    return batch.indices % budgets
