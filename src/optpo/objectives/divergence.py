"""The policy gradient of the tokens whose distribution has not moved too far already."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.objectives.aggregate import Aggregate
from optpo.objectives.token_batch import TokenBatch

_BOUNDS = {"variation": 0.15, "kl": 0.05}


@dataclass(frozen=True)
class DivergenceObjective:
    """-sg(min(w, cap)) A logp where the policy may still move, else 0: DPPO (2602.04879).

    A token is masked where its advantage pushes its probability on in the direction it has gone and
    the divergence of "this token or another" from the behaviour policy is beyond `bound_high` (A > 0)
    or `bound_low` (else): `divergence` "variation" is |p - p_old|, "kl" is KL(p_old || p). Unlike a
    clipped ratio this lets a rare token's probability grow, and holds a frequent one's. A bound of 0 is
    the paper's: 0.15 of variation, 0.05 of kl. With `top` above 0 the divergence is over so many of the
    behaviour policy's likeliest tokens and all others as one.
    """

    divergence: Literal["variation", "kl"] = "variation"
    bound_low: float = 0.0
    bound_high: float = 0.0
    cap: float = 20.0
    top: int = 0
    aggregate: Aggregate = "token-mean"

    def __post_init__(self) -> None:
        checks = {
            f"bound_low is {self.bound_low}; it must be 0 (the paper's) or more": self.bound_low
            >= 0,
            f"bound_high is {self.bound_high}; it must be 0 (the paper's) or more": (
                self.bound_high >= 0
            ),
            f"cap is {self.cap}; it must be 1 or more": self.cap >= 1,
            f"top is {self.top}; it must be 0 (this token or another) or more": self.top >= 0,
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    @property
    def needs(self) -> frozenset[Need]:
        """The distributions of both policies where more than this token counts."""
        return frozenset({"logits", "heads"}) if self.top else frozenset()

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses (C,) and token metrics (C,) by name, to be weighted and summed."""
        logp = batch.logp.detach()
        gone = batch.logp_old - logp
        if self.top > 0:
            moved = self.of_heads(batch).mul_(gone.sign().neg_())
        elif self.divergence == "variation":
            moved = logp.exp().sub_(batch.logp_old.exp())
        else:
            # With the sign of the direction in which the probability has gone.
            moved = binary_divergence(logp, batch.logp_old).mul_(gone.sign().neg_())
        up, usual = batch.advantages > 0, _BOUNDS[self.divergence]
        low, high = self.bound_low or usual, self.bound_high or usual
        masked = (up & (moved > high)) | (~up & (moved < -low))
        weight = (-gone).exp_().clamp_(max=self.cap).mul_(~masked)
        metrics = {"kl_old": gone, "mask_share": masked.to(gone)}
        return weight.mul_(batch.advantages).neg_() * batch.logp, metrics

    @torch.no_grad()
    def of_heads(self, batch: TokenBatch) -> Tensor:
        """Divergence of the policy from the behaviour policy over `top` tokens and the rest, (C,).

        Raises ValueError without logits.
        """
        if batch.logits is None:
            raise ValueError("a divergence over the likeliest tokens needs the policy's logits")
        if batch.head_tokens is None or batch.head_logps is None:
            return torch.zeros_like(batch.logp)
        logps = batch.logits.log_softmax(-1).gather(-1, batch.head_tokens)
        logps, logps_old = with_rest(logps), with_rest(batch.head_logps)
        if self.divergence == "variation":
            return (logps.exp() - logps_old.exp()).abs().sum(-1) / 2
        return (logps_old.exp() * (logps_old - logps)).sum(-1)


def with_rest(logps: Tensor) -> Tensor:
    """Log-probs (C, K) of some tokens and of all others as one, (C, K + 1).

    The rest is held at the smallest step below 1, as in `binary_divergence`.
    """
    rest = (1 - logps.exp().sum(-1, keepdim=True)).clamp(min=torch.finfo(logps.dtype).eps)
    return torch.cat([logps, rest.log()], dim=-1)


def binary_divergence(logp: Tensor, logp_old: Tensor) -> Tensor:
    """KL of "this token or another" under the old policy from the same under the new one, (C,).

    The logarithm of "another" is log1p(-p), held at that of the smallest step below 1: a probability
    that rounds to 1 leaves no other token, and the divergence stays finite.
    """
    smallest = torch.finfo(logp.dtype).eps
    other = (-logp.expm1()).clamp(min=smallest)
    other_old = (-logp_old.expm1()).clamp(min=smallest)
    return logp_old.exp() * (logp_old - logp) + other_old * (other_old / other).log()
