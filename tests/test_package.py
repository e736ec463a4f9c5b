"""The wheel in a clean environment: what `pip install optpo` alone gives."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*command: str | Path, folder: Path, code: int = 0) -> str:
    """Run a command; returns what it printed, and shows it where the exit code is another."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=CLEAN,
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_wheel_alone_has_no_torch_and_works(tmp_path: Path) -> None:
    """Without extras there is no torch; voting, data and the verbs that need none work."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT, folder=tmp_path)
    (wheel,) = tmp_path.glob("optpo-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "optpo/py.typed",
        "optpo/recipes/without_labels/optpo.yaml",
        "optpo/data/embedded/adapt.jsonl",
        "optpo/data/embedded/unseen.jsonl",
        "optpo/data/embedded/model/model.safetensors",
        "optpo/data/embedded/model/tokenizer.json",
        "optpo/reporting/report.html.jinja",
    ):
        assert wanted in names
    run(sys.executable, "-m", "venv", tmp_path / "clean", folder=tmp_path)
    python = tmp_path / "clean" / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    run(python, "-m", "pip", "install", "-c", constraints, wheel, folder=tmp_path)
    missing = "import importlib.util as u; assert u.find_spec('torch') is None"
    run(python, "-c", missing, folder=tmp_path)
    # Not the checkout, but what was installed.
    where = run(python, "-c", "import optpo; print(optpo.__file__)", folder=tmp_path)
    assert str(tmp_path / "clean") in where
    use = (
        "from optpo.voting import OptpoRule, Tally\n"
        "from optpo.data import load_questions\n"
        "assert OptpoRule(floor=1).decide(Tally((0, 0, 0))).kind == 'decided'\n"
        "assert len(load_questions('adapt')) == 96\n"
    )
    run(python, "-c", use, folder=tmp_path)
    command = tmp_path / "clean" / "bin" / "optpo"
    assert "ttrl" in run(command, "recipes", folder=tmp_path)
    assert "2512.02882" in run(command, "recipes", "optpo", folder=tmp_path)
    votes = '{"id": "q", "answers": ["7", "8", "7", "7"], "gold": "7"}\n'
    (tmp_path / "votes.jsonl").write_text(votes)
    replay = (command, "replay", "votes.jsonl", "--json", "rows.json", "--plot", "curves.svg")
    assert "100.0 %" in run(*replay, "--calibration", folder=tmp_path)
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert {row["rule"] for row in rows} >= {"beta", "fixed", "optpo"}
    assert "<svg" in (tmp_path / "curves.svg").read_text()
    assert "optpo[train]" in run(command, "adapt", folder=tmp_path, code=2)
    assert not (tmp_path / "runs").exists()


def test_importing_brings_no_extra() -> None:
    """`import optpo`, its voting, its data and the engine for servers load no torch, transformers
    or datasets."""
    code = (
        "import sys, optpo, optpo.voting, optpo.data, optpo.sampling.openai_engine\n"
        "loaded = {'torch', 'transformers', 'datasets', 'matplotlib', 'peft'} & set(sys.modules)\n"
        "print(sorted(loaded))\n"
    )
    assert run(sys.executable, "-c", code, folder=ROOT).strip() == "[]"


def test_the_pinned_versions_satisfy_the_requirements() -> None:
    """Every requirement of the package is pinned in constraints.txt, torch at 2.13.0."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert "torch==2.13.0" in lines
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    required = [*project["dependencies"], *extras["train"], *extras["dev"]]
    names = {re.split(r"[<>=\[]", requirement)[0].lower() for requirement in required}
    assert names <= pinned
