"""Bad input: a clear message, exit code 2, and nothing left behind or lost."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from optpo.cli.main import main
from optpo.data import embedded_model_path

GOOD = json.dumps({"id": "one", "prompt": "start 1 add 2 ?"}) + "\n"
FILES = {
    "malformed.jsonl": (GOOD + "{not json\n").encode(),
    "empty_question.jsonl": (GOOD + '{"id": "two", "prompt": " "}\n').encode(),
    "duplicate.jsonl": (GOOD + GOOD).encode(),
    "latin.jsonl": GOOD.encode() + b'{"prompt": "caf\xe9"}\n',
    "empty.jsonl": b"",
    "long.jsonl": json.dumps({"id": "endless", "prompt": "add 2 " * 200}).encode() + b"\n",
}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "missing.jsonl"], ["missing.jsonl"]),
        (["--data", "malformed.jsonl"], ["malformed.jsonl", "line 2"]),
        (["--data", "empty_question.jsonl"], ["empty_question.jsonl", "line 2"]),
        (["--data", "duplicate.jsonl"], ["one", "line 1", "line 2"]),
        (["--data", "latin.jsonl"], ["latin.jsonl", "line 2", "UTF-8"]),
        (["--data", "empty.jsonl"], ["empty.jsonl"]),
        (["--data", "long.jsonl"], ["endless", "context of 128"]),
        (["--model", "missing"], ["missing"]),
        (["--model", "./missing"], ["there is no model folder"]),
        (["--model", "no_weights"], ["no weights"]),
        (["--model", "pickled"], ["pickle", "safetensors"]),
        (["--model", "no_config"], ["config.json"]),
        (["--recipe", "opto"], ["opto", "optpo"]),
        (["--set", "update.learningrate=1"], ["update.learningrate", "learning_rate"]),
        (["--set", "allocate.p0=0.2"], ["allocate", "p0"]),
        (["--set", "steps=0", "audit=2"], ["steps is 0", "audit is 2"]),
        (["--set", "update.learning_rate=fast"], ["update.learning_rate", "number"]),
        (["--out", "full_folder"], ["full_folder", "not empty"]),
        (["--out", "file"], ["file"]),
        (["--tracker", "tensorboard", "--data", "missing.jsonl"], ["missing.jsonl"]),
        (["--tracker", "tensorbord"], ["tensorbord", "tensorboard"]),
    ],
)
def test_bad_input_is_explained(
    arguments: Sequence[str],
    told: Sequence[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`adapt` refuses it with exit code 2, says what and where, and leaves no run behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _bad_folders(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    if "--out" not in arguments:
        arguments = [*arguments, "--out", "run"]
    assert main(["adapt", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    for words in told:
        assert words in output.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("verb", ["resume", "report"])
@pytest.mark.parametrize("folder", ["missing", "full_folder", "file"])
def test_what_is_no_run_is_refused(
    verb: str,
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`resume` and `report` name a folder that holds no run, and leave it alone."""
    monkeypatch.chdir(tmp_path)
    _bad_folders(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main([verb, folder]) == 2
    assert folder in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_is_not_run_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that holds a run is refused, with the command that goes on with it."""
    monkeypatch.chdir(tmp_path)
    small = ["--set", "steps=1", "data.limit=4", "evaluate.samples=0", "evaluate.unseen_samples=0"]
    assert main(["adapt", "--out", "run", *small]) == 0
    summary = (tmp_path / "run" / "summary.json").read_bytes()
    capsys.readouterr()
    assert main(["adapt", "--out", "run", *small]) == 2
    assert "optpo resume run" in capsys.readouterr().err
    assert (tmp_path / "run" / "summary.json").read_bytes() == summary


def _bad_folders(folder: Path) -> None:
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "file").write_text("a file")
    (folder / "full_folder").mkdir()
    (folder / "full_folder" / "thesis.tex").write_text("precious")
    weights = ("*.safetensors", "config.json")
    for name, left_out in (("no_weights", weights[:1]), ("no_config", weights[1:])):
        shutil.copytree(
            embedded_model_path(), folder / name, ignore=shutil.ignore_patterns(*left_out)
        )
    shutil.copytree(folder / "no_weights", folder / "pickled")
    torch.save({}, folder / "pickled" / "pytorch_model.bin")
