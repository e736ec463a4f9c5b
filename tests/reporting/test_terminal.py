"""The terminal views: plain lines in a file, a table on a terminal, nothing on standard output."""

import io
import os
import pty
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from optpo.reporting.formatting import amount, decimal, duration, one_line, percent, saving
from optpo.reporting.lines import step_cells
from optpo.reporting.terminal import LiveView, OpenView, PlainView, open_view, summary_lines

MINUS = "\N{MINUS SIGN}"
STEP: Mapping[str, Any] = {
    "step": 1, "accuracy": 0.41, "label_accuracy": None, "mean_votes": 12.5, "tokens_total": 41_200,
    "fixed_budget_tokens_total": 164_800, "verdicts": {"decided": 30, "capped": 2, "tied": 0},
    "entropy": 0.912, "seconds": 30.0,
}  # fmt: skip
EVALUATION: Mapping[str, Any] = {
    "step": 0, "set": "adapt", "mean": 0.4, "mean_low": 0.36, "mean_high": 0.44, "majority": 0.5,
    "samples": 8,
}  # fmt: skip
SUMMARY: Mapping[str, Any] = {
    "recipe": "optpo", "model": "tiny", "seed": 0, "steps": 3, "questions": 32,
    "accuracy_before": 0.4, "accuracy_after": 0.55, "unseen_accuracy_before": None,
    "label_accuracy": 0.8, "tokens_generated": 90_000, "tokens_cancelled": 10_000,
    "fixed_budget_tokens": 400_000, "seconds": 95.0, "seconds_sampling": 70.0,
    "seconds_update": 25.0, "verdicts": {"decided": 90, "tied": 6},
}  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tell_a_run(view: OpenView) -> None:
    view.start({"recipe": "optpo", "model": "tiny", "steps": 3, "gold": None})
    view.evaluation(EVALUATION)
    view.progress("vote", 5, 32, "questions")
    view.step(STEP)
    view.step({"step": 2})
    view.guard("entropy [red]fell[/red]\x1b[2J")


def test_plain_view_writes_a_line_a_step() -> None:
    stream = io.StringIO()
    with PlainView(stream) as view:
        tell_a_run(view)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[start] recipe optpo, model tiny, steps 3"
    assert lines[1] == (
        "[evaluation] adapt questions after step 0: mean 40.0 % (36.0 % to 44.0 %), "
        "majority of 8 50.0 %"
    )
    assert lines[2] == (
        "[step] 1/3: accuracy 41.0 %, votes 12.5, tokens 41.2 k, of fixed 25.0 %, "
        "verdicts decided 30 capped 2, entropy 0.91, time 30 s, time left 1 min 00 s"
    )
    assert lines[3] == "[step] 2/3: time left 30 s"
    assert lines[4] == "[guard] entropy [red]fell[/red][2J"


def test_plain_progress_comes_at_most_every_ten_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    view = PlainView(stream, clock=clock)
    for second in range(25):
        clock.now = float(second)
        view.progress("vote", second, 25, "questions")
    assert stream.getvalue().splitlines() == [
        "[progress] vote 10/25 questions",
        "[progress] vote 20/25 questions",
    ]


def test_summary_says_what_was_measured_and_nothing_else() -> None:
    text = "\n".join(summary_lines(SUMMARY))
    assert "40.0 % → 55.0 % (+15.0 points)" in text
    assert "unseen" not in text
    # Cancelled tokens were spent too: 100 k, a quarter of 400 k.
    assert "100 k, 4.0× fewer than 64 votes a question (400 k)" in text
    assert "1 min 35 s (sampling 1 min 10 s, update 25 s)" in text
    assert summary_lines({}) == []


def test_a_file_gets_the_plain_view(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        assert isinstance(open_view(stream), PlainView)


class Terminal:
    """A pseudo-terminal whose output is collected."""

    def __init__(self) -> None:
        self._reader, writer = pty.openpty()
        self.stream = os.fdopen(writer, "w", encoding="utf-8")
        self._seen = bytearray()
        self._thread = threading.Thread(target=self._collect)
        self._thread.start()

    def text(self) -> str:
        """Close the terminal and return what was written to it."""
        self.stream.close()
        self._thread.join()
        os.close(self._reader)
        return self._seen.decode()

    def _collect(self) -> None:
        while True:
            try:
                received = os.read(self._reader, 4096)
            except OSError:  # Linux reports the closed other end so.
                return
            if not received:
                return
            self._seen += received


@pytest.fixture
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal()


def test_live_view_shows_the_run(
    wide_terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    view = open_view(wide_terminal.stream)
    assert isinstance(view, LiveView)
    with view:
        tell_a_run(view)
    shown = wide_terminal.text()
    for words in ("41.0 %", "41.2 k", "25.0 %", "decided 30 capped 2", "0.91", "adapt questions"):
        assert words in shown
    assert "[red]fell[/red]" in shown, "messages are no markup"
    assert "\x1b[2J" not in shown, "messages cannot steer the terminal"
    assert capsys.readouterr().out == ""


def test_live_view_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns are left out as a whole, none is cut."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    terminal = Terminal()
    with open_view(terminal.stream) as view:
        view.step(STEP)
    shown = terminal.text()
    assert "accuracy" in shown
    assert "entropy" not in shown
    assert "…" not in shown


def test_live_view_gives_the_terminal_back_after_an_error(wide_terminal: Terminal) -> None:
    with pytest.raises(ZeroDivisionError), open_view(wide_terminal.stream) as view:
        view.progress("vote", 0, 0, "")
        view.step(STEP)
        raise ZeroDivisionError
    shown = wide_terminal.text()
    # Hidden while the table is redrawn, shown again at the end.
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_live_view_leaves_standard_output_alone(
    wide_terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_view(wide_terminal.stream) as view:
        view.step(STEP)
        print("a result", file=sys.stdout)
    assert "a result" not in wide_terminal.text()
    assert capsys.readouterr().out == "a result\n"


def test_a_dumb_terminal_gets_the_plain_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    assert isinstance(open_view(terminal.stream), PlainView)
    terminal.text()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0, "0"), (812, "812"), (9_999, "9,999"), (10_000, "10.0 k"),
        (41_234, "41.2 k"), (999_499, "999 k"), (999_600, "1.00 M"), (3_074_000, "3.07 M"),
        (1.2e9, "1.20 G"), (5e13, "50000 G"),
    ],
)  # fmt: skip
def test_amounts(value: float | None, text: str) -> None:
    assert amount(value) == text


def test_other_numbers() -> None:
    assert [duration(s) for s in (4.2, 48, 725, 7380)] == [
        "4.2 s",
        "48 s",
        "12 min 05 s",
        "2 h 03 min",
    ]
    assert [percent(0.4567), percent(None)] == ["45.7 %", "–"]
    assert [decimal(1.234), decimal(0.00012), decimal(-0.5), decimal(0)] == [
        "1.23", f"1.2e{MINUS}04", f"{MINUS}0.50", "0.00",
    ]  # fmt: skip
    assert [saving(100, 400), saving(400, 100), saving(None, 4)] == ["4.0× fewer", "4.0× more", "–"]
    assert one_line("a\n b\x1b[31m" + "c" * 200, longest=12) == "a b[31mcccc…"


def test_steps_that_trained_nothing_are_said() -> None:
    """A summary says how many steps moved the policy where not all did."""
    held_back = summary_lines({**SUMMARY, "steps_trained": 1})
    assert any(line.split() == ["steps", "trained", "on:", "1", "of", "3"] for line in held_back)
    assert not any("trained on" in line for line in summary_lines({**SUMMARY, "steps_trained": 3}))


def test_questions_at_rest_are_said() -> None:
    """The summary counts the visits rested; a step says how many questions sit it out."""
    rested = summary_lines({**SUMMARY, "questions_rested": 412})
    assert any(
        line.split() == ["questions", "left", "to", "rest:", "412", "visits"] for line in rested
    )
    assert not any("rest:" in line for line in summary_lines({**SUMMARY, "questions_rested": 0}))
    cells = dict(step_cells({"step": 2, "verdicts": {"decided": 9}, "questions_rested": 17}))
    assert cells["verdicts"] == "decided 9, 17 at rest"
    assert dict(step_cells({"verdicts": {"decided": 9}}))["verdicts"] == "decided 9"
