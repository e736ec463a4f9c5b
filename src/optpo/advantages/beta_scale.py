"""BNPO's scale: a Beta density at a question's success rate, fitted to those of the batch."""

import torch
from torch import Tensor

from optpo.batch import segment_mean
from optpo.errors import RewardError

_SAME = 1e-12
"""Below this variance the rates of a batch differ by rounding alone."""


def beta_weights(rewards: Tensor, groups: Tensor, count: int, *, most: float = 1e6) -> Tensor:
    """What (reward - success rate) is multiplied by, (G,): 1 / f(rate; alpha, beta), at most `most`.

    `rewards` (R,) in [0, 1], `groups` (R,) int64 in 0..count-1. BNPO (2506.02864): with mean m and
    unbiased variance v of the rates over the batch, alpha = 1 + a/3 and beta = 1 + b/3 for
    a = (m (1 - m) / v - 1) m and b = (m (1 - m) / v - 1)(1 - m), neither below 1. Where v is 0
    (one question, or all alike) the published code divides by it and returns not a number; here
    alpha = beta = 1, the uniform density, and BNPO is Dr.GRPO. alpha = beta = 3/2 is pi/8 GRPO.

    Raises RewardError for a reward outside [0, 1].
    """
    if bool(((rewards < 0) | (rewards > 1)).any()):
        raise RewardError(
            f"rewards reach from {float(rewards.min()):g} to {float(rewards.max()):g}, but "
            "advantage.scale beta (recipe bnpo) is for rewards of 0 to 1, whose mean is a question's "
            "success rate: bring the scores to that range, shape them by nothing (shape.part none), or "
            "choose a scale for any rewards, such as advantage.scale std"
        )
    rates = segment_mean(rewards, groups, count).clamp(0, 1)
    mean, variance = rates.mean(), rates.var(correction=min(count - 1, 1))
    if variance <= _SAME:
        return torch.ones_like(rates)
    concentration = mean * (1 - mean) / variance - 1
    alpha = (1 + concentration * mean / 3).clamp(min=1)
    beta = (1 + concentration * (1 - mean) / 3).clamp(min=1)
    log_norm = torch.lgamma(alpha) + torch.lgamma(beta) - torch.lgamma(alpha + beta)
    log_density = torch.xlogy(alpha - 1, rates) + torch.xlogy(beta - 1, 1 - rates) - log_norm
    return (-log_density).exp().clamp(max=most)
