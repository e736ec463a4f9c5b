"""The figures a run ends with."""

from typing import Any

from optpo.training.ledger import Ledger
from optpo.training.run_directory import RunDirectory
from optpo.training.settings import RunSettings


def summarise(
    settings: RunSettings, ledger: Ledger, steps: int, questions: int, directory: RunDirectory
) -> dict[str, Any]:
    """summary.json: tokens and seconds over the whole run, accuracies null where nothing judges them.

    Verdicts and label accuracy are there where votes reward, and not where a verifier does.
    `tokens_generated` counts what was sampled to vote and train; evaluation and audit stand apart.
    """
    rows = directory.rows("evaluations.jsonl")

    def at(which: int, of: str, name: str) -> float | None:
        chosen = [row.get(name) for row in rows if row["set"] == of]
        return chosen[which] if chosen else None

    judged, votes_count = ledger.labels_judged, not settings.learns_from_gold
    return {
        "recipe": settings.recipe,
        "model": settings.model.name or "embedded",
        "seed": settings.seed,
        "steps": steps,
        "steps_trained": ledger.steps_trained,
        "questions": questions,
        "accuracy_before": at(0, "adapt", "mean"),
        "accuracy_after": at(-1, "adapt", "mean"),
        "majority_before": at(0, "adapt", "majority"),
        "majority_after": at(-1, "adapt", "majority"),
        "passed_before": at(0, "adapt", "passed"),
        "passed_after": at(-1, "adapt", "passed"),
        "unseen_accuracy_before": at(0, "unseen", "mean"),
        "unseen_accuracy_after": at(-1, "unseen", "mean"),
        "unseen_majority_before": at(0, "unseen", "majority"),
        "unseen_majority_after": at(-1, "unseen", "majority"),
        "unseen_passed_before": at(0, "unseen", "passed"),
        "unseen_passed_after": at(-1, "unseen", "passed"),
        "label_accuracy": ledger.labels_right / judged if judged and votes_count else None,
        "verdicts": ledger.verdicts if votes_count else {},
        "zero_variance_groups": ledger.zero_variance_groups,
        "questions_rested": ledger.questions_rested,
        "votes_carried": ledger.votes_carried,
        "rollouts": ledger.rollouts,
        "rollouts_kept": ledger.rollouts_kept,
        "rollouts_cancelled": ledger.rollouts_cancelled,
        "tokens_generated": ledger.tokens,
        "tokens_kept": ledger.tokens_kept,
        "tokens_cancelled": ledger.tokens_cancelled,
        "tokens_prefill": ledger.tokens_prefill,
        "tokens_baseline": ledger.tokens_baseline,
        "tokens_evaluation": ledger.tokens_evaluation,
        "tokens_audit": ledger.tokens_audit,
        "fixed_budget_tokens": ledger.fixed_budget_tokens,
        "seconds": ledger.seconds,
        "seconds_sampling": ledger.seconds_sampling,
        "seconds_update": ledger.seconds_update,
        "slot_seconds": ledger.slot_seconds,
        "slot_seconds_idle": ledger.slot_seconds_idle,
        "slot_occupancy": ledger.slot_occupancy,
    }
