"""The loss of a critic, beside any objective."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.objectives.token_batch import TokenBatch


@dataclass(frozen=True)
class CriticLoss:
    """`coefficient` times half the squared error of the critic's values against the returns.

    The larger error counts of the value itself and of the value held to `clip` (off at 0) around what
    it was when the step began (PPO's published code; 2307.04964). Tokens without a target, whose
    returns are not a number, add nothing.
    """

    coefficient: float = 0.5
    clip: float = 0.2

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        checks = {
            f"coefficient is {self.coefficient}; it must be 0 or more": self.coefficient >= 0,
            f"clip is {self.clip}; it must be 0 (off) or more": self.clip >= 0,
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses (C,) and token metrics (C,) by name.

        Raises ValueError without values, old values and returns.
        """
        if batch.values is None or batch.values_old is None or batch.returns is None:
            raise ValueError("the loss of a critic needs its values, new and old, and returns")
        # Not a number must not meet the values even where its result is thrown away: the gradient
        # of what is thrown away would be 0 times not a number.
        known = ~batch.returns.isnan()
        returns = torch.where(known, batch.returns, 0)
        error = (batch.values - returns).square()
        if self.clip > 0:
            moved = (batch.values - batch.values_old).clamp(-self.clip, self.clip)
            error = torch.maximum(error, (batch.values_old + moved - returns).square())
        error = 0.5 * torch.where(known, error, 0)
        return self.coefficient * error, {"value_loss": error.detach()}
