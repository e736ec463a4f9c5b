"""Whole runs on the embedded model, in this process or in several under torchrun."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from optpo.recipes import build_settings, settings_to_mapping
from optpo.training.distributed import join_processes
from optpo.training.loop import adapt
from optpo.training.run_directory import RunDirectory

SMALL = [
    "steps=3", "data.limit=8", "sample.rows=16", "evaluate.samples=0", "evaluate.unseen_samples=0",
    "allocate.cap=8", "audit=0.3",
]  # fmt: skip


VERIFIED = [
    "steps=3", "data.limit=8", "sample.rows=16", "evaluate.samples=0", "evaluate.unseen_samples=0",
]  # fmt: skip
"""The same for recipes with a fixed number of rollouts and a verifier."""


class QuietView:
    """Shows nothing; `crash_after` is the step after which the machine is switched off."""

    def __init__(self, crash_after=None):
        self.crash_after = crash_after

    def start(self, config_summary): ...

    def progress(self, stage, done, total, detail): ...

    def evaluation(self, row): ...

    def guard(self, message): ...

    def step(self, row):
        if row["step"] == self.crash_after:
            raise RuntimeError("switched off")


class Outcome(NamedTuple):
    """What a run has written: rows of all steps without their times, and the adapted weights."""

    metrics: list[dict[str, Any]]
    verdicts: list[dict[str, Any]]
    rollouts: list[dict[str, Any]]
    weights: bytes


def run(path, *assignments, recipe="optpo", view=None, small=SMALL):
    """Run, or go on with, the run in a folder; returns its outcome in the process that writes."""
    settings = build_settings(recipe, assignments=[*small, *assignments])
    directory = RunDirectory(path)
    if join_processes("cpu").first:
        begun = (path / "config.yaml").exists()
        config = settings_to_mapping(settings)
        directory = RunDirectory.open(path) if begun else RunDirectory.create(path, config)
    try:
        adapt(settings, directory, view or QuietView())
        return outcome(directory) if directory.writes else None
    finally:
        directory.close()


def outcome(directory):
    """The outcome of a finished run."""
    metrics = [
        {name: row[name] for name in row if "seconds" not in name and "occupancy" not in name}
        for row in directory.rows("metrics.jsonl")
    ]
    rollouts = [
        row
        for file in sorted((directory.path / "rollouts").iterdir())
        for row in directory.rows(f"rollouts/{file.name}")
    ]
    weights = (directory.path / "final" / "model.safetensors").read_bytes()
    return Outcome(metrics, directory.rows("verdicts.jsonl"), rollouts, weights)


def main():
    """Under torchrun: runs of the same settings in folders of the one named, one after the other."""
    folder, settings = Path(sys.argv[1]), sys.argv[2:]
    run(folder / "none", *settings)
    try:
        run(folder / "full", *settings, "update.sharding=full", view=QuietView(crash_after=2))
    except RuntimeError as error:
        assert "switched off" in str(error)
    run(folder / "full", *settings, "update.sharding=full")


if __name__ == "__main__":
    main()
