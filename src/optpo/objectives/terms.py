"""What any policy-gradient objective may add to its loss: a pull to the reference, and a critic."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.objectives.aggregate import Aggregate
from optpo.objectives.token_batch import TokenBatch

KlEstimator = Literal["k1", "k2", "k3"]


@dataclass(frozen=True)
class OptionalTerms:
    """The terms that objectives share; an objective is a subclass.

    `kl_coefficient` adds that much of `kl_estimator` (see `kl_estimate`), with `kl_weighted` times the
    ratio of policy and behaviour policy: k3's gradient is then that of the divergence, also
    off-policy (DeepSeek-V3.2, 2512.02556; TRL's default). `value_coefficient` adds
    half the squared error of the critic, clipped to `value_clip` around its old values (off at 0),
    where there is a critic; tokens without a target (returns not a number) add nothing.
    """

    kl_coefficient: float = 0.0
    kl_estimator: KlEstimator = "k3"
    kl_weighted: bool = False
    value_coefficient: float = 0.5
    value_clip: float = 0.2
    aggregate: Aggregate = "token-mean"

    def __post_init__(self) -> None:
        if problems := [problem for problem, holds in self._checks().items() if not holds]:
            raise SettingsError(problems)

    def _checks(self) -> dict[str, bool]:
        """What must hold of the settings, by what to say where it does not."""
        return {
            f"kl_coefficient is {self.kl_coefficient}; it must be 0 or more": (
                self.kl_coefficient >= 0
            ),
            f"value_coefficient is {self.value_coefficient}; it must be 0 or more": (
                self.value_coefficient >= 0
            ),
            f"value_clip is {self.value_clip}; it must be 0 (off) or more": self.value_clip >= 0,
        }

    @property
    def needs(self) -> frozenset[Need]:
        """The reference, where the penalty counts."""
        return frozenset({"reference"}) if self.kl_coefficient > 0 else frozenset()

    def with_terms(
        self, losses: Tensor, metrics: dict[str, Tensor], batch: TokenBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses (C,) and metrics, with those of the optional terms added.

        Raises ValueError where the penalty counts and there are no log-probs of the reference.
        """
        if self.kl_coefficient > 0:
            if batch.logp_ref is None:
                raise ValueError("a penalty towards the reference needs its log-probs")
            kl = kl_estimate(batch.logp, batch.logp_ref, self.kl_estimator)
            if self.kl_weighted:
                kl = kl * (batch.logp - batch.logp_old).exp()
            losses = losses + self.kl_coefficient * kl
            metrics = {**metrics, "kl": kl.detach()}
        if batch.values is not None:
            error = self._value_error(batch)
            losses = losses + self.value_coefficient * error
            metrics = {**metrics, "value_loss": error.detach()}
        return losses, metrics

    def _value_error(self, batch: TokenBatch) -> Tensor:
        assert batch.values is not None
        assert batch.values_old is not None
        assert batch.returns is not None
        # Not a number must not meet the values even where its result is thrown away: the gradient
        # of what is thrown away would be 0 times not a number.
        known = ~batch.returns.isnan()
        returns = torch.where(known, batch.returns, 0)
        error = (batch.values - returns).square()
        if self.value_clip > 0:
            near = batch.values_old + (batch.values - batch.values_old).clamp(
                -self.value_clip, self.value_clip
            )
            error = torch.maximum(error, (near - returns).square())
        return 0.5 * torch.where(known, error, 0)


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
