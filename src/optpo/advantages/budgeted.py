"""HBPO's advantage: against the budget's own best reward, and against the whole question."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from optpo.advantages.centred import CentredAdvantage
from optpo.batch import RolloutBatch, segment_mean
from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.shapes.budget import budget_numbers


@dataclass(frozen=True)
class BudgetedAdvantage:
    """(mean of the budget's subgroup - best of the budget) + (reward - mean) / deviation.

    HBPO (2507.15844). The rollouts of a question take `budgets` (tokens) in turn, by their index. The
    best reward of budget b is height cos(pi b / (2 context)), that of a right answer within it:
    `budgets`, `height` and `context` are those of `BudgetShape`. The second term is GRPO's over all
    rollouts of the question, 0 for a single one.

    The first term is the same for a whole subgroup and never above 0, so a right answer within its
    budget is pushed away where its sibling failed: so the paper has it. The published code adds the
    term twice; here it is once.
    """

    budgets: tuple[int, ...] = (512, 1024, 2048, 2560)
    height: float = 4.0
    context: int = 4096
    epsilon: float = 1e-6

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        checks = {
            f"budgets is {self.budgets}; it must hold one budget or more": len(self.budgets) > 0,
            f"budgets is {self.budgets}; each must lie above 0 and below context, "
            f"{self.context}": all(0 < budget < self.context for budget in self.budgets),
            f"height is {self.height}; it must be above 0": self.height > 0,
            f"epsilon is {self.epsilon}; it must be above 0": self.epsilon > 0,
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> tuple[Tensor, None]:
        """Advantages a completion token, (C,) in the dtype of `rewards`; there are no returns."""
        return self.of_rollouts(batch, rewards)[batch.token_rollouts], None

    def of_rollouts(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Advantages a rollout, (R,) in the dtype of `rewards`."""
        count = len(self.budgets)
        numbers = budget_numbers(batch, count)
        subgroups = batch.groups * count + numbers
        means = segment_mean(rewards, subgroups, batch.group_count * count)[subgroups]
        best = rewards.new_tensor(
            [self.height * math.cos(math.pi * b / (2 * self.context)) for b in self.budgets]
        )
        overall = CentredAdvantage(epsilon=self.epsilon).of_rollouts(batch, rewards)
        return means - best[numbers] + overall
