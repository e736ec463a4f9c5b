"""A price on rollouts that come near the length limit."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.errors import SettingsError
from optpo.needs import Need


@dataclass(frozen=True)
class OverlongShape:
    """DAPO's soft overlong punishment (2503.14476, equation 13).

    Added to the reward of a rollout of L tokens is 0 up to limit - buffer, then falls linearly to
    -factor at `limit`, and stays there. A limit of 0 is the most tokens that a completion may have,
    a buffer of 0 a fifth of the limit (the paper's 4096 of 20480). `floored` false goes on falling
    behind the limit, as verl does: that matters only where rollouts may be longer than `limit`.

    Raises SettingsError for a limit, buffer or factor below 0, or a buffer above the limit: where the
    batch gives the limit, when it is called.
    """

    limit: int = 0
    buffer: int = 0
    factor: float = 1.0
    floored: bool = True

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        problems = []
        if self.limit < 0:
            problems.append(f"limit is {self.limit}; it must be 0 (the longest completion) or more")
        if self.buffer < 0:
            problems.append(f"buffer is {self.buffer}; it must be 0 (a fifth of limit) or more")
        elif 0 < self.limit < self.buffer:
            problems.append(_too_wide(self.buffer, self.limit))
        if not 0 <= self.factor < float("inf"):
            problems.append(f"factor is {self.factor}; it must be 0 or more")
        if problems:
            raise SettingsError(problems)

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Rewards (R,) in the dtype of `rewards`.

        Raises ValueError where neither `limit` nor the batch says how long a completion may be.
        """
        limit = batch.length_limit(self.limit)
        buffer = self.buffer or max(limit // 5, 1)
        if buffer > limit:
            raise SettingsError([_too_wide(buffer, limit)])
        over = (batch.lengths - (limit - buffer)).clamp(min=0).to(rewards.dtype)
        if self.floored:
            over = over.clamp(max=buffer)
        return rewards - over / buffer * self.factor


def _too_wide(buffer: int, limit: int) -> str:
    return f"buffer is {buffer}; it must not be above limit {limit}"
