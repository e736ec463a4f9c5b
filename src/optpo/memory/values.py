"""A value for every question, which outlives the visit: the baseline of single-stream training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, segment_sum
from optpo.errors import SettingsError
from optpo.memory.protocol import Notes
from optpo.needs import Need
from optpo.voting import VoteTracker

_NOTHING_KNOWN = {"value": 0.5, "weight": 1.0, "least": 0.0, "greatest": 1.0}
"""One visit's worth of not knowing, as the published code begins without offline rollouts."""


@dataclass(frozen=True)
class ValueMemory:
    """SPO's value tracker (single-stream, 2509.13232).

    A question has a value v and a weight N, how many rewards it stands for. After a visit with n
    rewards N <- rho N + n and v is their weighted mean: for rewards of 0 and 1 that is the Beta form
    with alpha = N v and beta = N (1 - v), for others the paper's scalar form. A question that brings
    n rollouts brings all n; one without rewards stays as it was. Beside that are noted its least and
    greatest reward, or 0 and 1 where those lie further out: `PrioritizedPrompts` reads the value
    between them.

    rho is what `VoteTracker` keeps: 2^(-drift / half_drift) between `least_kept` and `most_kept`. Equal
    limits give the paper's constant rho, and then no drift is measured. At a first visit there is
    no drift and rho is `most_kept`, as in the published code; `first_kept` "all" keeps all.

    A question begins with the mean of its initial rollouts at weight N0 = 1 / (1 - least_kept);
    `smoothed` adds half a success and half a failure to that mean, as the published code does (which
    divides by `initial_rollouts` even where a question has fewer; here by its own number). Without
    any it begins at .5 with weight 1.

    The published code keeps its tracker out of checkpoints; notes are in ours.

    Raises SettingsError for settings out of range, those of `VoteTracker` included.
    """

    half_drift: float = 0.06
    least_kept: float = 0.875
    most_kept: float = 0.96
    first_kept: Literal["most", "all"] = "most"
    initial_rollouts: int = 8
    smoothed: bool = False

    def __post_init__(self) -> None:
        problems = []
        try:
            self._forgetting()
        except SettingsError as error:
            problems += error.problems
        if type(self.initial_rollouts) is not int or self.initial_rollouts < 0:
            problems.append(
                f"initial_rollouts is {self.initial_rollouts}; it must be 0 (none) or more"
            )
        if problems:
            raise SettingsError(problems)

    @property
    def gives(self) -> frozenset[Need]:
        """The tracked value."""
        return frozenset({"tracked"})

    @property
    def forgets(self) -> bool:
        """Unless the same share is kept whatever the policy did."""
        return self.least_kept < self.most_kept

    def begin(self, rewards: Sequence[float]) -> dict[str, float]:
        """A question's value before its first visit, from its initial rewards."""
        if not rewards:
            return dict(_NOTHING_KNOWN)
        total, count = sum(rewards), len(rewards)
        mean = (total + 0.5) / (count + 1) if self.smoothed else total / count
        least, greatest = min(0.0, *rewards), max(1.0, *rewards)
        weight = 1 / (1 - self.least_kept)
        return {"value": mean, "weight": weight, "least": least, "greatest": greatest}

    def recall(self, past: Sequence[Notes], run: Notes) -> dict[str, Tensor]:
        """Each question's value as "tracked", (G,) float32."""
        return {"tracked": _noted(past, "value").float()}

    def remember(
        self,
        past: Sequence[Notes],
        run: Notes,
        batch: RolloutBatch,
        rewards: Tensor,
        drifts: Sequence[float | None],
    ) -> tuple[list[dict[str, float]], dict[str, float]]:
        """Values and weights after the visit."""
        given, groups = ~rewards.isnan(), batch.groups
        counts = segment_sum(given.double(), groups, batch.group_count)
        new, new_groups = rewards[given].double(), groups[given]
        sums = segment_sum(new, new_groups, batch.group_count)
        least = _noted(past, "least").scatter_reduce(0, new_groups, new, "amin")
        greatest = _noted(past, "greatest").scatter_reduce(0, new_groups, new, "amax")
        kept = [self._kept(notes, drift) for notes, drift in zip(past, drifts, strict=True)]
        before = torch.tensor(kept, dtype=torch.float64) * _noted(past, "weight")
        weights = before + counts
        values = (before * _noted(past, "value") + sums) / weights
        noted = torch.stack([values, weights, least, greatest], dim=1).tolist()
        notes = [
            {**dict(zip(_NOTHING_KNOWN, row, strict=True)), "visits": old.get("visits", 0) + 1}
            if count
            else dict(old)
            for old, row, count in zip(past, noted, counts.tolist(), strict=True)
        ]
        return notes, dict(run)

    def _kept(self, notes: Notes, drift: float | None) -> float:
        if drift is not None:
            return self._forgetting().kept(drift)
        first = not notes.get("visits", 0)
        return 1.0 if first and self.first_kept == "all" else self.most_kept

    def _forgetting(self) -> VoteTracker:
        return VoteTracker(self.most_kept, self.least_kept, self.half_drift)


def _noted(past: Sequence[Notes], name: str) -> Tensor:
    return torch.tensor(
        [notes.get(name, _NOTHING_KNOWN[name]) for notes in past], dtype=torch.float64
    )
