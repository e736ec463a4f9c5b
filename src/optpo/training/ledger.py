"""What a run has spent so far, and what the fixed budget would have cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from optpo.sampling.ballot import Ballot

FIXED_BUDGET_VOTES = 64
"""The votes a question that test-time reinforcement learning spends (TTRL, 2504.16084)."""


@dataclass
class Ledger:
    """Running totals over steps; tokens are completion tokens.

    `tokens` were sampled to vote and train, of which `tokens_kept` were trained on; cancelled ones
    come on top, and so do prompt tokens that were computed (`tokens_prefill`). `slot_seconds` are
    seconds of sampling times slots of the engine, `slot_seconds_idle` those in which a slot stood
    empty. Evaluation and audit are counted apart. Seconds are over all sittings of a run; those
    of sampling are what steps waited for it, which is less than it took where it overlaps the update.
    """

    rollouts: int = 0
    rollouts_kept: int = 0
    rollouts_cancelled: int = 0
    tokens: int = 0
    tokens_kept: int = 0
    tokens_cancelled: int = 0
    tokens_prefill: int = 0
    tokens_baseline: int = 0
    questions_rested: int = 0
    votes_carried: float = 0.0
    tokens_evaluation: int = 0
    tokens_audit: int = 0
    fixed_budget_tokens: int = 0
    labels_judged: int = 0
    labels_right: int = 0
    seconds: float = 0.0
    seconds_sampling: float = 0.0
    seconds_update: float = 0.0
    slot_seconds: float = 0.0
    slot_seconds_idle: float = 0.0
    steps_trained: int = 0
    held_back_in_a_row: int = 0
    zero_variance_groups: int = 0
    verdicts: dict[str, int] = field(
        default_factory=lambda: {"decided": 0, "capped": 0, "tied": 0, "empty": 0}
    )

    @property
    def tokens_spent(self) -> int:
        """Tokens sampled to vote, to compare with and to train, cancelled ones among them."""
        return self.tokens + self.tokens_cancelled + self.tokens_baseline

    def add_step(self, row: Mapping[str, Any]) -> None:
        """Count a step by its metrics row."""
        for name in (
            "rollouts", "rollouts_kept", "rollouts_cancelled", "tokens", "tokens_kept",
            "tokens_cancelled", "tokens_audit", "fixed_budget_tokens", "labels_judged",
            "labels_right", "zero_variance_groups", "questions_rested", "votes_carried",
            "seconds_sampling", "seconds_update", "slot_seconds", "slot_seconds_idle",
            "tokens_prefill", "tokens_baseline",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + row[name])
        self.steps_trained += row["loss"] is not None
        held_back = bool(row["guards"]) and row["loss"] is None
        self.held_back_in_a_row = self.held_back_in_a_row + 1 if held_back else 0
        for kind, count in row["verdicts"].items():
            self.verdicts[kind] += count

    @property
    def slot_occupancy(self) -> float | None:
        """The mean share of the engine's slots in use while sampling; None before any was."""
        return 1 - self.slot_seconds_idle / self.slot_seconds if self.slot_seconds else None

    def to_json(self) -> dict[str, object]:
        """All totals."""
        return asdict(self)


def fixed_budget_tokens(ballots: Sequence[Ballot]) -> int:
    """What 64 votes a question would have cost, estimated from each question's mean length."""
    return round(
        sum(FIXED_BUDGET_VOTES * ballot.tokens / len(ballot.rollouts) for ballot in ballots)
    )
