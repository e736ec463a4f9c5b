"""RiskPO: questions are judged in bundles, and the worst bundles count for more."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, segment_mean, segment_spread, segment_std, segment_sum
from optpo.errors import SettingsError
from optpo.needs import Need


@dataclass(frozen=True)
class BundledRiskAdvantage:
    """The mixed value at risk of the returns of bundles of `questions` (RiskPO, 2510.00911).

    Questions are drawn into sets of `questions`, the rollouts of each are put in a random order, and
    the k-th of every question of a set make bundle k (`pairing` index: both in the order of the
    batch, as in the published code). The orders are drawn from `seed` and the newest policy version
    in the batch. A question with fewer than k rollouts is missing in bundle k, and the last set may
    have fewer questions: the return of a bundle is `questions` times the mean of the rewards that
    are there, which is their sum where none is missing.

    With the return R and the tracked quantiles a of level `low` and b of level `high` (while nothing
    is tracked yet, those of the returns themselves), every rollout of a bundle gets
    -(1 + tail_weight)(a - R)+ + (R - a)+ - (R - b)+ + a - b. `mixing` code is the published code's:
    tail and body are each divided by their mass, low and high - low, and averaged with weights
    1 + tail_weight and 1, which weighs the tail 3 times as much as the paper at its defaults. Without
    `baseline` the constant a - b is left out. `scale` std divides by the unbiased deviation of the
    returns in the set (plus 1e-6; by 1 where all are equal), `credit` mean by `questions`.
    """

    questions: int = 5
    low: float = 0.2
    high: float = 0.8
    tail_weight: float = 0.5
    pairing: Literal["random", "index"] = "random"
    mixing: Literal["paper", "code"] = "paper"
    baseline: bool = True
    scale: Literal["none", "std"] = "none"
    credit: Literal["sum", "mean"] = "sum"
    seed: int = 0

    needs: ClassVar[frozenset[Need]] = frozenset({"quantiles"})

    def __post_init__(self) -> None:
        checks = {
            f"questions is {self.questions}; it must be 1 or more": self.questions >= 1,
            f"low is {self.low} and high {self.high}; they must satisfy 0 <= low < high <= 1": (
                0 <= self.low < self.high <= 1
            ),
            "low is 0; with mixing code, which divides by it, it must be above 0": (
                self.mixing == "paper" or self.low != 0
            ),
            f"tail_weight is {self.tail_weight}; it must be 0 or more": self.tail_weight >= 0,
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> tuple[Tensor, None]:
        """Advantages a completion token, (C,) in the dtype of `rewards`; there are no returns."""
        return self.of_rollouts(batch, rewards)[batch.token_rollouts], None

    def of_rollouts(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Advantages a rollout, (R,) in the dtype of `rewards`."""
        bundles, sets = self.bundles(batch)
        returns = self.returns_of(rewards, bundles)
        low, high = (
            self._quantiles(batch, name, level, bundles, returns)
            for name, level in (("low quantile", self.low), ("high quantile", self.high))
        )
        tail = -(low - returns).clamp(min=0)
        body = (returns - low).clamp(min=0) - (returns - high).clamp(min=0)
        if self.baseline:
            body = body + low - high
        weight = 1 + self.tail_weight
        if self.mixing == "paper":
            advantages = weight * tail + body
        else:
            mass = self.high - self.low
            advantages = (weight * tail / self.low + body / mass) / (weight + 1)
        if self.scale == "std":
            count = int(sets.max()) + 1
            equal = segment_spread(returns, sets, count) == 0
            deviations = torch.where(equal, 1, segment_std(returns, sets, count) + 1e-6)
            advantages = advantages / deviations[sets]
        if self.credit == "mean":
            advantages = advantages / self.questions
        return advantages[bundles]

    def _quantiles(
        self, batch: RolloutBatch, name: str, level: float, bundles: Tensor, returns: Tensor
    ) -> Tensor:
        """The quantile each bundle is measured by, (B,): that of these returns where none is known."""
        known = batch.question_values[name].to(returns.dtype)[batch.groups]
        quantiles = segment_mean(known, bundles, len(returns))
        return torch.where(quantiles.isnan(), torch.quantile(returns, level), quantiles)

    def returns_of(self, rewards: Tensor, bundles: Tensor) -> Tensor:
        """The return of each bundle, (B,), where `bundles` (R,) says which one a rollout is in."""
        return self.questions * segment_mean(rewards, bundles, int(bundles.max()) + 1)

    def bundles(self, batch: RolloutBatch) -> tuple[Tensor, Tensor]:
        """The bundle each rollout is in, (R,) int64 from 0, and the set of each bundle, (B,)."""
        rollouts, count = batch.rollouts, batch.group_count
        order, question_place = torch.arange(rollouts), torch.arange(count)
        if self.pairing == "random":
            generator = torch.Generator().manual_seed(
                self.seed * 1_000_003 + int(batch.versions.max())
            )
            question_place = torch.randperm(count, generator=generator)
            order = torch.randperm(rollouts, generator=generator)
        order = order[batch.groups[order].argsort(stable=True)]
        sizes = segment_sum(torch.ones_like(batch.groups), batch.groups, count)
        first = (sizes.cumsum(0) - sizes)[batch.groups[order]]
        place = torch.empty_like(order).index_copy(0, order, torch.arange(rollouts) - first)
        sets = (question_place // self.questions)[batch.groups]
        most = int(sizes.max())
        found, bundles = torch.unique(sets * most + place, return_inverse=True)
        return bundles, found // most


def quantile_step(quantile: Tensor, level: float, returns: Tensor, rate: float) -> Tensor:
    """The quantile (any shape) of `level` in (0, 1) after it has seen `returns` (N,).

    q + rate (level - mean 1[return < q]) (RiskPO, 2510.00911): it comes to rest where the share of
    returns below it is the level.
    """
    below = (returns < quantile.unsqueeze(-1)).to(quantile.dtype).mean(-1)
    return quantile + rate * (level - below)
