"""What is said about a run in words: its settings, steps, evaluations and summary."""

from collections.abc import Mapping
from typing import Any

from optpo.reporting.formatting import (
    NOTHING,
    amount,
    decimal,
    duration,
    one_line,
    percent,
    points,
    saving,
)
from optpo.reporting.overview import tokens_spent
from optpo.reporting.run_data import Row, number

_KINDS = ("decided", "capped", "tied", "empty")


def summary_lines(summary: Row) -> list[str]:
    """Return a run's summary for people, one fact a line; what was not measured is left out."""
    lines = [facts(summary, ("recipe", "model", "seed", "steps", "questions"))]
    steps, trained = number(summary, "steps"), number(summary, "steps_trained")
    if steps is not None and trained is not None and trained < steps:
        lines.append(f"{'steps trained on:':<30}{trained:.0f} of {steps:.0f}")
    for label, name in (
        ("accuracy, adapted questions", "accuracy"),
        ("  their majority vote", "majority"),
        ("  any of their rollouts", "passed"),
        ("accuracy, unseen questions", "unseen_accuracy"),
        ("  their majority vote", "unseen_majority"),
        ("  any of their rollouts", "unseen_passed"),
    ):
        before, after = number(summary, f"{name}_before"), number(summary, f"{name}_after")
        if before is not None or after is not None:
            change = f" ({points(before, after)})" if None not in (before, after) else ""
            lines.append(f"{label + ':':<30}{percent(before)} → {percent(after)}{change}")
    if (label_accuracy := number(summary, "label_accuracy")) is not None:
        lines.append(f"{'label accuracy:':<30}{percent(label_accuracy)}")
    verdicts = summary.get("verdicts")
    if isinstance(verdicts, Mapping) and verdicts:
        lines.append(f"{'verdicts:':<30}{_verdicts(verdicts)}")
    if rested := number(summary, "questions_rested"):
        lines.append(f"{'questions left to rest:':<30}{amount(rested)} visits")
    tokens = tokens_spent(summary)
    if tokens is not None:
        fixed = number(summary, "fixed_budget_tokens")
        against = f", {saving(tokens, fixed)} than 64 votes a question ({amount(fixed)})"
        lines.append(f"{'tokens:':<30}{amount(tokens)}{against if tokens and fixed else ''}")
    if (seconds := number(summary, "seconds")) is not None:
        sampling, update = number(summary, "seconds_sampling"), number(summary, "seconds_update")
        parts = f" (sampling {duration(sampling)}, update {duration(update)})"
        known = sampling is not None and update is not None
        lines.append(f"{'time:':<30}{duration(seconds)}{parts if known else ''}")
    return [line for line in lines if line]


def step_cells(row: Row) -> list[tuple[str, str]]:
    """Return a step's table row as (column, value) pairs."""
    tokens, fixed = number(row, "tokens_total"), number(row, "fixed_budget_tokens_total")
    verdicts, rested = row.get("verdicts"), number(row, "questions_rested")
    rest = f", {rested:.0f} at rest" if rested else ""
    first = [
        ("step", decimal(number(row, "step"), 0)),
        ("accuracy", percent(number(row, "accuracy"))),
    ]
    last = [
        ("entropy", decimal(number(row, "entropy"))),
        ("time", duration(number(row, "seconds"))),
    ]
    if number(row, "scored_share") is not None:
        reward = ("reward", decimal(number(row, "reward")))
        return [*first, reward, ("tokens", amount(tokens)), *last]
    return [
        *first,
        ("labels", percent(number(row, "label_accuracy"))),
        ("votes", decimal(number(row, "mean_votes"), 1)),
        ("tokens", amount(tokens)),
        ("of fixed", percent(tokens / fixed if tokens is not None and fixed else None)),
        ("verdicts", _verdicts(verdicts) + rest if isinstance(verdicts, Mapping) else NOTHING),
        *last,
    ]


def _verdicts(verdicts: Mapping[str, Any]) -> str:
    return " ".join(f"{one_line(kind)} {verdicts[kind]}" for kind in _KINDS if verdicts.get(kind))


def evaluation_text(row: Row) -> str:
    """Return one evaluation in a sentence."""
    samples = decimal(number(row, "samples"), 0)
    said = f"mean {_with_interval(row, 'mean')}, majority of {samples} {_with_interval(row, 'majority')}"
    if number(row, "passed") is not None:
        said += f", any of {samples} {_with_interval(row, 'passed')}"
    place = decimal(number(row, "step"), 0)
    return f"{one_line(row.get('set', ''))} questions after step {place}: {said}"


def _with_interval(row: Row, name: str) -> str:
    low, high = number(row, f"{name}_low"), number(row, f"{name}_high")
    interval = f" ({percent(low)} to {percent(high)})" if None not in (low, high) else ""
    return f"{percent(number(row, name))}{interval}"


def facts(settings: Row, names: tuple[str, ...]) -> str:
    """Return the named settings that are set, on one line."""
    return ", ".join(
        f"{one_line(name)} {one_line(settings[name])}"
        for name in names
        if settings.get(name) is not None
    )
