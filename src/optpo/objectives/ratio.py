"""How much likelier the policy makes what was sampled than the policy that sampled it."""

from typing import Literal

from torch import Tensor

from optpo.batch import segment_sum

RatioLevel = Literal["token", "sequence", "product", "none"]


def log_ratio(
    logp: Tensor, logp_old: Tensor, level: RatioLevel, rollouts: Tensor, count: int
) -> Tensor:
    """Logarithm of the importance ratio of each token, (C,), with the gradient of its `logp`.

    `rollouts` (C,) int64 says which of `count` rollouts a token belongs to. "token": logp -
    logp_old. "sequence": the mean of these over the rollout, so that its exponential is the
    length-normalised ratio of GSPO (2507.18071, equation 7; the gradient is GSPO-token's, equation
    14, which is GSPO's where a rollout has one advantage). "product": their sum, the ratio of the
    whole rollout (RLOO in TRL); its gradient is that sum's under "sequence-mean-token-mean". "none":
    the ratio is 1 and only the gradient counts, which is REINFORCE.
    """
    tokenwise = logp - logp_old
    if level == "token":
        return tokenwise
    slope = logp - logp.detach()
    if level == "none":
        return slope
    whole = segment_sum(tokenwise.detach(), rollouts, count)[rollouts]
    lengths = segment_sum(tokenwise.new_ones(len(logp)), rollouts, count)[rollouts]
    if level == "product":
        return whole + lengths * slope
    return whole / lengths + slope


def sequence_log_ratio(logp: Tensor, logp_old: Tensor, rollouts: Tensor, count: int) -> Tensor:
    """Logarithm of the ratio of whole rollouts, (R,), with the gradient of all their tokens."""
    return segment_sum(logp - logp_old, rollouts, count)


def mean_ratio_deviation(logp: Tensor, logp_old: Tensor) -> float:
    """Mean |w - 1| over tokens (C,): twice the total variation between the policies, estimated from
    samples of the old one. ESPO (2202.00079) ends its epochs where this exceeds a threshold.
    """
    return float((logp.detach() - logp_old).expm1().abs().mean())
