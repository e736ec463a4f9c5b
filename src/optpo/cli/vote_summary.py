"""What `optpo vote` writes beside the verdicts: rollouts, recorded votes, and how it went."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optpo.data import Question
    from optpo.rollout import Rollout
    from optpo.sampling.ballot import Ballot
    from optpo.sampling.budgeted import Budget
    from optpo.sampling.occupancy import Occupancy
    from optpo.sampling.voter import Voter
    from optpo.voting import StoppingRule


def rollout_line(rollout: "Rollout") -> dict[str, Any]:
    """A rollout that was counted; the engine `recorded` reads it again."""
    return {
        "prompt_id": rollout.prompt_id,
        "index": rollout.index,
        "version": rollout.version,
        "answer": rollout.answer,
        "finish": rollout.finish,
        "tokens": list(rollout.tokens),
        "logps": list(rollout.logps),
        "text": rollout.text,
    }


def recorded_votes(
    voter: "Voter", ballot: "Ballot", gold: str | None, model: str
) -> dict[str, Any]:
    """One question's votes as `optpo replay` reads them: equal answers are written alike."""
    labels, votes = ballot.classes.labels, ballot.tally.votes
    row: dict[str, Any] = {
        "id": ballot.prompt_id,
        "model": model,
        "answers": ["" if vote < 0 else labels[vote] for vote in votes],
        "tokens": [len(rollout.tokens) for rollout in ballot.rollouts],
    }
    if gold is None:
        return row
    right = [voter.correct(label, gold) for label in labels]
    return row | {"gold": gold, "correct": [vote >= 0 and right[vote] for vote in votes]}


def summarise(
    voter: "Voter",
    ballots: "Sequence[Ballot]",
    questions: "Sequence[Question]",
    rule: "StoppingRule",
    budget: "Budget | None",
    occupancy: "Occupancy",
) -> dict[str, Any]:
    """The vote as a whole; tokens are sampled ones, seconds those of this call."""
    gold = {question.id: question.gold for question in questions}
    right = {
        ballot.prompt_id: voter.correct(ballot.leading, known)
        for ballot in ballots
        if (known := gold[ballot.prompt_id]) is not None
    }
    judged = [
        right[ballot.prompt_id]
        for ballot in ballots
        if ballot.decided and ballot.prompt_id in right
    ]
    rollouts = sum(ballot.tally.total for ballot in ballots)
    tokens = sum(ballot.tokens for ballot in ballots)
    cancelled = sum(ballot.cancelled_tokens for ballot in ballots)
    kinds = [ballot.decision.kind for ballot in ballots if ballot.decision is not None]
    return {
        "questions": len(ballots),
        "refused": sum(ballot.error is not None for ballot in ballots),
        "verdicts": dict(Counter(kind for kind in kinds if kind is not None)),
        "rollouts": rollouts,
        "rollouts_at_cap": rule.cap * len(ballots),
        "unfinished": sum(r.finish == "length" for ballot in ballots for r in ballot.rollouts),
        "tokens": tokens,
        "tokens_cancelled": cancelled,
        "tokens_lost": voter.engine.lost_tokens,
        "tokens_prefill": voter.engine.prefill_tokens,
        "mean_length": tokens / rollouts if rollouts else None,
        # If lengths are geometric, what was cut off by a cancellation biases this one less.
        "mean_length_with_cancelled": (tokens + cancelled) / rollouts if rollouts else None,
        "label_accuracy": sum(judged) / len(judged) if judged else None,
        "leading_accuracy": sum(right.values()) / len(right) if right else None,
        "budget": None if budget is None else _under_budget(budget, ballots, rule),
        "seconds": occupancy.seconds,
        "slot_occupancy": occupancy.share,
    }


def _under_budget(
    budget: "Budget", ballots: "Sequence[Ballot]", rule: "StoppingRule"
) -> dict[str, Any]:
    costs = {
        "tokens": sum(ballot.tokens + ballot.cancelled_tokens for ballot in ballots),
        "votes": sum(ballot.tally.total + ballot.cancelled_rollouts for ballot in ballots),
    }
    cut = [ballot for ballot in ballots if not rule.decide(ballot.tally).stop]
    return {budget.unit: budget.amount, "spent": costs[budget.unit], "cut_short": len(cut)}


def in_words(summary: Mapping[str, Any]) -> str:
    """The summary as a sentence."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in summary["verdicts"].items())
    accuracy = summary["label_accuracy"]
    known = "" if accuracy is None else f"; {accuracy:.1%} of the labels that can be checked right"
    if budget := summary["budget"]:
        known = f"; the budget cut {budget['cut_short']} questions short{known}"
        if (leading := summary["leading_accuracy"]) is not None:
            known += f"; {leading:.1%} of all leading answers right"
    if summary["refused"]:
        kinds += f", {summary['refused']} refused"
    return (
        f"{summary['questions']} questions: {kinds}; {summary['rollouts']} rollouts "
        f"(cap {summary['rollouts_at_cap']}), {summary['tokens']} tokens{known}"
    )
