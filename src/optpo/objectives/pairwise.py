"""Preference by pairs: every rollout of a question against every other."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from optpo.batch import segment_mean, segment_sum
from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.objectives.aggregate import Aggregate
from optpo.objectives.ratio import sequence_log_ratio
from optpo.objectives.token_batch import TokenBatch


@dataclass(frozen=True)
class PairwiseObjective:
    """Policy gradient on differences of rewards: P3O (2310.00212), over all pairs of a group.

    Of a pair with D = A1 - A2 and ratios w1, w2 of whole rollouts, half the negative of: `clipping`
    "separate" (V1), min(D w1, D clip(w1)) sg(w2) + min(-D w2, -D clip(w2)) sg(w1); "joint" (V2, form
    inferred, not checked against the paper), sg(w1 w2) min(D u, D clip(u, -clip, clip)) with u =
    ln w1 - ln w2; "none", sg(w1 w2) D u. `partner` one leaves the stop-gradient weights away, which
    grow with the length of rollouts. Any baseline of a question falls out of D, a scale does not:
    advantages should be rewards, centred or not. A group's loss is the mean over its pairs; groups
    of one have none. With w = 1 the gradient is that of RLOO.
    """

    clip: float = 0.2
    clipping: Literal["separate", "joint", "none"] = "separate"
    partner: Literal["ratio", "one"] = "ratio"
    aggregate: Aggregate = "sum"

    needs: ClassVar[frozenset[Need]] = frozenset({"minibatch"})

    def __post_init__(self) -> None:
        checks = {
            f"clip is {self.clip}; it must be above 0 and below 1": 0 < self.clip < 1,
            f"aggregate is {self.aggregate!r}; pairs are aggregated here, it must be 'sum'": (
                self.aggregate == "sum"
            ),
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses (C,), whose sum is the mean over groups, and token metrics (C,) by name."""
        rollouts, count = batch.token_rollouts, batch.rollout_count
        log_w = sequence_log_ratio(batch.logp, batch.logp_old, rollouts, count)
        advantages = segment_mean(batch.advantages, rollouts, count)
        first, second = pairs(batch.rollout_groups)
        difference = advantages[first] - advantages[second]
        of_first, of_second = self._pair_losses(difference, log_w[first], log_w[second])
        # A group's mean over its pairs, and the mean over groups that have any.
        sizes = batch.rollout_groups.bincount()
        pair_count = sizes * (sizes - 1) / 2
        weight = 1 / (pair_count[batch.rollout_groups[first]] * int((sizes > 1).sum()))
        losses = (
            torch.zeros_like(log_w)
            .index_add(0, first, of_first * weight.to(of_first))
            .index_add(0, second, of_second * weight.to(of_first))
        )
        lengths = segment_sum(torch.ones_like(batch.logp), rollouts, count)
        ratio = log_w.detach().exp()
        metrics = {
            "kl_old": (batch.logp_old - batch.logp).detach(),
            "beyond_clip": ((ratio - 1).abs() > self.clip).float()[rollouts],
        }
        return (losses / lengths)[rollouts], metrics

    def _pair_losses(
        self, difference: Tensor, log_first: Tensor, log_second: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What each of a pair adds to the loss, (P,) twice."""
        first, second = log_first.exp(), log_second.exp()
        if self.clipping == "separate":
            of_first = self._clipped(difference, first)
            of_second = self._clipped(-difference, second)
            if self.partner == "ratio":
                of_first, of_second = of_first * second.detach(), of_second * first.detach()
            return -of_first / 2, -of_second / 2
        gap = log_first - log_second
        surrogate = difference * gap
        if self.clipping == "joint":
            surrogate = torch.minimum(surrogate, difference * gap.clamp(-self.clip, self.clip))
        if self.partner == "ratio":
            surrogate = surrogate * (first * second).detach()
        return -surrogate / 4, -surrogate / 4

    def _clipped(self, difference: Tensor, ratio: Tensor) -> Tensor:
        bounded = ratio.clamp(1 - self.clip, 1 + self.clip)
        return torch.minimum(difference * ratio, difference * bounded)


def pairs(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Every pair of places with the same number in `groups` (R,) once, (P,) int64 twice.

    The groups need not lie together.
    """
    order = groups.argsort(stable=True)
    sizes = groups.bincount()
    begins = sizes.cumsum(0) - sizes
    place = torch.arange(len(groups), device=groups.device)
    within = place - begins[groups[order]]
    later = sizes[groups[order]] - 1 - within
    first = torch.repeat_interleave(place, later)
    ends = later.cumsum(0)
    step = torch.arange(len(first), device=groups.device) - (ends - later)[first]
    return order[first], order[first + 1 + step]
