"""The run directory: one owner at a time, and files that a kill cannot spoil."""

import json
import subprocess
import sys

import pytest

from optpo.errors import RunDirectoryError
from optpo.training.run_directory import (
    RunDirectory,
    complete_rows,
    read_config,
    replace_folder,
    replace_text,
)

HOLD_THE_LOCK = """
import sys
from pathlib import Path
from optpo.training.run_directory import RunDirectory
directory = RunDirectory.open(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory(tmp_path):
    created = RunDirectory.create(tmp_path / "run", {"recipe": "optpo", "note": "größer"})
    yield created
    created.close()


def test_settings_come_back(directory):
    """A created run holds its settings, in any alphabet, and opens again once it is closed."""
    assert read_config(directory.path) == {"recipe": "optpo", "note": "größer"}
    directory.close()
    again = RunDirectory.open(directory.path)
    again.append("metrics.jsonl", [{"step": 1}])
    again.close()


def test_a_second_process_is_kept_out(directory):
    """While one process has the run open another cannot; when it dies, by whatever end, one can."""
    with pytest.raises(RunDirectoryError, match="in use"):
        RunDirectory.open(directory.path)
    directory.close()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK, str(directory.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(RunDirectoryError, match="in use by another optpo process"):
            RunDirectory.open(directory.path)
    finally:
        other.kill()
        other.communicate()
    RunDirectory.open(directory.path).close()


def test_a_new_run_takes_a_new_or_an_empty_folder(tmp_path):
    """Folders are made on the way; an empty one may be used; nothing is written into others."""
    RunDirectory.create(tmp_path / "a" / "b", {}).close()
    (tmp_path / "empty").mkdir()
    RunDirectory.create(tmp_path / "empty", {"seed": 1}).close()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for name, message in (
        ("full", "not empty"),
        ("file", "is a file"),
        ("empty", "already holds a run; go on with it by `optpo resume"),
    ):
        with pytest.raises(RunDirectoryError, match=message):
            RunDirectory.create(tmp_path / name, {"seed": 2})
    assert [entry.name for entry in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    assert read_config(tmp_path / "empty") == {"seed": 1}


def test_what_is_no_run_is_not_opened(tmp_path):
    """A folder that is missing, holds no run, or whose settings are damaged says which it is."""
    (tmp_path / "plain").mkdir()
    for name, content in (("damaged", b"just text"), ("broken", b"a: [1"), ("binary", b"\xff\xfe")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_bytes(content)
    for name, message in (
        ("missing", "there is no run directory"),
        ("plain", "is not a run directory"),
        ("damaged", "damaged"),
        ("broken", "cannot be read"),
        ("binary", "cannot be read"),
    ):
        with pytest.raises(RunDirectoryError, match=message):
            RunDirectory.open(tmp_path / name)
    assert list((tmp_path / "plain").iterdir()) == []


def test_rows_are_appended_in_order(directory):
    """Rows come back as they were appended, folders are made, no rows make no file."""
    directory.append("rollouts/step-00001.jsonl", [{"text": "a\nb\u2028c"}, {"text": "é"}])
    directory.append("rollouts/step-00001.jsonl", [{"text": "d"}])
    directory.append("verdicts.jsonl", [])
    found = directory.rows("rollouts/step-00001.jsonl")
    assert [row["text"] for row in found] == ["a\nb\u2028c", "é", "d"]
    assert directory.rows("verdicts.jsonl") == []
    assert not (directory.path / "verdicts.jsonl").exists()


def test_unfinished_steps_are_forgotten(directory):
    """What was written for later steps goes, what was written up to the step stays."""
    names = ("metrics.jsonl", "evaluations.jsonl", "verdicts.jsonl")
    for name in names:
        directory.append(name, [{"step": step, "n": n} for step in range(4) for n in range(2)])
    for step in range(1, 4):
        directory.append(f"rollouts/step-{step:05d}.jsonl", [{"step": step}])
    directory.forget_after(1)
    for name in names:
        expected = [{"step": step, "n": n} for step in (0, 1) for n in (0, 1)]
        assert directory.rows(name) == expected
    assert [file.name for file in (directory.path / "rollouts").iterdir()] == ["step-00001.jsonl"]
    directory.forget_after(-1)
    assert directory.rows("metrics.jsonl") == []
    assert list((directory.path / "rollouts").iterdir()) == []


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_a_half_written_last_line_is_no_row(directory, cut):
    """A kill in the middle of a line loses that line alone, and what is appended after a resume
    does not grow onto the half."""
    file = directory.path / "metrics.jsonl"
    directory.append("metrics.jsonl", [{"step": 1}, {"step": 2}])
    file.write_bytes(file.read_bytes()[:-cut])
    assert directory.rows("metrics.jsonl") == [{"step": 1}]
    directory.forget_after(1)
    directory.append("metrics.jsonl", [{"step": 2}])
    assert directory.rows("metrics.jsonl") == [{"step": 1}, {"step": 2}]


def test_a_damaged_line_is_named(directory):
    """A line in the middle that is no JSON is an error with file and line, not a bare traceback."""
    file = directory.path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\n\0\0\0\n{"step": 2}\n')
    with pytest.raises(RunDirectoryError, match=r"metrics.jsonl.* line 2"):
        list(complete_rows(file))


def test_replacing_is_all_or_nothing(tmp_path, monkeypatch):
    """A failure while the new text is written leaves the old one whole."""
    file = tmp_path / "summary.json"
    replace_text(file, "old")

    def fail(number):
        raise OSError("disk full")

    monkeypatch.setattr("optpo.training.run_directory.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        replace_text(file, "new and longer")
    assert file.read_text() == "old"
    monkeypatch.undo()
    replace_text(file, "new")
    assert file.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


def test_json_files_are_replaced(directory):
    """`write` and `replace` leave exactly what was given last."""
    directory.write("summary.json", {"a": 1})
    directory.write("summary.json", {"b": "ü"})
    summary = (directory.path / "summary.json").read_text(encoding="utf-8")
    assert json.loads(summary) == {"b": "ü"}
    directory.replace("questions.jsonl", [{"id": 1}, {"id": 2}])
    directory.replace("questions.jsonl", [{"id": 3}])
    assert directory.rows("questions.jsonl") == [{"id": 3}]


def test_folders_are_replaced_whole(tmp_path):
    """The finished folder takes the old one's place; nothing of the old one is left."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("x")
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["old", "new"]
    assert (tmp_path / "old" / "new").is_file()


def test_a_folder_within_a_folder_is_replaced_too(tmp_path):
    """A tokenizer may write folders of its own beside its files."""
    inner = tmp_path / ".writing" / "additional_chat_templates"
    inner.mkdir(parents=True)
    (inner / "tool_use.jinja").write_text("template")
    replace_folder(tmp_path / ".writing", tmp_path / "final")
    assert (tmp_path / "final" / "additional_chat_templates" / "tool_use.jinja").exists()
