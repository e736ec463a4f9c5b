"""Training in two processes: the same run as in one, but for rounding."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load

from optpo.data import embedded_model_path
from optpo.training.distributed import ALONE, Processes
from optpo.training.run_directory import RunDirectory
from tests.training.runs import SMALL, outcome, run

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
SETTINGS = ["update.pass_tokens=400", "update.minibatches=2", "advantage.part=gae", "overlap=1"]


def torchrun(*arguments, **options):
    """Start a module in two processes that talk over gloo."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, "--standalone", "-m", *map(str, arguments)],
        env=ENVIRONMENT, text=True, capture_output=True, timeout=300, check=False, **options,
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """Every step has the losses, gradients and verdicts of one process, and ends in its weights:
    where each keeps everything, and where each keeps its part and is cut off once on the way."""
    one = run(tmp_path / "one", *SETTINGS)
    done = torchrun("tests.training.runs", tmp_path, *SETTINGS)
    assert done.returncode == 0, done.stderr
    weights = load(one.weights)
    before = load((embedded_model_path() / "model.safetensors").read_bytes())
    moved = max(float((weights[name] - before[name]).abs().max()) for name in weights)
    for kind in ("none", "full"):
        two = outcome(RunDirectory(tmp_path / kind))
        assert two.verdicts == one.verdicts
        assert [row["tokens"] for row in two.rollouts] == [row["tokens"] for row in one.rollouts]
        for row, expected in zip(two.metrics, one.metrics, strict=True):
            numbers = {name for name, value in expected.items() if isinstance(value, float)}
            near = pytest.approx({name: expected[name] for name in numbers}, rel=1e-4, abs=1e-5)
            assert {name: row[name] for name in numbers} == near, kind
            others = expected.keys() - numbers
            assert {name: row[name] for name in others} == {name: expected[name] for name in others}
        its_weights = load(two.weights)
        for name, value in weights.items():
            assert float((its_weights[name] - value).abs().max()) < moved / 100, (kind, name)


@pytest.mark.slow
def test_one_of_two_processes_writes_and_talks(tmp_path):
    """`optpo adapt` under torchrun prints one summary and leaves one whole run directory."""
    small = [*SMALL, "steps=1", "data.limit=4"]
    done = torchrun("optpo", "adapt", "--out", "run", "--json", "--set", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 1
    assert done.stderr.count("[step]") == 1
    rows = (tmp_path / "run" / "verdicts.jsonl").read_text().splitlines()
    assert len({json.loads(row)["prompt_id"] for row in rows}) == len(rows) == 4
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_shares_hold_everything_once(world, count):
    """Items are dealt out one by one; equal shares repeat an item where they must, and say so."""
    items = list(range(count))
    everybody = [Processes(rank, world) for rank in range(world)]
    assert sorted(item for each in everybody for item in each.share(items)) == items
    equal = [each.equal_share(items) for each in everybody]
    assert len({len(share) for share in equal}) == 1
    assert sorted(item for share in equal for item, counts in share if counts) == items


def test_alone_there_is_nobody_to_ask():
    """One process shares with itself."""
    assert ALONE.first
    assert ALONE.gather([1, 2]) == [1, 2]
    assert ALONE.same("here") == "here"
    assert [ALONE.any(asked) for asked in (False, True)] == [False, True]
