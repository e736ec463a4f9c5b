"""How much likelier the policy makes what was sampled than the policy that sampled it."""

from typing import Literal

import torch
from torch import Tensor

from optpo.batch import segment_sum

RatioLevel = Literal["token", "sequence", "product", "none"]


def ratios(gone: Tensor, level: RatioLevel, rollouts: Tensor) -> tuple[Tensor, Tensor | None]:
    """Importance ratio w of each token, (C,), and the slope of ln w by its own log-prob (none: 1).

    `gone` (C,) is logp_old - logp, without gradient; `rollouts` (C,) int64 says which rollout a token
    belongs to, in order from 0. "token": exp(logp - logp_old). "sequence": the geometric mean of these
    over the rollout, which is the length-normalised ratio of GSPO (2507.18071, equation 7; the
    gradient is GSPO-token's, equation 14, which is GSPO's where a rollout has one advantage).
    "product": their product, the ratio of the whole rollout (RLOO in TRL); a token's slope is the
    length, so that its gradient is the product's under "sequence-mean-token-mean". "none": the ratio
    is 1 and only the gradient counts, which is REINFORCE.
    """
    if level == "none":
        return torch.ones_like(gone), None
    if level == "token":
        return gone.neg().exp_(), None
    lengths = run_lengths(rollouts)
    whole = -torch.segment_reduce(gone, "sum", lengths=lengths)
    if level == "product":
        steepness = lengths.to(gone).index_select(0, rollouts)
        return whole.exp().index_select(0, rollouts), steepness
    return (whole / lengths).exp().index_select(0, rollouts), None


def run_lengths(rollouts: Tensor) -> Tensor:
    """How many tokens each rollout has, (R,) int64, of `rollouts` (C,) in order from 0."""
    count = int(rollouts[-1]) + 1 if len(rollouts) else 0
    begins = torch.arange(count + 1, device=rollouts.device)
    return torch.searchsorted(rollouts, begins).diff()


def sequence_log_ratio(logp: Tensor, logp_old: Tensor, rollouts: Tensor, count: int) -> Tensor:
    """Logarithm of the ratio of whole rollouts, (R,), with the gradient of all their tokens."""
    return segment_sum(logp - logp_old, rollouts, count)


def mean_ratio_deviation(logp: Tensor, logp_old: Tensor) -> float:
    """Mean |w - 1| over tokens (C,): twice the total variation between the policies, estimated from
    samples of the old one. ESPO (2202.00079) ends its epochs where this exceeds a threshold.
    """
    return float((logp.detach() - logp_old).expm1().abs().mean())
