"""The table of a plan, as text for a terminal."""

from collections.abc import Mapping
from typing import Any

from optpo.reporting.formatting import NOTHING, decimal, percent
from optpo.reporting.text_table import as_text, text_table


def plan_table(plan: Mapping[str, Any]) -> str:
    """The rules of a plan with what they cost, the best of them, and the bounds."""
    title = (
        f"at most {percent(plan['target_error'])} of decided labels wrong, floor {plan['floor']}, "
        f"cap {plan['cap']}: levels chosen on {plan['chosen_on']} questions, measured on "
        f"{plan['measured_on']} others"
    )
    cells = [
        (
            row["rule"],
            *_with_interval(row, "mean_votes", decimal),
            *_with_interval(row, "error", percent),
            *_with_interval(row, "undecided", percent),
            row["target"],
        )
        for row in plan["rows"]
    ]
    heads = ("rule", "votes", "interval", "error", "interval", "undecided", "interval", "target")
    return as_text(
        [
            text_table(title, heads, cells),
            _best_of(plan),
            "The least mean votes that can err so rarely on every single one of these questions, "
            f"none undecided: {decimal(plan['least_votes_for_these_shapes'])};",
            "and on any question, whatever the shares of its answers: "
            f"{decimal(plan['least_votes_for_all_shapes'])}.",
        ]
    )


def _best_of(plan: Mapping[str, Any]) -> str:
    """The rule to take, or why there is none."""
    if plan["best"]:
        return (
            f"The fewest votes of those that kept it: {plan['best']} "
            f"(at floor {plan['floor']} and cap {plan['cap']})"
        )
    least = plan["least_error_shown"]
    if plan["target_error"] < least:
        return (
            f"With {plan['chosen_on']} questions to choose on, no error below {percent(least)} can "
            "be told from luck: record more questions, or plan for that."
        )
    return "No rule reached it and kept it; it may take more votes."


def _with_interval(row: Mapping[str, Any], name: str, written: Any) -> tuple[str, str]:
    if row[name] is None:
        return NOTHING, NOTHING
    return written(row[name]), f"{written(row[f'{name}_low'])} to {written(row[f'{name}_high'])}"
