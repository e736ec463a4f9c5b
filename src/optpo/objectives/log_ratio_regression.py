"""Regression of each step's log-ratio onto its advantage."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optpo.batch import segment_mean, segment_sum
from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.objectives.aggregate import Aggregate
from optpo.objectives.token_batch import TokenBatch


@dataclass(frozen=True)
class LogRatioRegressionObjective:
    """(A / beta - ln(pi / pi_ref))^2 / 2 of each step: Direct-Advantage DAPO (2412.18279).

    A step ends with the token `step_token` (none: with every token) and with the rollout. Its
    advantage is the mean of its tokens'. The form of the loss is reconstructed: the partition function
    is left out, as advantages are 0 on average under the reference. The loss of a step is spread
    over its tokens, so that "sequence-mean-token-sum" is the mean over rollouts of the sum over steps.
    """

    beta: float = 0.5
    step_token: int | None = None
    aggregate: Aggregate = "sequence-mean-token-sum"

    needs: ClassVar[frozenset[Need]] = frozenset({"reference"})

    def __post_init__(self) -> None:
        checks = {
            f"beta is {self.beta}; it must be above 0": self.beta > 0,
            f"step_token is {self.step_token}; it must be 0 or more": self.step_token is None
            or self.step_token >= 0,
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses (C,) and token metrics (C,) by name.

        Raises ValueError without log-probs of the reference, or without tokens where steps end at one.
        """
        if batch.logp_ref is None:
            raise ValueError("a log-ratio to the reference needs its log-probs")
        steps = self._steps(batch)
        count = int(steps.max()) + 1
        ratios = segment_sum(batch.logp - batch.logp_ref, steps, count)
        error = segment_mean(batch.advantages, steps, count) / self.beta - ratios
        lengths = segment_sum(torch.ones_like(batch.logp), steps, count)
        losses = (error.square() / 2 / lengths)[steps]
        metrics = {
            "log_ratio": (ratios / lengths).detach()[steps],
            "regression_error": error.detach().abs()[steps],
        }
        return losses, metrics

    def _steps(self, batch: TokenBatch) -> Tensor:
        """The step each token belongs to, (C,) int64 from 0, each present."""
        rollouts = batch.token_rollouts
        if self.step_token is None:
            return torch.arange(len(rollouts), device=rollouts.device)
        if batch.tokens is None:
            raise ValueError("steps that end at a token need the tokens")
        begins = torch.ones_like(rollouts, dtype=torch.bool)
        begins[1:] = (rollouts[1:] != rollouts[:-1]) | (batch.tokens[:-1] == self.step_token)
        return begins.long().cumsum(0) - 1
