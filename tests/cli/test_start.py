"""Start-up, help and wrong calls, each in a process of its own."""

import json
import subprocess
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "numpy", "scipy", "matplotlib", "datasets")
TRAIN = ("torch", "transformers", "peft", "accelerate", "safetensors")
VERBS = ("adapt", "vote", "evaluate", "replay", "plan", "recipes", "report", "resume")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["recipes"], ["recipes", "--json"], ["adapt", "--help"]],
)
def test_light_calls_load_nothing_heavy(optpo_process, arguments: list[str]) -> None:
    """Help, version and the list of recipes load neither torch nor numpy, and need none."""
    done = optpo_process(*arguments, missing=HEAVY)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    plain = optpo_process(*arguments)
    assert plain.stdout == done.stdout
    (line,) = plain.stderr.splitlines()
    assert not set(line.split()) & set(HEAVY)


def test_help_names_every_verb(optpo_process) -> None:
    """`optpo --help` lists the verbs on standard output."""
    done = optpo_process("--help")
    assert all(f" {verb} " in done.stdout for verb in VERBS)
    assert "--version" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "adapt, train, vote"),
        (["adpt"], "adpt"),
        (["adapt", "--stesp", "3"], "--stesp"),
        (["adapt", "--steps", "many"], "many"),
        (["adapt", "--steps"], "--steps"),
        (["resume"], "DIR"),
        (["report"], "optpo: report needs a run's folder"),
        (["recipes", "otpo"], "optpo: there is no recipe 'otpo'; did you mean optpo?"),
    ],
)
def test_a_wrong_call_exits_2(optpo_process, arguments: list[str], said: str) -> None:
    """An unknown verb or flag, or a missing argument, is explained on standard error: exit 2."""
    done = optpo_process(*arguments, missing=HEAVY)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", [["adapt"], ["vote"], ["evaluate"], ["resume", "."]])
def test_verbs_that_train_say_what_to_install(optpo_process, verb: list[str]) -> None:
    """Without the training extra its verbs name it: exit 2, no traceback."""
    done = optpo_process(*verb, missing=TRAIN)
    assert (done.returncode, done.stdout) == (2, "")
    told = done.stderr.splitlines()[0]
    assert told.startswith("optpo: this needs torch, transformers, peft, safetensors")
    assert told.endswith("pip install 'optpo[train]'")


def test_a_recipe_is_shown_without_torch(optpo_process) -> None:
    """Without torch `optpo recipes NAME` shows what the recipe itself says."""
    done = optpo_process("recipes", "ttrl", missing=TRAIN)
    assert done.returncode == 0
    assert "votes: 64" in done.stdout
    assert "arXiv 2504.16084" in done.stdout
    shown = json.loads(optpo_process("recipes", "ttrl", "--json", missing=TRAIN).stdout)
    assert shown["resolved"] is None
    assert shown["settings"]["select"]["limit"] == 32


@pytest.mark.parametrize("call", ["recipes", "--help"])
def test_a_full_disk_is_told(optpo_process, call: str) -> None:
    """Results that cannot be written are a failed run: exit 1, and a line that says why."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with full.open("w") as stream:
        done = optpo_process(call, stdout=stream)
    assert done.returncode == 1
    assert done.stderr.startswith("optpo: standard output: No space left on device\n")


def test_a_reader_who_leaves_is_no_error_message(optpo_process) -> None:
    """`optpo recipes | head -1` ends quietly."""
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    done = optpo_process("recipes", stdout=reader.stdin)
    assert done.returncode == 1
    assert done.stderr.startswith("loaded:")
