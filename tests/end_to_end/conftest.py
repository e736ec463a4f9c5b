"""Runs of the real command line on the embedded model, small enough for a test."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
SMALL = [
    "--set", "steps=3", "data.limit=24", "sample.rows=32", "evaluate.samples=2",
    "evaluate.unseen_samples=0", "allocate.cap=16",
]  # fmt: skip

Outcome = subprocess.CompletedProcess[str]
Command = Callable[..., Outcome]


@pytest.fixture
def optpo(tmp_path: Path) -> Command:
    """Run `optpo` with these arguments in a folder of the test's own."""

    def run(*arguments: str | Path, **options: Any) -> Outcome:
        return subprocess.run(
            command(*arguments),
            env=ENVIRONMENT,
            text=True,
            capture_output=True,
            timeout=300,
            check=False,
            **{"cwd": tmp_path, **options},
        )

    return run


def command(*arguments: str | Path) -> list[str]:
    """The command line of a verb."""
    return [sys.executable, "-m", "optpo.cli.main", *map(str, arguments)]


def weights(directory: Path) -> bytes:
    """The adapted weights of a finished run, to the bit."""
    return (directory / "final" / "model.safetensors").read_bytes()


def figures(directory: Path) -> dict[str, Any]:
    """The summary without what is measured in time."""
    summary = json.loads((directory / "summary.json").read_text())
    times = ("seconds", "occupancy")
    return {
        name: value for name, value in summary.items() if not any(word in name for word in times)
    }


def rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def small(*more: str) -> Sequence[str]:
    """Settings of a run of some seconds, and more of them."""
    return [*SMALL, *more]
