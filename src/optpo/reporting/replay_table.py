"""The tables of a replay, as text for a terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optpo.reporting.formatting import amount, decimal, percent
from optpo.reporting.text_table import as_text, text_table

if TYPE_CHECKING:
    from rich.table import Table

_CLAIMS = {
    None: "claims nothing about errors",
    "mode": "claims the mode; an error is a label that is not the most frequent recorded answer",
    "full vote": "claims the full vote; an error is a label that is not that of the cap, same order",
}
"""What a rule claims, and what that is held against."""


def replay_tables(rows: Sequence[Mapping[str, Any]], orders: int) -> str:
    """The rows of a replay, a table for each file."""
    tables = []
    for file in dict.fromkeys(row["file"] for row in rows):
        mine = [row for row in rows if row["file"] == file]
        budget = f"floor {mine[0]['floor']}, cap {mine[0]['cap']}"
        title = f"{file}: {mine[0]['questions']} questions in {orders} orders, {budget}"
        cells = [
            (
                row["rule"],
                decimal(row["mean_votes"]),
                percent(row["agreement"]),
                percent(row["accuracy"]),
                percent(row["undecided"]),
                percent(row["decided_agreement"]),
                percent(row["decided_accuracy"]),
                percent(row["claimed_error"]),
                amount(row["mean_tokens"]),
                percent(row["saved"]),
            )
            for row in mine
        ]
        heads = ("rule", "votes", "agreement", "accuracy", "undecided", "agreement\nif decided")
        more = ("accuracy\nif decided", "claimed\nerror", "tokens", "saved")
        tables.append(text_table(title, (*heads, *more), cells))
    return as_text(tables)


def calibration_tables(entries: Sequence[Mapping[str, Any]]) -> str:
    """Claimed against observed error, a table for each rule and file."""
    parts: list[Table | str] = []
    for entry in entries:
        title = f"{entry['rule']}, {entry['file']}: {_CLAIMS[entry['claims']]}"
        cells = [
            (
                f"{100 * row['confidence_low']:g} to {100 * row['confidence_high']:g} %",
                str(row["labels"]),
                str(row["questions"]),
                percent(row["claimed_error"]),
                percent(row["observed_error"]),
                f"{percent(row['error_low'])} to {percent(row['error_high'])}",
            )
            for row in entry["bins"]
        ]
        heads = ("confidence", "labels", "questions", "claimed error", "observed error", "interval")
        parts.append(text_table(title, heads, cells) if cells else f"{title}\n")
    return as_text([*parts, f"Only decided labels count. Interval: {entries[0]['interval']}."])
