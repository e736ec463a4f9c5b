"""Reading run directories: whole, unfinished, damaged, and not one at all."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from optpo.errors import RunDirectoryError
from optpo.reporting.overview import overview
from optpo.reporting.questions import ROLLOUTS_SHOWN, list_questions
from optpo.reporting.run_data import number, read_run


def test_a_whole_run_is_read(run_directory: Path) -> None:
    run = read_run(run_directory)
    assert run.name == "first-run"
    assert run.config["recipe"] == "optpo-grpo"
    assert len(run.questions) == 40
    assert [row["step"] for row in run.steps] == list(range(1, 13))
    assert len(run.verdicts) == 12 * 40
    assert [name for name, _ in run.rollouts_newest_first()][:2] == ["step-00012", "step-00011"]


def test_only_the_configuration_has_to_be_there(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("recipe: optpo\n")
    run = read_run(tmp_path)
    assert (run.questions, run.steps, run.evaluations, run.verdicts) == ((), (), (), ())
    assert run.summary == {}
    assert overview(run).tokens is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, None, "it has no config.yaml"),
        ("config.yaml", "[1, 2", "cannot be read as YAML"),
        ("config.yaml", "- a list", "should hold a mapping"),
    ],
)
def test_no_run_directory_says_what_is_missing(
    name: str | None, content: str | None, message: str, tmp_path: Path
) -> None:
    if name is not None and content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(RunDirectoryError, match=message):
        read_run(tmp_path)


def test_a_path_that_is_no_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="is not a directory"):
        read_run(tmp_path / "absent")


def test_a_half_written_last_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    # Cut in the middle of a two-byte character, as a kill may.
    whole = json.dumps({"step": 1}).encode() + b"\n"
    (tmp_path / "metrics.jsonl").write_bytes(whole + '{"step": 2, "guards": ["é'.encode()[:-1])
    assert [row["step"] for row in read_run(tmp_path).steps] == [1]


def test_damage_elsewhere_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(RunDirectoryError, match=r"metrics\.jsonl, line 2"):
        read_run(tmp_path)


def test_a_step_done_twice_counts_once(tmp_path: Path) -> None:
    """A run that was killed and resumed may have written a step before it was lost."""
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    rows = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}, {"step": 2, "loss": 3.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row["loss"] for row in read_run(tmp_path).steps] == [1.0, 3.0]


@pytest.mark.parametrize("value", [None, "3", True, float("nan"), float("inf"), [1]])
def test_what_is_no_finite_number_reads_as_none(value: object) -> None:
    assert number({"loss": value}, "loss") is None


def test_the_overview_adds_up(run_directory: Path) -> None:
    run = read_run(run_directory)
    seen = overview(run)
    assert seen.ledger is not None
    assert seen.ledger.tokens == seen.tokens
    assert seen.ledger.rollouts - seen.ledger.rollouts_cancelled == sum(
        row["rollouts"] for row in run.verdicts
    )
    assert sum(kind.count for kind in seen.kinds) == len(run.verdicts)
    assert seen.adapt.before == run.summary["accuracy_before"]


def test_an_unfinished_run_is_judged_by_its_lines(
    fabricate: Callable[..., Path], tmp_path: Path
) -> None:
    directory = fabricate(tmp_path / "run")
    whole = overview(read_run(directory))
    (directory / "summary.json").unlink()
    cut = overview(read_run(directory))
    assert (whole.finished, cut.finished) == (True, False)
    assert cut.tokens == whole.tokens
    assert cut.adapt == whole.adapt
    assert cut.seconds == pytest.approx(whole.seconds)


def test_questions_show_their_last_verdict_and_a_few_rollouts(run_directory: Path) -> None:
    run = read_run(run_directory)
    listed = list_questions(run, limit=500)
    last = {row["prompt_id"]: row for row in run.verdicts if row["step"] == 12}
    assert len(listed) == 40
    for question in listed:
        assert question.step == 12
        assert question.votes == last[question.id]["rollouts"]
        assert 1 <= len(question.rollouts) <= ROLLOUTS_SHOWN
        assert {rollout.step for rollout in question.rollouts} == {"step-00012"}


def test_a_long_rollout_keeps_its_beginning_and_end(run_directory: Path) -> None:
    listed = list_questions(read_run(run_directory), limit=500)
    cut = [rollout for question in listed for rollout in question.rollouts if rollout.left_out]
    assert cut
    for rollout in cut:
        assert rollout.head.startswith("Step 1:")
        assert rollout.tail.endswith("}.")
