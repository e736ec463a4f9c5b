"""A pull towards the reference policy, beside any objective."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.objectives.token_batch import TokenBatch

KlEstimator = Literal["k1", "k2", "k3"]


@dataclass(frozen=True)
class KlPenalty:
    """`coefficient` (off at 0) times an estimate of the divergence from the reference (`kl_estimate`).

    `weighted` multiplies the estimate by the ratio of policy and behaviour policy: k3's gradient is
    then that of the divergence, also off-policy (DeepSeek-V3.2, 2512.02556; TRL's default).
    """

    coefficient: float = 0.0
    estimator: KlEstimator = "k3"
    weighted: bool = False

    def __post_init__(self) -> None:
        if self.coefficient < 0:
            raise SettingsError([f"coefficient is {self.coefficient}; it must be 0 (off) or more"])

    @property
    def needs(self) -> frozenset[Need]:
        """The reference, where the penalty counts."""
        return frozenset({"reference"}) if self.coefficient > 0 else frozenset()

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses (C,) and token metrics (C,) by name.

        Raises ValueError without log-probs of the reference.
        """
        if batch.logp_ref is None:
            raise ValueError("a penalty towards the reference needs its log-probs")
        kl = kl_estimate(batch.logp, batch.logp_ref, self.estimator)
        if self.weighted:
            kl = kl * (batch.logp - batch.logp_old).exp()
        return self.coefficient * kl, {"kl": kl.detach()}


def kl_estimate(logp: Tensor, logp_ref: Tensor, estimator: KlEstimator) -> Tensor:
    """Estimate of KL(pi || pi_ref) from each sampled token, (C,), with r = pi_ref / pi.

    k1 = -ln r (unbiased, either sign, but as a loss its gradient is 0 on average), k2 = (ln r)^2 / 2
    (biased; its gradient is that of the divergence), k3 = r - 1 - ln r (unbiased, never negative;
    2402.03300, equation 4).
    """
    log_r = logp_ref - logp
    if estimator == "k1":
        return -log_r
    if estimator == "k2":
        return log_r.square() / 2
    return torch.expm1(log_r) - log_r
