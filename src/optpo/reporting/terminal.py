"""A run in the terminal: a live view where someone watches, plain lines where a file does.

Everything goes to the stream given, standard error as a rule; standard output is left to results.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from optpo.reporting.formatting import NOTHING, duration, one_line
from optpo.reporting.lines import evaluation_text, facts, step_cells, summary_lines
from optpo.reporting.run_data import Row, number
from optpo.training.view import RunView

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["LiveView", "OpenView", "PlainView", "open_view", "summary_lines"]

_STEPS_SHOWN = 8
_GUARDS_SHOWN = 3


class OpenView(RunView, Protocol):
    """A view as a context manager, so that the terminal is restored."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was, whatever happened."""
        ...


def open_view(stream: TextIO | None = None) -> OpenView:
    """Return a live view if `stream` (standard error if None) is a terminal, else a plain one."""
    stream = sys.stderr if stream is None else stream
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return LiveView(stream)
    return PlainView(stream)


class PlainView:
    """One line a step and an evaluation; progress at most every `progress_seconds`."""

    def __init__(
        self,
        stream: TextIO,
        progress_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._progress_seconds = progress_seconds
        self._clock = clock
        self._last_progress = clock()
        self._pace = _Pace()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.flush()

    def start(self, config_summary: Row) -> None:
        """Write the settings on one line."""
        self._pace.start(config_summary)
        self._write("start", facts(config_summary, tuple(config_summary)))

    def evaluation(self, row: Row) -> None:
        """Write the evaluation on one line."""
        self._write("evaluation", evaluation_text(row))

    def progress(self, stage: str, done: int, total: int, detail: str) -> None:
        """Write the progress, unless that was done a moment ago."""
        now = self._clock()
        if now - self._last_progress < self._progress_seconds:
            return
        self._last_progress = now
        self._write("progress", f"{one_line(stage)} {done}/{total} {one_line(detail)}".rstrip())

    def step(self, row: Row) -> None:
        """Write the step on one line."""
        self._pace.step(row)
        self._last_progress = self._clock()
        cells = [f"{name} {value}" for name, value in step_cells(row)[1:] if value != NOTHING]
        if left := self._pace.time_left():
            cells.append(f"time left {left}")
        self._write("step", f"{self._pace.place()}: {', '.join(cells)}")

    def guard(self, message: str) -> None:
        """Write the guard's message on one line."""
        self._write("guard", one_line(message, longest=500))

    def _write(self, kind: str, text: str) -> None:
        self._stream.write(f"[{kind}] {text}\n")
        self._stream.flush()


class LiveView:
    """A table of the last steps under a progress bar, redrawn in place."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._pace = _Pace()
        self._heading = ""
        self._stage: tuple[str, int, int, str] | None = None
        self._rows: list[Row] = []
        self._guards: list[str] = []
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        # Last, because it draws at once. It must not catch standard output, which belongs to results.
        self._live = Live(
            console=self._console,
            get_renderable=self._picture,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=stream is sys.stderr,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stage = None
        self._live.stop()

    def start(self, config_summary: Row) -> None:
        """Show the settings above the table."""
        self._pace.start(config_summary)
        self._heading = facts(config_summary, tuple(config_summary))

    def evaluation(self, row: Row) -> None:
        """Print the evaluation above the table, where it stays."""
        from rich.text import Text

        self._stage = None
        self._console.print(Text.assemble(("evaluation ", "bold cyan"), evaluation_text(row)))

    def progress(self, stage: str, done: int, total: int, detail: str) -> None:
        """Show the stage's progress bar."""
        self._stage = (one_line(stage), done, total, one_line(detail))

    def step(self, row: Row) -> None:
        """Add the step to the table."""
        self._pace.step(row)
        self._stage = None
        self._rows = [*self._rows, row][-_STEPS_SHOWN:]

    def guard(self, message: str) -> None:
        """Show the guard's message under the table."""
        self._guards = [*self._guards, one_line(message, longest=500)][-_GUARDS_SHOWN:]

    def _picture(self) -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [Text(self._heading, style="bold")] if self._heading else []
        if self._rows:
            parts.append(self._table())
        parts += [Text(f"guard  {message}", style="yellow") for message in self._guards]
        if self._stage:
            parts.append(self._stage_line(*self._stage))
        if left := self._pace.time_left():
            parts.append(Text(f"step {self._pace.place()}, about {left} left", style="dim"))
        return Group(*parts)

    def _table(self) -> "RenderableType":
        from rich import box
        from rich.table import Table

        rows = [dict(step_cells(row)) for row in self._rows]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        names = _columns_that_fit(rows, self._console.width)
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*(row[name] for name in names))
        return table

    def _stage_line(self, stage: str, done: int, total: int, detail: str) -> "RenderableType":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        line = Table.grid(padding=(0, 1))
        line.add_row(
            Text(stage), ProgressBar(total=max(total, 1), completed=done, width=30),
            Text(f"{done}/{total}"), Text(detail, style="dim"),
        )  # fmt: skip
        return line


def _columns_that_fit(rows: Sequence[Mapping[str, str]], width: int) -> list[str]:
    """Leave out columns without values, and the least telling ones where the terminal is narrow."""
    names = [name for name in rows[0] if any(row[name] != NOTHING for row in rows)]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) + 3 for name in names}
    for name in ("entropy", "labels", "votes", "of fixed", "verdicts", "accuracy"):
        if name in names and sum(widths[kept] for kept in names) > width:
            names.remove(name)
    return names


class _Pace:
    """Counts steps and guesses the time left from the mean of those done."""

    def __init__(self) -> None:
        self._total: int | None = None
        self._last: int | None = None
        self._seconds: list[float] = []

    def start(self, config_summary: Row) -> None:
        total = number(config_summary, "steps")
        self._total = None if total is None else int(total)

    def step(self, row: Row) -> None:
        step, seconds = number(row, "step"), number(row, "seconds")
        if step is not None:
            self._last = int(step)
        if seconds is not None:
            self._seconds.append(seconds)

    def place(self) -> str:
        step = "?" if self._last is None else str(self._last)
        return step if self._total is None else f"{step}/{self._total}"

    def time_left(self) -> str | None:
        if self._total is None or self._last is None or not self._seconds:
            return None
        left = max(0, self._total - self._last)
        return duration(left * sum(self._seconds) / len(self._seconds))
