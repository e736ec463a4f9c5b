"""The clipped objective that searches its own bounds, so that rare successes are heard."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.objectives.aggregate import Aggregate
from optpo.objectives.clipped import clipped_losses
from optpo.objectives.sloped import sloped
from optpo.objectives.token_batch import TokenBatch

Mass = Literal["gradient", "value"]


@dataclass(frozen=True)
class BalancedObjective:
    """-min(w A, clip(w, low, high) A) with the first bounds that let positive advantages have a share.

    BAPO (2510.18927): from `low` and `high` the bounds go up by `low_step` and `high_step`, as far as
    `low_limit` and `high_limit`, until tokens of positive advantage make up the share `target` of the
    `mass` of all tokens of an optimiser step. Mass "gradient" is w |A| of the tokens that keep
    their gradient; "value" is the size of the surrogate, as the formula reads and the published code
    computes, but raising `low` moves that the wrong way. `order` "together" raises both bounds at
    each step; "low-first" exhausts the lower one first, as the published code does (its target is a
    ratio t of positive to negative: here t / (1 + t)). The formula's weight by the behaviour
    policy's probability is what sampling from it does already. `dual_clip` as in
    `ClippedObjective`.
    """

    target: float = 0.4
    low: float = 0.6
    low_limit: float = 0.9
    low_step: float = 0.05
    high: float = 1.2
    high_limit: float = 3.0
    high_step: float = 0.05
    mass: Mass = "gradient"
    order: Literal["together", "low-first"] = "together"
    dual_clip: float = 0.0
    aggregate: Aggregate = "token-mean"

    needs: ClassVar[frozenset[Need]] = frozenset({"minibatch"})

    def __post_init__(self) -> None:
        checks = {
            f"target is {self.target}; it must lie between 0 and 1": 0 <= self.target <= 1,
            f"low is {self.low} and low_limit {self.low_limit}; they must be 0 <= low <= low_limit "
            "<= 1": 0 <= self.low <= self.low_limit <= 1,
            f"high is {self.high} and high_limit {self.high_limit}; they must be 1 <= high <= "
            "high_limit": 1 <= self.high <= self.high_limit,
            f"low_step is {self.low_step}; it must be above 0": self.low_step > 0,
            f"high_step is {self.high_step}; it must be above 0": self.high_step > 0,
            f"dual_clip is {self.dual_clip}; it must be 0 (off) or above 1": self.dual_clip == 0
            or self.dual_clip > 1,
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses (C,) and token metrics (C,) by name, to be weighted and summed."""
        ratio = (batch.logp.detach() - batch.logp_old).exp()
        low, high, share = self.bounds(ratio, batch.advantages)
        losses, slopes, clipped = clipped_losses(ratio, batch.advantages, low, high, self.dual_clip)
        metrics = {
            "kl_old": batch.logp_old - batch.logp.detach(),
            "clip_share": clipped,
            "bound_low": torch.full_like(ratio, low),
            "bound_high": torch.full_like(ratio, high),
            "positive_share": torch.full_like(ratio, share),
        }
        return sloped(batch.logp, losses, slopes), metrics

    def bounds(self, ratio: Tensor, advantages: Tensor) -> tuple[float, float, float]:
        """Lower and upper bound, and the share they give: the last of all where none suffices."""
        for low, high in self._candidates():
            share = positive_share(ratio, advantages, low, high, self.mass)
            if share >= self.target:
                break
        return low, high, share

    def _candidates(self) -> list[tuple[float, float]]:
        lows = _grid(self.low, self.low_limit, self.low_step)
        highs = _grid(self.high, self.high_limit, self.high_step)
        if self.order == "low-first":
            return [(low, self.high) for low in lows] + [(lows[-1], high) for high in highs[1:]]
        count = max(len(lows), len(highs))
        return [(lows[min(k, len(lows) - 1)], highs[min(k, len(highs) - 1)]) for k in range(count)]


def positive_share(
    ratio: Tensor, advantages: Tensor, low: float, high: float, mass: Mass = "gradient"
) -> float:
    """Share of tokens of positive advantage in the mass of all, 0 to 1; 1 where there is no mass."""
    up = advantages > 0
    if mass == "gradient":
        # What a clipped token weighs is not its gradient, which is none.
        weight = torch.where(up, ratio * (ratio <= high), ratio * (ratio >= low))
    else:
        weight = torch.where(up, ratio.clamp(max=high), ratio.clamp(min=low))
    masses = weight * advantages.abs()
    total = float(masses.sum())
    return float(masses[up].sum()) / total if total > 0 else 1.0


def _grid(first: float, last: float, step: float) -> list[float]:
    """First, first + step and so on, each at most `last`, which is the end."""
    steps = math.ceil((last - first) / step - 1e-9)
    return [*(first + k * step for k in range(steps)), last]
