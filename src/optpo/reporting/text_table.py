"""Tables as plain text, for a terminal or a file."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_WIDTH_OF_A_FILE = 160


def text_table(title: str, heads: Iterable[str], rows: Iterable[Sequence[str]]) -> "Table":
    """A table whose first column is of words, and the others of numbers."""
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


def as_text(parts: "Iterable[Table | str]") -> str:
    """Tables and paragraphs as lines for standard output, wide where no terminal limits them."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _WIDTH_OF_A_FILE
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().split("\n"))
