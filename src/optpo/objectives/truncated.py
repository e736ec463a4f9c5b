"""The policy gradient with truncated importance weights."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.objectives.aggregate import Aggregate
from optpo.objectives.token_batch import TokenBatch


@dataclass(frozen=True)
class TruncatedObjective:
    """-sg(clip(w, 1 - clip_low, 1 + clip_high)) A logp: CISPO (2506.13585, equation 4).

    Unlike a clipped ratio no token loses its gradient. `clip_low` 1 is no lower bound, as in the
    paper's runs; both at 0 is plain REINFORCE. TRL's `epsilon_high` is the bound 1 + clip_high.
    """

    clip_low: float = 1.0
    clip_high: float = 4.0
    aggregate: Aggregate = "token-mean"

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        checks = {
            f"clip_low is {self.clip_low}; it must lie between 0 and 1": 0 <= self.clip_low <= 1,
            f"clip_high is {self.clip_high}; it must be 0 or more": self.clip_high >= 0,
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses (C,) and token metrics (C,) by name, to be weighted and summed."""
        gone = batch.logp_old - batch.logp.detach()
        ratio = (-gone).exp_()
        weight = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        metrics = {"kl_old": gone, "clip_share": ratio.ne_(weight)}
        return weight.mul_(batch.advantages).neg_() * batch.logp, metrics
