"""Claim: every recipe trains the embedded model, and none diverges.

Each recipe once, one after the other in one process, on the embedded questions, until it has sampled
as many tokens as every other (`--tokens`, with what its baseline cost: greedy rollouts, first values).
Accuracy before and after on both question sets: 16 rollouts a question, whose tokens are not counted.

A step samples 192 rollouts or less (24 questions of 8; recipes with other votes ask as many more or
fewer; those with a sequential test 24), where a recipe does not choose its questions itself:
otherwise the number of steps would be all that differs.

Recipes that are about lengths get lengths of this model's scale (answers of 14 to 27 tokens), by
settings that the table of `SCALED` lists; rto's guide is a model that `otr` has trained before.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from adapt_vs_fixed import machine
from rich.console import Console
from rich.table import Table

from optpo.recipes import build_settings, recipe_names, settings_to_mapping
from optpo.reporting.terminal import open_view
from optpo.training.loop import adapt
from optpo.training.prompts import UniformPrompts
from optpo.training.run_directory import RunDirectory
from optpo.voting import FixedRule

BASELINE = "grpo"
SLACK = 0.02
ROLLOUTS, QUESTIONS = 192, 24
BUDGETS = "[14, 20, 26, 32]"
SCALED = {
    # Steps are lines of working, which end with a comma.
    "dapo-direct-advantage": ["advantage.step_token=13", "objective.step_token=13"],
    "hbpo": [
        # The embedded model knows no words to announce a budget in.
        'prompts.sentence=""',
        *(f"{stage}.budgets={BUDGETS}" for stage in ("prompts", "shape", "advantage")),
        "shape.context=48",
        "advantage.context=48",
    ],
}


def main() -> None:
    """Run the recipes and print a row each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipes", default=",".join(recipe_names()))
    parser.add_argument("--tokens", type=int, default=250_000)
    parser.add_argument("--quick", action="store_true", help="a fifth of the tokens")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokens = options.tokens // 5 if options.quick else options.tokens
    recipes = list(dict.fromkeys([BASELINE, *options.recipes.split(",")]))
    rows = [run(recipe, options.seed, tokens) for recipe in recipes]
    result = {"machine": machine(), "seed": options.seed, "tokens": tokens, "rows": rows}
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def run(recipe: str, seed: int, tokens: int) -> dict[str, Any]:
    """One recipe: accuracies, tokens and seconds, and whether all its losses were finite."""
    folder = Path(tempfile.mkdtemp(prefix="optpo-benchmark-"))
    try:
        extra = list(SCALED.get(recipe, ()))
        if recipe == "rto":
            extra.append(f"model.guide={trained('otr', seed, tokens // 5, folder / 'guide')}")
        summary, metrics = train(recipe, seed, tokens, folder / "run", extra)
    finally:
        shutil.rmtree(folder)
    return {
        "recipe": recipe,
        "steps": summary["steps"],
        "tokens": metrics[-1]["tokens_total"],
        "seconds": summary["seconds_sampling"] + summary["seconds_update"],
        "seconds_sampling": summary["seconds_sampling"],
        "before": summary["accuracy_before"],
        "accuracy": summary["accuracy_after"],
        "unseen": summary["unseen_accuracy_after"],
        "skipped_updates": sum(row.get("skipped_updates", 0) for row in metrics),
        "steps_held_back": sum(bool(row["guards"]) for row in metrics),
    }


def trained(recipe: str, seed: int, tokens: int, folder: Path) -> Path:
    """A model that a recipe has made."""
    train(recipe, seed, tokens, folder, [])
    return folder / "final"


def train(
    recipe: str, seed: int, tokens: int, folder: Path, extra: Sequence[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A run's summary, and its metrics a step."""
    plain = build_settings(recipe, assignments=extra)
    if isinstance(plain.prompts, UniformPrompts):
        fixed = isinstance(plain.allocate, FixedRule)
        questions = max(ROLLOUTS // plain.allocate.cap, 3) if fixed else QUESTIONS
        extra = [*extra, f"prompts.questions_per_step={questions}"]
    settings = build_settings(
        recipe,
        assignments=[
            f"seed={seed}", "steps=10000", f"most_tokens={tokens}", "audit=0", "evaluate.every=0",
            "evaluate.samples=16", "evaluate.unseen_samples=16", "checkpoint_every=1000", *extra,
        ],
    )  # fmt: skip
    directory = RunDirectory.create(folder, settings_to_mapping(settings))
    with open_view() as view:
        summary = adapt(settings, directory, view)
    metrics = directory.rows("metrics.jsonl")
    directory.close()
    return summary, metrics


def show(result: Mapping[str, Any]) -> None:
    """The table, best first."""
    console = Console(width=120)
    console.print(f"{result['machine']}; seed {result['seed']}, {result['tokens']:,} tokens")
    table = Table("recipe", "steps", "tokens", "seconds", "adapt", "unseen", "")
    level = next(row["accuracy"] for row in result["rows"] if row["recipe"] == BASELINE)
    for row in sorted(result["rows"], key=lambda row: -row["accuracy"]):
        remarks = [
            text
            for text, holds in (
                ("less than grpo", row["accuracy"] < level - SLACK),
                (f"{row['skipped_updates']:.0f} updates skipped", row["skipped_updates"] > 0),
                (f"{row['steps_held_back']} steps held back", row["steps_held_back"] > 0),
            )
            if holds
        ]
        table.add_row(
            row["recipe"],
            str(row["steps"]),
            f"{row['tokens']:,}",
            f"{row['seconds']:.1f}",
            f"{100 * row['accuracy']:.1f} %",
            f"{100 * row['unseen']:.1f} %",
            ", ".join(remarks),
        )
    console.print(table)


if __name__ == "__main__":
    main()
