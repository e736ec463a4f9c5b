"""The clipped objective whose clip and advantage depend on how undecided a token was."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from optpo.entropy_places import entropy_places, entropy_scale
from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.objectives.aggregate import Aggregate
from optpo.objectives.clipped import clipped_losses
from optpo.objectives.sloped import sloped
from optpo.objectives.token_batch import TokenBatch


@dataclass(frozen=True)
class HeterogeneousObjective:
    """DAPO's loss with entropy-dependent advantages and clips: parts C and D of HAPO (2509.16591).

    Each token has a place between -1 (the most decided of the optimiser step's tokens) and 1 (the
    least), 0 at the `quantile` of their entropies: see `entropy_places`. `redistribute` (C) multiplies
    the advantage by 1 + place where an undecided token's ratio has left the inner half of the clip
    range or a decided one's is within. `widen` (D) multiplies the lower clip by 1 - place for decided
    tokens, the upper one by 1 + place for undecided ones. `places` "published" is the code's way: it
    loses the sign of decided tokens, so neither branch for them is ever taken. `dual_clip` as in
    `ClippedObjective`.
    """

    quantile: float = 0.8
    clip_low: float = 0.2
    clip_high: float = 0.28
    redistribute: bool = True
    widen: bool = True
    places: Literal["signed", "published"] = "signed"
    dual_clip: float = 0.0
    aggregate: Aggregate = "token-mean"

    needs: ClassVar[frozenset[Need]] = frozenset({"entropy", "minibatch"})

    def __post_init__(self) -> None:
        checks = {
            f"quantile is {self.quantile}; it must lie between 0 and 1": 0 <= self.quantile <= 1,
            f"clip_low is {self.clip_low}; it must lie between 0 and 0.5, as it may double": (
                0 <= self.clip_low <= 0.5
            ),
            f"clip_high is {self.clip_high}; it must be 0 or more": self.clip_high >= 0,
            f"dual_clip is {self.dual_clip}; it must be 0 (off) or above 1": self.dual_clip == 0
            or self.dual_clip > 1,
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses (C,) and token metrics (C,) by name, to be weighted and summed.

        Raises ValueError without entropies.
        """
        if batch.entropies is None:
            raise ValueError("advantages and clips by entropy need the entropies of the tokens")
        places = entropy_places(batch.entropies, entropy_scale(batch.entropies, self.quantile))
        if self.places == "published":
            places = places.abs()
        ratio = (batch.logp.detach() - batch.logp_old).exp()
        advantages = batch.advantages
        if self.redistribute:
            advantages = self.redistributed(advantages, ratio, places)
        low, high = self.clips(places)
        losses, slopes, clipped = clipped_losses(
            ratio, advantages, 1 - low.to(ratio), 1 + high.to(ratio), self.dual_clip
        )
        metrics = {
            "kl_old": batch.logp_old - batch.logp.detach(),
            "clip_share": clipped,
            "undecided_share": (places > 0).float(),
        }
        return sloped(batch.logp, losses, slopes), metrics

    def redistributed(self, advantages: Tensor, ratio: Tensor, places: Tensor) -> Tensor:
        """Advantages (C,) after part C."""
        inside = (ratio >= 1 - self.clip_low / 2) & (ratio <= 1 + self.clip_high / 2)
        return torch.where((places > 0) != inside, advantages * (1 + places), advantages)

    def clips(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper clip of each token, (C,) twice, after part D."""
        widen = places if self.widen else torch.zeros_like(places)
        return self.clip_low * (1 - widen.clamp(max=0)), self.clip_high * (1 + widen.clamp(min=0))
