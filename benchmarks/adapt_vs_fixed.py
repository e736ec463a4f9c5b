"""Claim: stopping each vote early reaches the accuracy of a fixed 64 votes for fewer tokens and seconds.

Runs `ttrl` (64 votes a question, 32 trained) and the adaptive recipes side by side on the embedded
model, one after the other in one process, several seeds. After every step both question sets are
evaluated (16 rollouts a question; neither their tokens nor their seconds are counted, on either side).

The ratio of a recipe, a seed: what it needs to reach, and hold over three evaluations, the final
accuracy of `ttrl` less half a point on the adaptation set, divided by what `ttrl` needed to reach
and hold that same level. Null where it was not reached.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from rich.console import Console
from rich.table import Table

from optpo.recipes import build_settings, settings_to_mapping
from optpo.reporting.terminal import open_view
from optpo.training.loop import adapt
from optpo.training.run_directory import RunDirectory

BASELINE = "ttrl"
HELD = 3
SLACK = 0.005

Curve = list[dict[str, Any]]


def main() -> None:
    """Run the contenders and print rows, ratios and the machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", default="optpo,optpo-warm,optpo-ppo,optpo-sft")
    parser.add_argument(
        "--steps", type=int, default=12, help="of ttrl; the others take twice as many"
    )
    parser.add_argument(
        "--set", nargs="*", default=[], help="settings of all contenders, a.b=value"
    )
    parser.add_argument("--quick", action="store_true", help="one seed, eight steps")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = options.seed[:1] if options.quick else options.seed
    steps = 8 if options.quick else options.steps
    recipes = [BASELINE, *options.recipes.split(",")]
    curves = {
        # Steps of the adaptive recipes are cheap; they are compared by tokens and seconds.
        (recipe, seed): run(recipe, seed, steps if recipe == BASELINE else 2 * steps, options.set)
        for seed in seeds
        for recipe in dict.fromkeys(recipes)
    }
    result = {"machine": machine(), "steps": steps} | compare(curves, seeds)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def run(recipe: str, seed: int, steps: int, extra: Sequence[str]) -> Curve:
    """One run; its evaluations on both sets, a row a step, with tokens and seconds until then."""
    assignments = [
        f"seed={seed}",
        f"steps={steps}",
        "audit=0",
        "evaluate.samples=16",
        "evaluate.unseen_samples=16",
        "evaluate.every=1",
        *extra,
    ]
    settings = build_settings(recipe, assignments=assignments)
    folder = Path(tempfile.mkdtemp(prefix="optpo-benchmark-"))
    try:
        directory = RunDirectory.create(folder, settings_to_mapping(settings))
        with open_view() as view:
            adapt(settings, directory, view)
        rows = directory.rows("evaluations.jsonl")
        directory.close()
    finally:
        shutil.rmtree(folder)
    unseen = {row["step"]: row["mean"] for row in rows if row["set"] == "unseen"}
    return [
        {
            "step": row["step"],
            "tokens": row["tokens_total"],
            "seconds": row["seconds_total"],
            "accuracy": row["mean"],
            "unseen": unseen[row["step"]],
        }
        for row in rows
        if row["set"] == "adapt"
    ]


def compare(curves: Mapping[tuple[str, int], Curve], seeds: Sequence[int]) -> dict[str, Any]:
    """Rows a run and ratios a recipe."""
    rows = [
        {
            "recipe": recipe,
            "seed": seed,
            "tokens": curve[-1]["tokens"],
            "seconds": curve[-1]["seconds"],
            "accuracy_final": curve[-1]["accuracy"],
            "unseen_final": curve[-1]["unseen"],
            "curve": curve,
        }
        for (recipe, seed), curve in curves.items()
    ]
    ratios = {}
    for recipe in dict.fromkeys(recipe for recipe, _ in curves):
        found: dict[str, list[float | None]] = {"tokens": [], "seconds": []}
        for seed in seeds:
            baseline = curves[BASELINE, seed]
            target = baseline[-1]["accuracy"] - SLACK
            ours, theirs = reached(curves[recipe, seed], target), reached(baseline, target)
            for unit, values in found.items():
                values.append(ours[unit] / theirs[unit] if ours and theirs else None)
        ratios[recipe] = {unit: spread(values) for unit, values in found.items()}
    return {"seeds": list(seeds), "rows": rows, "ratios": ratios}


def reached(curve: Curve, target: float) -> dict[str, Any] | None:
    """The first evaluation from which `HELD` in a row (or all that are left) reach the target."""
    for place in range(1, len(curve)):
        window = curve[place : place + HELD]
        if all(row["accuracy"] >= target for row in window):
            return curve[place]
    return None


def spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Median, least and most over seeds; null if any seed did not get there."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return {"median": None, "min": min(known, default=None), "max": None}
    return {"median": statistics.median(known), "min": min(known), "max": max(known)}


def machine() -> str:
    """What it ran on."""
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, "
        f"1 thread, Python {platform.python_version()}"
    )


def show(result: Mapping[str, Any]) -> None:
    """Tables of runs and ratios."""
    console = Console()
    console.print(result["machine"])
    runs = Table("recipe", "seed", "tokens", "seconds", "adapt", "unseen")
    for row in result["rows"]:
        accuracies = (f"{100 * row[name]:.1f} %" for name in ("accuracy_final", "unseen_final"))
        runs.add_row(
            row["recipe"],
            str(row["seed"]),
            f"{row['tokens']:,}",
            f"{row['seconds']:.1f}",
            *accuracies,
        )
    console.print(runs)
    table = Table("recipe", "tokens: median (min to max)", "seconds: median (min to max)")
    for recipe, ratio in result["ratios"].items():
        table.add_row(recipe, *(words(ratio[unit]) for unit in ("tokens", "seconds")))
    console.print(table)


def words(ratio: Mapping[str, float | None]) -> str:
    """A ratio's spread, or that some seed did not reach the level."""
    if ratio["median"] is None:
        return "not reached by every seed"
    return f"{ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})"


if __name__ == "__main__":
    main()
