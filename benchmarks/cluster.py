"""How throughput and staleness grow with the number of engines, on a simulated cluster.

Three ways to sample and update in turns, on the same questions with the same votes:

- synchronous: a step's questions are sampled, then the policy is updated, then the next;
- overlap: the next step's questions are sampled while the policy is updated with this step's, so
  that every rollout is one version old when it is trained on;
- asynchronous: sampling never waits for an update, and an update takes the questions that are
  ready, as long as none gets older than a bound.

The first two are `take_votes` unchanged on an engine with a clock of its own; the third opens
questions one by one and has only launching and counting from there.
"""

import argparse
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from rich.console import Console
from rich.table import Table
from simulated_cluster import READER, Questions, SimulatedCluster, ballots_of, draw_questions

from optpo.sampling.ballot import Ballot, count_votes
from optpo.sampling.scheduler import Schedule, submit_next, take_votes
from optpo.voting import OptpoRule

mpl.use("Agg")
from matplotlib import pyplot

RULE = OptpoRule()
SLOTS = 8
QUESTIONS = 256
ROLLOUT_SECONDS = 30.0
UPDATE_SECONDS = 60.0
LOAD_SECONDS = 1.0
BOUNDS = (2, 8)


@dataclass
class Trainer:
    """Counts versions, when each was made, and how old the rollouts were that it was made from."""

    version: int = 0
    made: list[float] = field(default_factory=list)
    ages: list[list[int]] = field(default_factory=list)

    def take(self, ballots: Sequence[Ballot]) -> None:
        """Begin an update on these questions."""
        rollouts = (rollout for ballot in ballots for rollout in ballot.rollouts)
        self.ages.append([self.version - rollout.version for rollout in rollouts])

    def done(self, now: float) -> int:
        """An update has ended; the version it made."""
        self.version += 1
        self.made.append(now)
        return self.version


def vote(cluster: SimulatedCluster, step: int, schedule: Schedule) -> list[Ballot]:
    """A step's questions, sampled to their verdicts."""
    ballots = ballots_of(range(step * QUESTIONS, (step + 1) * QUESTIONS))
    take_votes(
        cluster, ballots, RULE, READER, seed=0, version=0, purpose="train", schedule=schedule
    )
    return ballots


def synchronous(cluster: SimulatedCluster, steps: int, schedule: Schedule) -> Trainer:
    """Sample, then update, then load, in turns."""
    trainer = Trainer()
    for step in range(steps):
        trainer.take(vote(cluster, step, schedule))
        cluster.now += UPDATE_SECONDS
        cluster.update_weights(trainer.done(cluster.now))
    return trainer


def overlap(cluster: SimulatedCluster, steps: int, schedule: Schedule) -> Trainer:
    """Update on one step's questions while the next step's are sampled; then load."""
    trainer = Trainer()
    ballots = vote(cluster, 0, schedule)
    for step in range(1, steps + 1):
        trainer.take(ballots)
        end = cluster.now + UPDATE_SECONDS
        ballots = vote(cluster, step, schedule)
        cluster.now = max(cluster.now, end)
        cluster.update_weights(trainer.done(cluster.now))
    return trainer


def asynchronous(cluster: SimulatedCluster, steps: int, bound: int) -> Trainer:
    """Sample without end; update on whatever questions are ready.

    A question opened at version v is trained on by the update that makes v + `bound` + 1 at the
    latest, which waits for it; so there are at most `bound` + 1 steps' questions in the works.
    """
    trainer = Trainer()
    opened: dict[str, int] = {}
    ready: list[Ballot] = []
    trained_on: list[Ballot] = []
    owners: dict[int, tuple[Ballot, int]] = {}
    update_ends, started = 0.0, 0

    def launch(ballot: Ballot) -> None:
        for _ in range(RULE.look_ahead(ballot.tally)):
            index = ballot.launched
            owners[submit_next(cluster, ballot, 0, 0, "train")] = (ballot, index)

    while trainer.version < steps:
        while cluster.room > 0 and len(opened) < (bound + 1) * QUESTIONS:
            (ballot,) = ballots_of([started])
            ballot.decision = RULE.decide(ballot.tally)
            started += 1
            opened[ballot.prompt_id] = trainer.version
            launch(ballot)
        if not trained_on and len(ready) >= QUESTIONS:
            due = {name for name, version in opened.items() if version <= trainer.version - bound}
            if due.issubset(ballot.prompt_id for ballot in ready):
                ready.sort(key=lambda ballot: ballot.prompt_id not in due)
                trained_on, ready = ready[:QUESTIONS], ready[QUESTIONS:]
                trainer.take(trained_on)
                update_ends = cluster.now + UPDATE_SECONDS
        coming = cluster.next_time()
        if trained_on and (coming is None or update_ends <= coming):
            cluster.now = update_ends
            for ballot in trained_on:
                del opened[ballot.prompt_id]
            trained_on = []
            cluster.roll_out_weights(trainer.done(cluster.now))
            continue
        for completion in cluster.step():
            ballot, index = owners.pop(completion.handle)
            ballot.waiting[index] = completion
            if count_votes(ballot, RULE, READER).stop:
                ready.append(ballot)
            elif ballot.tally.total == ballot.launched:
                launch(ballot)
    return trainer


def run(
    mode: str, schedule: Schedule, bound: int, engines: int, steps: int, data: Questions
) -> dict[str, Any]:
    """One way on one cluster; the first third of the steps is not looked at."""
    cluster = SimulatedCluster(engines, SLOTS, LOAD_SECONDS, data)
    if mode == "asynchronous":
        steps *= 3
        trainer = asynchronous(cluster, steps, bound)
    else:
        trainer = {"synchronous": synchronous, "overlap": overlap}[mode](cluster, steps, schedule)
    skipped = steps // 3
    ages = [age for step in trainer.ages[skipped:] for age in step]
    seconds = float(trainer.made[-1] - trainer.made[skipped - 1]) / (steps - skipped)
    return {
        "mode": mode,
        "schedule": schedule,
        "bound": bound,
        "engines": engines,
        "seconds_a_step": seconds,
        "questions_a_minute": 60 * QUESTIONS / seconds,
        "slots_used": cluster.useful_seconds / (cluster.now * cluster.slots),
        "wasted": cluster.wasted_seconds / (cluster.useful_seconds + cluster.wasted_seconds),
        "staleness_mean": float(np.mean(ages)),
        "staleness_most": max(ages),
        "rollouts": len(ages),
    }


def main() -> None:
    """Run all ways on all sizes, print a table, draw the plot and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="three sizes, six steps")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--plot", type=Path, help="draw the plot here (.png)")
    options = parser.parse_args()
    sizes = (1, 16, 256) if options.quick else tuple(2**n for n in range(9))
    steps = 6 if options.quick else 9
    ways: list[tuple[str, Schedule, int]] = [
        (mode, schedule, bound)
        for mode, bound in (("synchronous", 0), ("overlap", 1))
        for schedule in ("waves", "speculative")
    ]
    ways += [("asynchronous", "waves", bound) for bound in BOUNDS]
    rows = []
    for sigma in (0.5, 1.0):
        count = (3 * steps + max(BOUNDS) + 1) * QUESTIONS
        data = draw_questions(count, RULE.cap, ROLLOUT_SECONDS, sigma, options.seed)
        for way in ways:
            rows += [{"sigma": sigma} | run(*way, engines, steps, data) for engines in sizes]
    machine = (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, "
        f"NumPy {np.__version__}; load {os.getloadavg()[0]:.1f}"
    )
    console = Console(width=150)
    console.print(machine)
    console.print(table(rows))
    if options.plot:
        plot(rows, options.plot)
    if options.json:
        settings = {
            "slots": SLOTS, "questions_a_step": QUESTIONS, "rollout_seconds": ROLLOUT_SECONDS,
            "update_seconds": UPDATE_SECONDS, "load_seconds": LOAD_SECONDS, "steps": steps,
            "seed": options.seed,
        }  # fmt: skip
        rounded = [
            {name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()}
            for row in rows
        ]
        result = {"machine": machine, "settings": settings, "rows": rounded}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def name_of(row: dict[str, Any]) -> str:
    """A way's name in table and plot."""
    if row["mode"] == "asynchronous":
        return f"asynchronous, bound {row['bound']}"
    return f"{row['mode']}, {row['schedule']}"


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """All rows."""
    shown = Table(
        "sigma", "way", "engines", "s a step", "questions/min", "slots used", "wasted",
        "staleness", "most",
    )  # fmt: skip
    for row in rows:
        shown.add_row(
            str(row["sigma"]),
            name_of(row),
            str(row["engines"]),
            f"{row['seconds_a_step']:.1f}",
            f"{row['questions_a_minute']:.1f}",
            f"{row['slots_used']:.1%}",
            f"{row['wasted']:.1%}",
            f"{row['staleness_mean']:.2f}",
            str(row["staleness_most"]),
        )
    return shown


def plot(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Throughput and mean staleness against the number of engines; dashed for sigma 0.5."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
    names = list(dict.fromkeys(map(name_of, rows)))
    for sigma, style in ((0.5, "--"), (1.0, "-")):
        for place, name in enumerate(names):
            own = [row for row in rows if row["sigma"] == sigma and name_of(row) == name]
            sizes = [row["engines"] for row in own]
            line = {"linestyle": style, "color": f"C{place}", "linewidth": 1.3}
            label = name if sigma == 1.0 else None
            left.plot(sizes, [row["questions_a_minute"] for row in own], **line, label=label)
            right.plot(sizes, [row["staleness_mean"] for row in own], **line)
    left.set(xscale="log", yscale="log", xlabel="engines", ylabel="questions a minute")
    right.set(xscale="log", xlabel="engines", ylabel="mean staleness of rollouts (versions)")
    for axes in (left, right):
        axes.set_xticks([1, 4, 16, 64, 256], ["1", "4", "16", "64", "256"])
        axes.grid(alpha=0.3)
    left.axhline(60 * QUESTIONS / UPDATE_SECONDS, color="grey", linewidth=0.8)
    left.text(1, 62 * QUESTIONS / UPDATE_SECONDS, "updates alone", fontsize=7, color="grey")
    left.legend(fontsize=7, title="solid: sigma 1.0; dashed: 0.5", title_fontsize=7)
    figure.savefig(file, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
