"""mean@k, pass@k and maj@k of a run, before and after, with their intervals."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from optpo.reporting.run_data import Row, RunData, number

_SETS = {"adapt": "adapted questions", "unseen": "unseen questions"}


@dataclass(frozen=True)
class AccuracyRow:
    """One measure on one set of questions; low and high are those of the last measurement."""

    questions: str
    measure: str
    before: float | None
    after: float | None
    low: float | None
    high: float | None


def accuracy_rows(run: RunData) -> tuple[AccuracyRow, ...]:
    """What the first and the last evaluation of each set found; none where nothing was measured."""
    found = []
    for name, questions in _SETS.items():
        rows = [row for row in run.evaluations if row.get("set") == name]
        if not rows:
            continue
        first, last = dict(_estimates(rows[0])), dict(_estimates(rows[-1]))
        for measure, (value, low, high) in last.items():
            before, _, _ = first.get(measure, (None, None, None))
            after = value if len(rows) > 1 else None
            found.append(AccuracyRow(questions, measure, before, after, low, high))
    return tuple(found)


_Estimate = tuple[float | None, float | None, float | None]


def _estimates(row: Row) -> Iterator[tuple[str, _Estimate]]:
    samples = number(row, "samples")
    many = "k" if samples is None else f"{samples:.0f}"
    yield f"mean@{many}", _estimate(row, "mean", "mean_low", "mean_high")
    for name, key in (("pass", "passes"), ("maj", "majorities")):
        by_k = row.get(key)
        for k, estimate in by_k.items() if isinstance(by_k, Mapping) else ():
            if isinstance(estimate, Mapping):
                yield f"{name}@{k}", _estimate(estimate, "value", "low", "high")
    if not row.get("passes"):
        if number(row, "passed") is not None:
            yield f"pass@{many}", _estimate(row, "passed", "passed_low", "passed_high")
        yield f"maj@{many}", _estimate(row, "majority", "majority_low", "majority_high")


def _estimate(row: Row, value: str, low: str, high: str) -> _Estimate:
    return number(row, value), number(row, low), number(row, high)
