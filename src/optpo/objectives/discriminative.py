"""Right rollouts up by their weights, wrong ones down by a soft maximum, inside a trust region."""

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
class DiscriminativeObjective:
    """The objective of DRPO (2510.04474), which is DisCO's with weights on the right rollouts.

    With s the mean log-prob of a rollout's tokens, maximise over questions the mean of sum(a s) over
    right rollouts minus tau ln mean(exp(s / tau)) over wrong ones. A rollout with a positive advantage
    is right and weighs its advantage a; one with a negative advantage is wrong, however much;
    0 takes no part. Questions without both say nothing and do not count (the published code divides
    by them too). The constraint KL(pi_old || pi) <= `delta`, as the mean over all tokens of logp_old -
    logp, costs sg(max(`beta` (KL - delta), 0)) KL. The loss is the true value, as the published code's
    is not.
    """

    tau: float = 10.0
    delta: float = 1e-4
    beta: float = 1000.0
    aggregate: Aggregate = "sum"

    needs: ClassVar[frozenset[Need]] = frozenset({"minibatch"})

    def __post_init__(self) -> None:
        checks = {
            f"tau is {self.tau}; it must be above 0": self.tau > 0,
            f"delta is {self.delta}; it must be 0 or more": self.delta >= 0,
            f"beta is {self.beta}; it must be 0 (off) or more": self.beta >= 0,
            f"aggregate is {self.aggregate!r}; questions are aggregated here, it must be 'sum'": (
                self.aggregate == "sum"
            ),
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses (C,), whose sum is the loss, and token metrics (C,) by name."""
        rollouts, count = batch.token_rollouts, batch.rollout_count
        groups = batch.rollout_groups
        group_count = int(groups.max()) + 1
        advantages = segment_mean(batch.advantages, rollouts, count)
        right, wrong = advantages > 0, advantages < 0
        sides = [segment_sum(side.to(advantages), groups, group_count) for side in (right, wrong)]
        both = (sides[0] > 0) & (sides[1] > 0)
        scores = segment_mean(batch.logp, rollouts, count)
        hardest = soft_maximum(scores[wrong], groups[wrong], group_count, self.tau)
        # A question's soft maximum is carried by its wrong rollouts, each an equal part.
        losses = torch.where(right, -advantages * scores, 0) + torch.where(
            wrong, (hardest / sides[1].clamp(min=1))[groups], 0
        )
        losses = losses * both[groups] / both.sum().clamp(min=1)
        lengths = segment_sum(torch.ones_like(batch.logp), rollouts, count)
        gone = (batch.logp_old - batch.logp) / len(batch.logp)
        divergence = gone.sum().detach()
        price = (self.beta * (divergence - self.delta)).clamp(min=0)
        metrics = {
            "kl_old": (batch.logp_old - batch.logp).detach(),
            "kl_price": price.expand(len(batch.logp)),
            "contrasted_share": both[groups][rollouts].float(),
        }
        return (losses / lengths)[rollouts] + price * gone, metrics


def soft_maximum(values: Tensor, segments: Tensor, count: int, tau: float) -> Tensor:
    """tau ln mean(exp(v / tau)) of `values` (N,) over each segment, (count,); 0 for an empty one."""
    scaled = values / tau
    highest = scaled.new_zeros(count).scatter_reduce(
        0, segments, scaled.detach(), "amax", include_self=False
    )
    mean = segment_mean((scaled - highest[segments]).exp(), segments, count)
    empty = mean == 0
    return torch.where(empty, 0, tau * (mean.masked_fill(empty, 1).log() + highest))
