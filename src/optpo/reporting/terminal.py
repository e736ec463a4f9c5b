"""A run in the terminal: a live view where someone watches, plain lines where a file does.

Everything goes to the stream given, standard error as a rule; standard output is left to results.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

from optpo.reporting.formatting import (
    amount,
    decimal,
    duration,
    one_line,
    percent,
    points,
    saving,
)
from optpo.reporting.run_data import Row, number

if TYPE_CHECKING:
    from rich.console import RenderableType

_KINDS = ("decided", "capped", "tied", "empty")
_STEPS_SHOWN = 8
_GUARDS_SHOWN = 3


class RunView(Protocol):
    """What a run tells whoever watches; used as a context manager, so that the terminal is restored.

    Rows are the lines of `metrics.jsonl` and `evaluations.jsonl`; any field may be missing.
    """

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

    def start(self, config_summary: Row) -> None:
        """Say what runs; `steps` among the settings gives the time left its end."""
        ...

    def evaluation(self, row: Row) -> None:
        """Say how the policy did on a question set."""
        ...

    def progress(self, stage: str, done: int, total: int, detail: str) -> None:
        """Say how far the current stage is."""
        ...

    def step(self, row: Row) -> None:
        """Say what a step did."""
        ...

    def guard(self, message: str) -> None:
        """Say that a guard acted."""
        ...

    def finish(self, summary: Row, report: Path) -> None:
        """Say how the run ended and where its report is."""
        ...


def open_view(stream: TextIO | None = None) -> RunView:
    """Return a live view if `stream` (standard error if None) is a terminal, else a plain one."""
    stream = sys.stderr if stream is None else stream
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return LiveView(stream)
    return PlainView(stream)


def summary_lines(summary: Row) -> list[str]:
    """Return a run's summary for people, one fact a line; what was not measured is left out."""
    lines = [_facts(summary, ("recipe", "model", "seed", "steps", "questions"))]
    for label, name in (
        ("accuracy, adapted questions", "accuracy"),
        ("  their majority vote", "majority"),
        ("accuracy, unseen questions", "unseen_accuracy"),
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
    tokens = number(summary, "tokens_generated")
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
        self._write("start", _facts(config_summary, tuple(config_summary)))

    def evaluation(self, row: Row) -> None:
        """Write the evaluation on one line."""
        self._write("evaluation", _evaluation_text(row))

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
        cells = [f"{name} {value}" for name, value in _step_cells(row)[1:] if value != "–"]
        if left := self._pace.time_left():
            cells.append(f"time left {left}")
        self._write("step", f"{self._pace.place()}: {', '.join(cells)}")

    def guard(self, message: str) -> None:
        """Write the guard's message on one line."""
        self._write("guard", one_line(message, longest=500))

    def finish(self, summary: Row, report: Path) -> None:
        """Write the summary and the report's place."""
        for line in summary_lines(summary):
            self._write("done", line)
        self._write("done", f"report: {report}")

    def _write(self, kind: str, text: str) -> None:
        self._stream.write(f"[{kind}] {text}\n")
        self._stream.flush()


class LiveView:
    """A table of the last steps under a progress bar, redrawn in place."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        # Standard output belongs to results: rich must not catch it and print it here.
        self._live = Live(
            console=self._console,
            get_renderable=self._picture,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=stream is sys.stderr,
        )
        self._pace = _Pace()
        self._heading = ""
        self._stage: tuple[str, int, int, str] | None = None
        self._rows: list[Row] = []
        self._guards: list[str] = []

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
        self._heading = _facts(config_summary, tuple(config_summary))

    def evaluation(self, row: Row) -> None:
        """Print the evaluation above the table, where it stays."""
        from rich.text import Text

        self._stage = None
        self._console.print(Text.assemble(("evaluation ", "bold cyan"), _evaluation_text(row)))

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

    def finish(self, summary: Row, report: Path) -> None:
        """Leave the table as it is and print the summary and the report's place."""
        self._stage = None
        self._live.stop()
        for line in summary_lines(summary):
            self._console.print(line, soft_wrap=True)
        self._console.print(f"report: {report}", style="bold", soft_wrap=True)

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

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name, _ in _step_cells({}):
            table.add_column(name, justify="right", no_wrap=name != "verdicts")
        for row in self._rows:
            table.add_row(*(value for _, value in _step_cells(row)))
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


def _step_cells(row: Row) -> list[tuple[str, str]]:
    tokens, fixed = number(row, "tokens_total"), number(row, "fixed_budget_tokens_total")
    verdicts = row.get("verdicts")
    return [
        ("step", decimal(number(row, "step"), 0)),
        ("accuracy", percent(number(row, "accuracy"))),
        ("labels", percent(number(row, "label_accuracy"))),
        ("votes", decimal(number(row, "mean_votes"), 1)),
        ("tokens", amount(tokens)),
        ("of fixed", percent(tokens / fixed if tokens is not None and fixed else None)),
        ("verdicts", _verdicts(verdicts) if isinstance(verdicts, Mapping) else "–"),
        ("entropy", decimal(number(row, "entropy"))),
        ("time", duration(number(row, "seconds"))),
    ]


def _verdicts(verdicts: Mapping[str, Any]) -> str:
    return " ".join(f"{one_line(kind)} {verdicts[kind]}" for kind in _KINDS if verdicts.get(kind))


def _evaluation_text(row: Row) -> str:
    low, high = number(row, "mean_low"), number(row, "mean_high")
    interval = f" ({percent(low)} to {percent(high)})" if None not in (low, high) else ""
    samples = decimal(number(row, "samples"), 0)
    return (
        f"{one_line(row.get('set', ''))} questions after step {decimal(number(row, 'step'), 0)}: "
        f"mean {percent(number(row, 'mean'))}{interval}, "
        f"majority of {samples} {percent(number(row, 'majority'))}"
    )


def _facts(settings: Row, names: tuple[str, ...]) -> str:
    return ", ".join(
        f"{one_line(name)} {one_line(settings[name])}"
        for name in names
        if settings.get(name) is not None
    )
