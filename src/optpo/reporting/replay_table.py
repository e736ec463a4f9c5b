"""The tables of a replay, as text for a terminal."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from optpo.reporting.formatting import amount, decimal, percent

if TYPE_CHECKING:
    from rich.table import Table

_WIDTH_OF_A_FILE = 160

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
        tables.append(_table(title, (*heads, *more), cells))
    return _as_text(tables)


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
        parts.append(_table(title, heads, cells) if cells else f"{title}\n")
    return _as_text([*parts, f"Only decided labels count. Interval: {entries[0]['interval']}."])


def _table(title: str, heads: Iterable[str], rows: Iterable[Sequence[str]]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=Text(title, no_wrap=True, overflow="ignore"),
        title_justify="left",
    )
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _as_text(parts: "Iterable[Table | str]") -> str:
    from rich.console import Console

    width = None if sys.stdout.isatty() else _WIDTH_OF_A_FILE
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().split("\n"))
