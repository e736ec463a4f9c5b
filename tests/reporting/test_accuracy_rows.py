"""The table of mean@k, pass@k and maj@k."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from optpo.reporting.accuracy_rows import AccuracyRow, accuracy_rows
from optpo.reporting.charts import tracks
from optpo.reporting.html import render
from optpo.reporting.lines import evaluation_text
from optpo.reporting.run_data import read_run


def test_first_and_last_evaluation_stand_side_by_side(run_directory: Path) -> None:
    """A row a measure and set, with the last's interval."""
    rows = accuracy_rows(read_run(run_directory))
    measures = ["mean@8", "pass@1", "pass@4", "pass@8", "maj@1", "maj@4", "maj@8"]
    assert [row.measure for row in rows] == 2 * measures
    assert [row.questions for row in rows[::7]] == ["adapted questions", "unseen questions"]
    evaluations = [
        json.loads(line) for line in (run_directory / "evaluations.jsonl").open(encoding="utf-8")
    ]
    own = [row for row in evaluations if row["set"] == "unseen"]
    first, last = own[0]["passes"]["4"], own[-1]["passes"]["4"]
    assert rows[9] == AccuracyRow(
        "unseen questions", "pass@4", first["value"], last["value"], last["low"], last["high"]
    )


def test_rows_of_an_older_run_have_the_mean_and_the_majority(run_directory: Path) -> None:
    """Whose evaluations know no pass@k, nor an interval of the majority."""
    run = read_run(run_directory)
    old = ("step", "set", "mean", "mean_low", "mean_high", "majority", "samples")
    rows = tuple({key: row[key] for key in old} for row in run.evaluations[:2])
    found = accuracy_rows(type(run)(**{**vars(run), "evaluations": rows}))
    assert [row.measure for row in found] == ["mean@8", "maj@8"] * 2
    assert found[0].after is None
    assert found[1].low is None
    assert accuracy_rows(type(run)(**{**vars(run), "evaluations": ()})) == ()


def test_an_evaluation_is_told_with_its_intervals(run_directory: Path) -> None:
    """Mean, majority and whether any rollout was right."""
    row = {
        "set": "adapt", "step": 3, "samples": 8, "mean": 0.5, "mean_low": 0.4, "mean_high": 0.6,
        "majority": 0.6, "majority_low": 0.5, "majority_high": 0.7, "passed": 0.8,
        "passed_low": 0.7, "passed_high": 0.9,
    }  # fmt: skip
    assert evaluation_text(row) == (
        "adapt questions after step 3: mean 50.0 % (40.0 % to 60.0 %), "
        "majority of 8 60.0 % (50.0 % to 70.0 %), any of 8 80.0 % (70.0 % to 90.0 %)"
    )


@pytest.mark.parametrize(
    ("verified", "said"),
    [
        ((False, False), "training sees the labels that the vote chose"),
        ((True, True), "Rollouts are rewarded by a verifier."),
        ((True, False), "elsewhere by the labels that the vote chose"),
    ],
)
def test_the_report_says_what_rewards_rollouts(
    run_directory: Path,
    other_run_directory: Path,
    verified: tuple[bool, bool],
    said: str,
) -> None:
    """A verifier or the vote, run by run, and both tables of accuracies."""
    runs = []
    for directory, by_verifier in zip((run_directory, other_run_directory), verified, strict=True):
        run = read_run(directory)
        scored = {"scored_share": 1.0} if by_verifier else {}
        runs.append(replace(run, steps=tuple({**row, **scored} for row in run.steps)))
    page = render(tracks(runs))
    assert said in page
    assert page.count("mean@k, pass@k and maj@k") == 2
    assert page.count("<td>pass@4</td>") == 4
