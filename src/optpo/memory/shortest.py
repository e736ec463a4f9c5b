"""The length of the shortest right answer to each question so far."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, segment_sum
from optpo.memory.protocol import Notes
from optpo.needs import Need


@dataclass(frozen=True)
class ShortestMemory:
    """HAPO's length record (history-aware, 2505.11225): tokens of a question's shortest right rollout.

    Right means a reward above 0. `mode` "mean" keeps the mean length of all right rollouts instead.
    Each question's record comes from its own rollouts, in any order (in the published PPO trainer a
    loop variable gives those of a whole batch to its last question).
    """

    mode: Literal["min", "mean"] = "min"

    gives: ClassVar[frozenset[Need]] = frozenset({"shortest"})
    initial_rollouts: ClassVar[int] = 0
    forgets: ClassVar[bool] = False

    def begin(self, rewards: Sequence[float]) -> dict[str, float]:
        """No record."""
        return {}

    def recall(self, past: Sequence[Notes], run: Notes) -> dict[str, Tensor]:
        """Each question's record as "shortest", (G,) float32 tokens; infinite where there is none."""
        return {"shortest": torch.tensor([notes.get("shortest", math.inf) for notes in past])}

    def remember(
        self,
        past: Sequence[Notes],
        run: Notes,
        batch: RolloutBatch,
        rewards: Tensor,
        drifts: Sequence[float | None],
    ) -> tuple[list[dict[str, float]], dict[str, float]]:
        """Records after the visit."""
        right, count = rewards > 0, batch.group_count
        lengths, groups = batch.lengths[right].double(), batch.groups[right]
        before = torch.tensor(
            [notes.get("shortest", math.inf) for notes in past], dtype=torch.float64
        )
        answers = torch.tensor([notes.get("answers", 0.0) for notes in past], dtype=torch.float64)
        after = answers + segment_sum(torch.ones_like(lengths), groups, count)
        if self.mode == "min":
            records = before.scatter_reduce(0, groups, lengths, "amin")
        else:
            total = torch.where(answers > 0, before * answers, 0)
            records = (total + segment_sum(lengths, groups, count)) / after
        notes = [
            {"shortest": record, "answers": number} if number else {}
            for record, number in zip(records.tolist(), after.tolist(), strict=True)
        ]
        return notes, dict(run)
