"""The clipped policy-gradient objective, and the same without its clip."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.objectives.aggregate import Aggregate
from optpo.objectives.ratio import RatioLevel, ratios
from optpo.objectives.sloped import sloped
from optpo.objectives.token_batch import TokenBatch


@dataclass(frozen=True)
class ClippedObjective:
    """-min(w A, clip(w, 1 - clip_low, 1 + clip_high) A) with w = exp(logp - logp_old) (1707.06347).

    `ratio` says of what w is the ratio (see `ratios`): a token, or a whole rollout (GSPO,
    2507.18071, with aggregate "sequence-mean-token-mean"). `gate` none takes the clips away: -w A, as
    in ESPO (2202.00079), which ends its epochs early instead. `dual_clip` c > 1 bounds the loss of a
    negative advantage by -c A (1912.09729; off at 0).
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float = 0.0
    ratio: RatioLevel = "token"
    gate: Literal["clip", "none"] = "clip"
    aggregate: Aggregate = "token-mean"

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        checks = {
            f"clip_low is {self.clip_low}; it must lie between 0 and 1": 0 <= self.clip_low <= 1,
            f"clip_high is {self.clip_high}; it must be 0 or more": self.clip_high >= 0,
            f"dual_clip is {self.dual_clip}; it must be 0 (off) or above 1": self.dual_clip == 0
            or self.dual_clip > 1,
            f"dual_clip is {self.dual_clip} with gate 'none'; it must be 0 (off) there": (
                self.gate == "clip" or self.dual_clip == 0
            ),
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses (C,) and token metrics (C,) by name, to be weighted and summed."""
        gone = batch.logp_old - batch.logp.detach()
        ratio, steepness = ratios(gone, self.ratio, batch.token_rollouts)
        metrics = {"kl_old": gone}
        if self.gate == "none":
            losses = slopes = -ratio * batch.advantages
        else:
            losses, slopes, metrics["clip_share"] = clipped_losses(
                ratio, batch.advantages, 1 - self.clip_low, 1 + self.clip_high, self.dual_clip
            )
        if steepness is not None:
            slopes = slopes * steepness
        return sloped(batch.logp, losses, slopes), metrics


@torch.no_grad()
def clipped_losses(
    ratio: Tensor,
    advantages: Tensor,
    lowest: float | Tensor,
    highest: float | Tensor,
    dual_clip: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """-min(w A, clip(w, lowest, highest) A), bounded by -c A below A = 0, (C,).

    The bounds are numbers, or (C,) for one a token. Also returns the losses' slopes by ln w, (C,),
    and where the clip counts, (C,): 1, else 0.
    """
    plain = ratio * advantages
    bounded = torch.clamp(ratio, lowest, highest).mul_(advantages)  # type: ignore[arg-type]
    losses = torch.minimum(plain, bounded).neg_()
    # A comparison in place is 0 or 1 in the type of the ratio; choosing by it costs ten times as much
    # on a CPU as multiplying.
    clipped = bounded.lt_(plain)
    # Of the loss and not of w A: a ratio too large to write down then has slope 0, not 0 times it.
    slopes = torch.addcmul(losses, losses, clipped, value=-1, out=plain)
    if dual_clip > 0:
        worst = -dual_clip * advantages
        held = (advantages < 0) & (losses > worst)
        losses, slopes = torch.where(held, worst, losses), slopes.masked_fill(held, 0)
    return losses, slopes, clipped
