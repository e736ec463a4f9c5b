"""What a rollout's vote did for the clarity of the vote as a whole."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, segment_sum
from optpo.needs import Need
from optpo.rewards.vote_counts import VoteCounts, count_votes


@dataclass(frozen=True)
class LeaveOneOutReward:
    """How much clearer the vote is with a rollout than without it (2510.17472).

    `statistic` "snr": (v1 - v2)^2 / (n (v1 + v2)) of the two first classes; "entropy": minus the
    entropy of the vote, in nats. The reward is the statistic of all n votes less that of the n - 1
    others. Smoother than a 0/1 label, and there for undecided questions too.

    An unparsed vote is one of the n. In the entropy each is a class of its own, which agrees with
    nothing: otherwise a model could make the vote clear by never answering. A rollout alone in its
    group has no reward.
    """

    statistic: Literal["snr", "entropy"] = "snr"

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __call__(self, batch: RolloutBatch) -> Tensor:
        """Rewards (R,) float32."""
        votes = count_votes(batch)
        total = votes.totals[batch.groups]
        change = _snr_change if self.statistic == "snr" else _entropy_change
        return torch.where(total > 1, change(votes, batch.groups), torch.nan).float()


def _snr_change(votes: VoteCounts, groups: Tensor) -> Tensor:
    first, second, third = votes.highest(3)[groups].unbind(1)
    own, total = votes.own(), votes.totals[groups]
    # Without their own class the others' best two; then what is left of the own class joins them.
    parsed = votes.classes >= 0
    leads, follows = parsed & (own == first), parsed & (own == second) & (own != first)
    best = torch.where(leads, second, first)
    next_best = torch.where(leads | follows, third, second)
    left = torch.where(parsed, own - 1, 0)
    best, next_best = torch.maximum(best, left), torch.maximum(torch.minimum(best, left), next_best)
    return signal_to_noise(first, second, total) - signal_to_noise(best, next_best, total - 1)


def signal_to_noise(first: Tensor, second: Tensor, total: Tensor) -> Tensor:
    """(v1 - v2)^2 / (n (v1 + v2)) of vote counts, float64; 0 where nobody voted for a class."""
    square, scale = (first - second).square().double(), total * (first + second)
    return square / scale.clamp(min=1)


def _entropy_change(votes: VoteCounts, groups: Tensor) -> Tensor:
    own, total = votes.own(), votes.totals[groups]
    # n (log n - entropy) is the sum of v log v over classes, to which a class of one adds nothing.
    sums = segment_sum(_times_log(votes.votes), votes.class_groups, len(votes.totals))[groups]
    without = sums - _times_log(own) + _times_log(own - 1)
    entropy = _times_log(total) / total - sums / total
    others = (total - 1).clamp(min=1)
    return _times_log(others) / others - without / others - entropy


def _times_log(counts: Tensor) -> Tensor:
    return torch.xlogy(counts.clamp(min=0).double(), counts.clamp(min=1).double())
