"""A price on rollouts that come near the length limit."""

from dataclasses import dataclass

from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.errors import SettingsError
from optpo.needs import Need


@dataclass(frozen=True)
class OverlongShape:
    """DAPO's soft overlong punishment (2503.14476, equation 13).

    Added to the reward of a rollout of L tokens is 0 up to limit - buffer, then falls linearly to
    -factor at `limit`, and stays there. `floored` false goes on falling behind it, as verl does:
    that matters only where rollouts may be longer than `limit`.

    Raises SettingsError for a buffer outside 1..limit, or a factor below 0.
    """

    limit: int = 20480
    buffer: int = 4096
    factor: float = 1.0
    floored: bool = True

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.buffer <= self.limit:
            problems.append(
                f"buffer is {self.buffer}; it must lie between 1 and limit {self.limit}"
            )
        if not 0 <= self.factor < float("inf"):
            problems.append(f"factor is {self.factor}; it must be 0 or more")
        if problems:
            raise SettingsError(problems)

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing beside the lengths."""
        return frozenset()

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Rewards (R,) in the dtype of `rewards`."""
        over = (batch.lengths - (self.limit - self.buffer)).clamp(min=0).to(rewards.dtype)
        if self.floored:
            over = over.clamp(max=self.buffer)
        return rewards - over / self.buffer * self.factor
