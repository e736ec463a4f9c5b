"""The few numbers a run is judged by, from its summary or, while it still runs, from its lines."""

from collections import Counter
from dataclasses import dataclass

from optpo.reporting.run_data import Row, RunData, number, total


@dataclass(frozen=True)
class Change:
    """A share before and after the run, with the interval of the last measurement where known."""

    before: float | None
    after: float | None
    low: float | None = None
    high: float | None = None

    @property
    def known(self) -> bool:
        """Whether at least one of the two was measured."""
        return self.before is not None or self.after is not None

    @property
    def direction(self) -> str:
        """`better` or `worse`, or `unclear` where the interval holds what was measured before."""
        if self.before is None or self.after is None:
            return "unclear"
        if self.after > self.before and (self.low is None or self.low > self.before):
            return "better"
        if self.after < self.before and (self.high is None or self.high < self.before):
            return "worse"
        return "unclear"


@dataclass(frozen=True)
class Ledger:
    """Where rollouts and tokens went: trained on, finished but not trained on, cancelled.

    Prompts, audits and evaluations stand apart; None where not counted. Visits that questions rested
    for, and votes carried over from earlier visits, cost nothing. `slot_occupancy` is the mean share
    of the engine's slots in use while sampling.
    """

    rollouts_kept: float
    rollouts_untrained: float
    rollouts_cancelled: float
    tokens_kept: float
    tokens_untrained: float
    tokens_cancelled: float
    tokens_prefill: float | None
    tokens_audit: float | None
    tokens_evaluation: float | None
    questions_rested: float | None
    votes_carried: float | None
    slot_occupancy: float | None

    @property
    def rollouts(self) -> float:
        """All rollouts started."""
        return self.rollouts_kept + self.rollouts_untrained + self.rollouts_cancelled

    @property
    def tokens(self) -> float:
        """All tokens generated for votes and training."""
        return self.tokens_kept + self.tokens_untrained + self.tokens_cancelled


@dataclass(frozen=True)
class KindOfVerdict:
    """The verdicts of one kind; `correct` is the share of leading answers that equal known gold."""

    kind: str
    count: int
    mean_votes: float | None
    mean_confidence: float | None
    correct: float | None


@dataclass(frozen=True)
class Overview:
    """A run in numbers; None where the run did not (or not yet) measure something."""

    finished: bool
    steps: int
    questions: int
    adapt: Change
    adapt_majority: Change
    unseen: Change
    unseen_majority: Change
    label_accuracy: float | None
    tokens: float | None
    fixed_budget_tokens: float | None
    seconds: float | None
    seconds_sampling: float | None
    seconds_update: float | None
    mean_votes: float | None
    ledger: Ledger | None
    kinds: tuple[KindOfVerdict, ...]


def overview(run: RunData) -> Overview:
    """Return the numbers of `run`."""
    summary, steps = run.summary, run.steps
    last: Row = steps[-1] if steps else {}
    seconds = _first(number(summary, "seconds"), total(steps, "seconds"))
    votes = [value for row in run.verdicts if (value := number(row, "rollouts")) is not None]
    return Overview(
        finished=bool(summary),
        steps=len(steps) or int(number(summary, "steps") or 0),
        questions=len(run.questions) or int(number(summary, "questions") or 0),
        adapt=_change(run, "adapt", "mean", "accuracy"),
        adapt_majority=_change(run, "adapt", "majority", "majority"),
        unseen=_change(run, "unseen", "mean", "unseen_accuracy"),
        unseen_majority=_change(run, "unseen", "majority", "unseen_majority"),
        label_accuracy=_first(number(summary, "label_accuracy"), _label_accuracy(run)),
        tokens=_first(number(last, "tokens_total"), tokens_spent(summary)),
        fixed_budget_tokens=_first(
            number(last, "fixed_budget_tokens_total"), number(summary, "fixed_budget_tokens")
        ),
        seconds=seconds,
        seconds_sampling=_first(
            number(summary, "seconds_sampling"), total(steps, "seconds_sampling")
        ),
        seconds_update=_first(number(summary, "seconds_update"), total(steps, "seconds_update")),
        mean_votes=sum(votes) / len(votes) if votes else None,
        ledger=_ledger(run),
        kinds=_kinds(run),
    )


def tokens_spent(summary: Row) -> float | None:
    """Return the tokens of votes and training with those cancelled, which the summary adds last."""
    tokens = number(summary, "tokens_generated")
    return None if tokens is None else tokens + (number(summary, "tokens_cancelled") or 0.0)


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _change(run: RunData, set_name: str, measure: str, summary_name: str) -> Change:
    rows = [row for row in run.evaluations if row.get("set") == set_name]
    before = number(rows[0], measure) if rows else None
    after = number(rows[-1], measure) if len(rows) > 1 else None
    low = number(rows[-1], "mean_low") if len(rows) > 1 and measure == "mean" else None
    high = number(rows[-1], "mean_high") if len(rows) > 1 and measure == "mean" else None
    return Change(
        before=_first(number(run.summary, f"{summary_name}_before"), before),
        after=_first(number(run.summary, f"{summary_name}_after"), after),
        low=low,
        high=high,
    )


def _label_accuracy(run: RunData) -> float | None:
    return _correct(tuple(row for row in run.verdicts if row.get("kind") == "decided"))


def _correct(verdicts: tuple[Row, ...]) -> float | None:
    known = [row["correct"] for row in verdicts if isinstance(row.get("correct"), bool)]
    return sum(known) / len(known) if known else None


def _ledger(run: RunData) -> Ledger | None:
    steps = run.steps
    if total(steps, "tokens") is None:
        return None
    rollouts = total(steps, "rollouts") or 0.0
    rollouts_kept = total(steps, "rollouts_kept") or 0.0
    offered = total(steps, "slot_seconds")
    return Ledger(
        rollouts_kept=rollouts_kept,
        rollouts_untrained=max(0.0, rollouts - rollouts_kept),
        rollouts_cancelled=total(steps, "rollouts_cancelled") or 0.0,
        tokens_kept=total(steps, "tokens_kept") or 0.0,
        tokens_untrained=total(steps, "tokens_untrained") or 0.0,
        tokens_cancelled=total(steps, "tokens_cancelled") or 0.0,
        tokens_prefill=total(steps, "tokens_prefill"),
        tokens_audit=total(steps, "tokens_audit"),
        tokens_evaluation=number(run.summary, "tokens_evaluation"),
        questions_rested=total(steps, "questions_rested"),
        votes_carried=total(steps, "votes_carried"),
        slot_occupancy=1 - (total(steps, "slot_seconds_idle") or 0.0) / offered
        if offered
        else None,
    )


def _kinds(run: RunData) -> tuple[KindOfVerdict, ...]:
    usual = ("decided", "capped", "tied", "empty")
    counts = Counter(str(row.get("kind")) for row in run.verdicts)
    others = sorted(kind for kind in counts if kind not in usual)
    return tuple(_kind(run, kind) for kind in (*usual, *others) if counts[kind])


def _kind(run: RunData, kind: str) -> KindOfVerdict:
    rows = tuple(row for row in run.verdicts if str(row.get("kind")) == kind)
    votes = total(rows, "rollouts")
    confidence = total(rows, "confidence")
    return KindOfVerdict(
        kind=kind,
        count=len(rows),
        mean_votes=None if votes is None else votes / len(rows),
        mean_confidence=None if confidence is None else confidence / len(rows),
        correct=_correct(rows),
    )
