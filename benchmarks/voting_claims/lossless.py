"""Claim 2: curtailment changes no label, and the predictive rule no more than it says.

A label differs where the vote up to the cap, in the same order, ends with another one or with a tie.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table
from scipy.stats import binomtest

from optpo.voting import CurtailedRule, FixedRule, PredictiveRule, Tallies, calibration_bins
from optpo.voting.recorded import RecordedVotes
from optpo.voting.replay import Outcomes, replay
from optpo.voting.tally import Integers

ERRORS = (0.2, 0.1, 0.05, 0.02, 0.01)


def on_recorded(
    file: str, questions: Sequence[RecordedVotes], cap: int, orders: int, seed: int
) -> list[dict[str, Any]]:
    """A row for curtailment, whatever becomes of ties, and for every level of the predictive rule."""
    rules = {
        "full": FixedRule(cap, at_cap="first"),
        "full, ties open": FixedRule(cap, at_cap="leader"),
        "curtailed": CurtailedRule(at_cap="first"),
        "curtailed, ties open": CurtailedRule(at_cap="leader"),
    } | {f"predictive {error:g}": PredictiveRule(error, at_cap="leader") for error in ERRORS}
    outcomes = replay(questions, [*rules.values()], cap=cap, orders=orders, seed=seed)
    found = dict(zip(rules, outcomes, strict=True))
    rows = []
    for name in ("curtailed", "curtailed, ties open"):
        full = found[name.replace("curtailed", "full")]
        row = row_of(file, name, 0.0, found[name], full)
        # A label that one has and the other has not differs too.
        row["differing"] += int((full.decided & ~found[name].decided).sum())
        rows.append(row)
    for error in ERRORS:
        name = f"predictive {error:g}"
        rows.append(row_of(file, name, error, found[name], found["full, ties open"]))
    return rows


def differs(outcomes: Outcomes, full: Outcomes) -> Any:
    """Whether a decided label is not that of the full vote."""
    return outcomes.decided & ~(outcomes.agrees_at_cap & full.decided)


def row_of(
    file: str, rule: str, error: float, outcomes: Outcomes, full: Outcomes
) -> dict[str, Any]:
    """Labels that differ, their share with its exact interval over questions, and what is saved."""
    decided, different = outcomes.decided, differs(outcomes, full)
    asked = np.nonzero(decided)[0].tolist()
    whole = calibration_bins(
        np.ones(len(asked)), ~different[decided], asked, edges=(0.0, 1.0), method="exact"
    )[0]
    return {
        "file": file,
        "rule": rule,
        "level": error,
        "labels": int(decided.sum()),
        "differing": int(different.sum()),
        "share": 1 - whole.observed,
        "low": 1 - whole.interval_high,
        "high": 1 - whole.interval_low,
        "saved": float(1 - outcomes.votes.mean() / outcomes.cap),
    }


def missed(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Targets not reached."""
    lines = []
    for row in rows:
        place = f"{row['file']}, {row['rule']}"
        if row["level"] == 0 and row["differing"]:
            lines.append(f"{place}: {row['differing']} labels differ, the target is none")
        elif row["low"] > row["level"]:
            lines.append(f"{place}: {row['low']:.4f} or more differ, the target is {row['level']}")
        if row["rule"] == "curtailed" and "aime" in row["file"] and row["saved"] < 0.35:
            lines.append(f"{place}: saves {row['saved']:.3f}, the target is 0.35")
    return lines


def on_its_own_model(streams: int, cap: int) -> list[dict[str, Any]]:
    """The same on votes drawn from the model that the predictive rule assumes."""
    rule = PredictiveRule(cap=cap)
    tallies = Tallies(draw(streams, cap, rule.concentration, np.random.default_rng(0)))
    rows = []
    for error in ERRORS:
        decisions = PredictiveRule(error, cap=cap).decide_many(tallies)
        end, each = decisions.first_stop, np.arange(streams)
        decided = decisions.decided[each, end]
        same = tallies.leader[each, end] == tallies.leader[:, -1]
        wrong, labels = int((decided & ~(same & ~tallies.tied[:, -1])).sum()), int(decided.sum())
        found = binomtest(wrong, labels).proportion_ci()
        rows.append(
            {
                "file": "its own model",
                "rule": f"predictive {error:g}",
                "level": error,
                "labels": labels,
                "differing": wrong,
                "share": wrong / labels,
                "low": float(found.low),
                "high": float(found.high),
                "saved": float(1 - end.mean() / cap),
            }
        )
    return rows


def draw(streams: int, votes: int, new: float, generator: np.random.Generator) -> Integers:
    """(streams, votes): each vote repeats an earlier one, or is something new with weight `new`."""
    drawn = np.zeros((streams, votes), dtype=np.int64)
    each = np.arange(streams)
    for n in range(1, votes):
        place = generator.random(streams) * (n + new)
        repeated = drawn[each, np.minimum(place.astype(np.int64), n - 1)]
        drawn[:, n] = np.where(place < n, repeated, drawn[:, :n].max(axis=1) + 1)
    return drawn


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Everything, a row each."""
    shown = Table("votes", "rule", "labels", "differ", "share [95 % exact]", "level", "saved")
    for row in rows:
        shown.add_row(
            row["file"],
            row["rule"],
            f"{row['labels']:,}",
            f"{row['differing']:,}",
            f"{100 * row['share']:.2f} % [{100 * row['low']:.2f}, {100 * row['high']:.2f}]",
            f"{100 * row['level']:g} %",
            f"{100 * row['saved']:.1f} %",
        )
    return shown
