"""The clipped policy-gradient objective with its optional terms."""

from dataclasses import dataclass

import torch
from torch import Tensor

from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.objectives.aggregate import Aggregate
from optpo.objectives.token_batch import TokenBatch


@dataclass(frozen=True)
class ClippedObjective:
    """-min(w A, clip(w, 1 - clip_low, 1 + clip_high) A) with w = exp(logp - logp_old) (1707.06347).

    `dual_clip` c > 1 bounds the loss of a negative advantage by -c A (off at 0).
    `kl_coefficient` adds k3 = r - 1 - ln r, r = pi_ref / pi (2402.03300, equation 4).
    `value_coefficient` adds half the squared error of the critic, clipped to `value_clip`
    around its old values (off at 0); it is ignored where there is no critic.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float = 0.0
    kl_coefficient: float = 0.0
    value_coefficient: float = 0.5
    value_clip: float = 0.2
    aggregate: Aggregate = "token-mean"

    def __post_init__(self) -> None:
        checks = {
            f"clip_low is {self.clip_low}; it must lie between 0 and 1": 0 <= self.clip_low <= 1,
            f"clip_high is {self.clip_high}; it must be 0 or more": self.clip_high >= 0,
            f"dual_clip is {self.dual_clip}; it must be 0 (off) or above 1": self.dual_clip == 0
            or self.dual_clip > 1,
            f"kl_coefficient is {self.kl_coefficient}; it must be 0 or more": self.kl_coefficient
            >= 0,
            f"value_coefficient is {self.value_coefficient}; it must be 0 or more": (
                self.value_coefficient >= 0
            ),
            f"value_clip is {self.value_clip}; it must be 0 (off) or more": self.value_clip >= 0,
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    @property
    def needs(self) -> frozenset[Need]:
        """The reference, where the penalty counts."""
        return frozenset({"reference"}) if self.kl_coefficient > 0 else frozenset()

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses (C,) and token metrics (C,) by name, to be weighted and summed."""
        log_ratio = batch.logp - batch.logp_old
        ratio = log_ratio.exp()
        plain = -ratio * batch.advantages
        clipped = -ratio.clamp(1 - self.clip_low, 1 + self.clip_high) * batch.advantages
        losses = torch.maximum(plain, clipped)
        metrics = {"clip_share": (clipped > plain).float(), "kl_old": -log_ratio.detach()}
        if self.dual_clip > 0:
            bound = -self.dual_clip * batch.advantages
            losses = torch.where(batch.advantages < 0, torch.minimum(losses, bound), losses)
        if batch.logp_ref is not None:
            log_r = batch.logp_ref - batch.logp
            kl = torch.expm1(log_r) - log_r
            losses = losses + self.kl_coefficient * kl
            metrics["kl"] = kl.detach()
        if batch.values is not None:
            error = self._value_error(batch)
            losses = losses + self.value_coefficient * error
            metrics["value_loss"] = error.detach()
        return losses, metrics

    def _value_error(self, batch: TokenBatch) -> Tensor:
        assert batch.values is not None
        assert batch.values_old is not None
        assert batch.returns is not None
        error = (batch.values - batch.returns).square()
        if self.value_clip > 0:
            near = batch.values_old + (batch.values - batch.values_old).clamp(
                -self.value_clip, self.value_clip
            )
            error = torch.maximum(error, (near - batch.returns).square())
        return 0.5 * error
