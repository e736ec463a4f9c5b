"""What a run may remember of each question's rewards from one visit to the next."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.needs import Need

Notes = Mapping[str, float]
"""What is remembered of a question, or of the run as a whole, by name; JSON can write it."""


class Memory(Protocol):
    """Notes that are saved with every checkpoint and keyed by the question's id."""

    @property
    def gives(self) -> frozenset[Need]:
        """What it offers to the other parts."""
        ...

    @property
    def initial_rollouts(self) -> int:
        """Rollouts of every question that are sampled before the first step to begin with; 0: none."""
        ...

    @property
    def forgets(self) -> bool:
        """Whether it wants to know how far the policy has moved, so as to discount the past."""
        ...

    def begin(self, rewards: Sequence[float]) -> dict[str, float]:
        """A question's first notes, by the rewards of its initial rollouts."""
        ...

    def recall(self, past: Sequence[Notes], run: Notes) -> dict[str, Tensor]:
        """`question_values` (G,) float32 by name, as they are before a step's rewards.

        `past` are the questions' notes in the order of the batch, empty for one never visited.
        """
        ...

    def remember(
        self,
        past: Sequence[Notes],
        run: Notes,
        batch: RolloutBatch,
        rewards: Tensor,
        drifts: Sequence[float | None],
    ) -> tuple[list[dict[str, float]], dict[str, float]]:
        """The new notes of every question, and of the run, after a step's update.

        `rewards` (R,) are those before any shaping, not a number where there are none. `drifts`, nats a
        token, say how far the policy has moved on each question since its last visit, None where it
        was not visited or nobody asked (see `forgets`).
        """
        ...
