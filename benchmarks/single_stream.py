"""Claim: at equal rollouts Single-stream PO learns more than groups do, and wastes none of them.

1. Training: `spo-single-stream` against `grpo` (8 rollouts a question) on the embedded questions with
   labels, one after the other in one process, several seeds, equal rollouts a step (48: SPO draws 48
   of the 96 questions, grpo asks 6 of them 8 times; all else as in the recipes). Accuracy against
   rollouts on both question sets (16 rollouts a question, 4 on unseen ones, not counted); the 8 initial
   rollouts a question that SPO's values begin with are counted as rollouts of SPO. The share of
   rollouts whose advantage is 0.
2. Variance: of the gradient estimate of one step, at the policy of the first step and at one that
   grpo has trained for some steps. Many batches of 48 rollouts are drawn from that policy for each
   method; the trace of the covariance of their gradients over the squared length of their mean, both
   estimated without bias. SPO's values are as they would be: from 8 other rollouts.
3. Sampling time where durations vary: a simulation, in units of the median duration. The paper's
   figure of 4.35x is one too; its exact parameters were not obtained. Durations are log-normal, drawn
   for rollouts alone or for questions (all rollouts of one question share a factor). "pool" is the
   paper's set-up: SPO begins more rollouts than it needs and trains on those that end first, grpo
   waits for the slowest of every group. That selects short rollouts, and a step that waits for all of
   its own rollouts takes SPO as long as it takes grpo ("all"). "stream" is what our scheduler can do
   without that bias: as many slots as rollouts a step, a rollout begins as soon as a slot is free, and
   an update is made of the next rollouts in the order in which they were begun.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adapt_vs_fixed import machine
from rich.console import Console
from rich.table import Table

from optpo.data import load_questions, open_scorer
from optpo.recipes import build_settings, settings_to_mapping
from optpo.reporting.terminal import open_view
from optpo.selection.prioritized_draw import draw_questions
from optpo.training.distributed import ALONE
from optpo.training.engines import open_voter
from optpo.training.gradient import StepTargets, accumulate
from optpo.training.judge import judge
from optpo.training.loading import load_policy
from optpo.training.loop import adapt
from optpo.training.policy import Policy
from optpo.training.questions import prompt_tokens
from optpo.training.run_directory import RunDirectory
from optpo.training.settings import RunSettings
from optpo.training.visits import Visit
from optpo.voting import FixedRule

ROLLOUTS, GROUP, INITIAL, QUESTIONS = 48, 8, 8, 96
RECIPES = {
    "grpo": [f"prompts.questions_per_step={ROLLOUTS // GROUP}"],
    "spo-single-stream": [f"prompts.questions_per_step={ROLLOUTS}"],
}
SPREADS = (0.5, 1.0, 1.5, 2.0)


def main() -> None:
    """Train, measure variances, simulate, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batches", type=int, default=64, help="of the estimates of variance")
    parser.add_argument("--quick", action="store_true", help="one seed, 40 steps, 16 batches")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = options.seed[:1] if options.quick else options.seed
    steps, batches = (40, 16) if options.quick else (options.steps, options.batches)
    folder = Path(tempfile.mkdtemp(prefix="optpo-benchmark-"))
    try:
        curves = {
            (recipe, seed): train(recipe, seed, steps, folder)
            for recipe in RECIPES
            for seed in seeds
        }
        trained = str(folder / f"grpo-{seeds[0]}" / "final")
        variances = [
            {"policy": name, **variance(model, batches, seeds[0])}
            for name, model in (("before training", None), (f"after {steps} steps", trained))
        ]
    finally:
        shutil.rmtree(folder)
    result = {
        "machine": machine(),
        "rollouts_a_step": ROLLOUTS,
        "curves": [
            {"recipe": recipe, "seed": seed, **curve} for (recipe, seed), curve in curves.items()
        ],
        "variance": variances,
        "durations": [simulated(spread, shared) for spread in SPREADS for shared in (0.0, 0.5)],
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    show(result, seeds)


def train(recipe: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Accuracy against rollouts, and the share of rollouts without advantage."""
    before = QUESTIONS * INITIAL if recipe == "spo-single-stream" else 0
    steps -= before // ROLLOUTS
    settings = build_settings(
        recipe,
        assignments=[
            f"seed={seed}", f"steps={steps}", "audit=0", "evaluate.every=8", "evaluate.samples=16",
            "evaluate.unseen_samples=4", "checkpoint_every=1000", *RECIPES[recipe],
        ],
    )  # fmt: skip
    directory = RunDirectory.create(folder / f"{recipe}-{seed}", settings_to_mapping(settings))
    with open_view() as view:
        summary = adapt(settings, directory, view)
    metrics = directory.rows("metrics.jsonl")
    evaluations = directory.rows("evaluations.jsonl")
    directory.close()
    wasted = sum(row["rollouts_without_advantage"] for row in metrics)
    return {
        "rollouts": before + summary["rollouts"],
        "tokens": metrics[-1]["tokens_total"],
        "without_signal": wasted / summary["rollouts"],
        "without_signal_last_third": last_third(metrics),
        "curve": [
            {
                "rollouts": before + row["step"] * ROLLOUTS,
                "accuracy": row["mean"],
                "unseen": other["mean"],
            }
            for row, other in zip(
                *([row for row in evaluations if row["set"] == of] for of in ("adapt", "unseen")),
                strict=True,
            )
        ],
    }


def last_third(metrics: Sequence[Mapping[str, Any]]) -> float:
    """The share of rollouts without advantage in the last third of the steps."""
    late = metrics[-max(len(metrics) // 3, 1) :]
    return sum(r["rollouts_without_advantage"] for r in late) / sum(r["rollouts"] for r in late)


def variance(model: str | None, batches: int, seed: int) -> dict[str, Any]:
    """Trace of the covariance of a step's gradient over the squared length of its mean."""
    settings = {
        recipe: build_settings(
            recipe, assignments=[*extra, *([f"model.name={model}"] if model else [])]
        )
        for recipe, extra in RECIPES.items()
    }
    plain = settings["grpo"]
    # A model that has a folder has no settings of its own: those of the embedded one are wanted.
    embedded = build_settings("grpo")
    policy = load_policy(plain.model, 1.0, plain.update.pass_tokens)
    questions = {question.id: question for question in load_questions("adapt")}
    prompts = prompt_tokens(policy, list(questions.values()), plain.model, embedded.data, 48)
    here = replace(embedded, model=plain.model)
    with open_voter(policy, here, prompts.values()) as voter:
        scorer = open_scorer(embedded.score, questions, embedded.data.answers, voter.verifier)

        def sampled(names: Sequence[str], votes: int, purpose: str) -> Any:
            ballots = voter.ballots({name: prompts[name] for name in names})
            voter.vote(ballots, FixedRule(votes=votes), seed=seed, purpose=purpose)
            scores = (scorer.score(ballot.rollouts) for ballot in ballots)
            visits = [
                Visit(ballot, scores=tuple(given))
                for ballot, given in zip(ballots, scores, strict=True)
            ]
            return judge(embedded.reward, visits)

        names = list(prompts)
        generator = np.random.default_rng(seed)
        gradients: dict[str, list[torch.Tensor]] = {recipe: [] for recipe in RECIPES}
        silent: dict[str, list[float]] = {recipe: [] for recipe in RECIPES}
        for number in range(batches):
            some = list(generator.choice(names, ROLLOUTS // GROUP, replace=False))
            batch, rewards = sampled(some, GROUP, f"groups {number}")
            gradient, share = slope(policy, settings["grpo"], batch, rewards)
            gradients["grpo"].append(gradient)
            silent["grpo"].append(share)
            _, known = sampled(names, INITIAL, f"values {number}")
            values = known.view(len(names), INITIAL).mean(1)
            # As the recipe draws them: the uncertain ones more often.
            drawn = draw_questions(names, values.tolist(), ROLLOUTS, seed=seed, step=number)
            batch, rewards = sampled([names[place] for place in drawn], 1, f"singles {number}")
            values = values[drawn]
            batch = replace(batch, question_values={"tracked": values})
            gradient, share = slope(policy, settings["spo-single-stream"], batch, rewards)
            gradients["spo-single-stream"].append(gradient)
            silent["spo-single-stream"].append(share)
    return {
        recipe: {
            "relative_variance": relative_variance(torch.stack(found)),
            "without_signal": statistics.mean(silent[recipe]),
        }
        for recipe, found in gradients.items()
    }


def slope(
    policy: Policy, settings: RunSettings, batch: Any, rewards: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """The gradient of a step, and the share of its rollouts that have no advantage."""
    advantages, _ = settings.advantage(batch, rewards)
    per_rollout = torch.zeros(batch.rollouts).index_add(0, batch.token_rollouts, advantages.abs())
    accumulate(
        policy,
        settings.objective,
        batch,
        StepTargets(advantages),
        torch.arange(batch.rollouts),
        ALONE,
    )
    parts = [parameter.grad for parameter in policy.trainable().values()]
    gradient = torch.cat([part.flatten() for part in parts if part is not None])
    for parameter in policy.trainable().values():
        parameter.grad = None
    return gradient, float((per_rollout == 0).float().mean())


def relative_variance(gradients: torch.Tensor) -> float:
    """Of estimates (N, D): their variance, summed over D, over the squared length of the mean."""
    mean = gradients.double().mean(0)
    total = float((gradients.double() - mean).square().sum()) / (len(gradients) - 1)
    return total / (float(mean.square().sum()) - total / len(gradients))


def simulated(
    spread: float, shared: float, rollouts: int = 256, repeats: int = 400
) -> dict[str, Any]:
    """Time of a step, in median durations; `shared` is the share of log-variance of a question."""
    generator = np.random.default_rng(7)

    def durations(questions: int, each: int) -> np.ndarray:
        of_question = generator.standard_normal((repeats, questions, 1)) * np.sqrt(shared)
        own = generator.standard_normal((repeats, questions, each)) * np.sqrt(1 - shared)
        return np.exp(spread * (of_question + own))

    groups = durations(rollouts // GROUP, GROUP)
    singles = durations(rollouts, 1)[..., 0]
    more = durations(rollouts * 3 // 2, 1)[..., 0]
    more_groups = durations(rollouts // GROUP * 3 // 2, GROUP).max(-1)
    chosen = np.sort(more, -1)
    return {
        "spread": spread,
        "shared": shared,
        "grpo_all": float(groups.max((1, 2)).mean()),
        "spo_all": float(singles.max(-1).mean()),
        "grpo_pool": float(np.sort(more_groups, -1)[:, rollouts // GROUP - 1].mean()),
        "spo_pool": float(chosen[:, rollouts - 1].mean()),
        "mean_duration": float(singles.mean()),
        "mean_duration_of_pool": float(chosen[:, :rollouts].mean()),
        "grpo_stream": streamed(groups.reshape(-1), rollouts),
        "spo_stream": streamed(singles.reshape(-1), rollouts),
    }


def streamed(durations: np.ndarray, rollouts: int, ahead: int = 1) -> float:
    """Time of a step where slots are refilled and rollouts begin at most `ahead` steps early."""
    free = [0.0] * rollouts
    updates = [0.0]
    steps = len(durations) // rollouts
    for step in range(steps):
        # The first rollout of this step may begin once the step `ahead` + 1 before it is done.
        earliest = updates[max(step - ahead, 0)]
        ends = []
        for duration in durations[step * rollouts : (step + 1) * rollouts]:
            begin = max(heappop(free), earliest)
            heappush(free, begin + float(duration))
            ends.append(begin + float(duration))
        updates.append(max(updates[-1], *ends))
    return updates[-1] / steps


def show(result: Mapping[str, Any], seeds: Sequence[int]) -> None:
    """Tables: accuracy against rollouts, variances, durations."""
    console = Console(width=120)
    console.print(f"{result['machine']}; seeds {', '.join(map(str, seeds))}")
    table = Table("rollouts", *(f"{recipe}: adapt, unseen" for recipe in RECIPES))
    of = {
        recipe: [row for row in result["curves"] if row["recipe"] == recipe] for recipe in RECIPES
    }
    grid = sorted({p["rollouts"] for row in result["curves"] for p in row["curve"]})
    for rollouts in grid:
        cells = []
        for rows in of.values():
            reached = [at(row["curve"], rollouts) for row in rows]
            known = [point for point in reached if point is not None]
            cells.append(
                ", ".join(words([p[name] for p in known]) for name in ("accuracy", "unseen"))
                if known
                else ""
            )
        table.add_row(f"{rollouts:,}", *cells)
    console.print(table)
    table = Table("", *RECIPES)
    for name in ("without_signal", "without_signal_last_third"):
        table.add_row(name, *(words([row[name] for row in rows]) for rows in of.values()))
    for row in result["variance"]:
        for name in ("relative_variance", "without_signal"):
            table.add_row(f"{name}, {row['policy']}", *(f"{row[r][name]:.3f}" for r in RECIPES))
    console.print(table)
    table = Table(
        "spread", "shared", "all: grpo, spo", "pool: grpo, spo", "ratio", "stream: grpo, spo"
    )
    for row in result["durations"]:
        table.add_row(
            str(row["spread"]),
            str(row["shared"]),
            f"{row['grpo_all']:.1f}, {row['spo_all']:.1f}",
            f"{row['grpo_pool']:.1f}, {row['spo_pool']:.1f}",
            f"{row['grpo_all'] / row['spo_pool']:.2f}",
            f"{row['grpo_stream']:.1f}, {row['spo_stream']:.1f}",
        )
    console.print(table)


def at(curve: Sequence[Mapping[str, Any]], rollouts: int) -> Mapping[str, Any] | None:
    """The last evaluation until then; a run that ended early stands still."""
    return next((point for point in reversed(curve) if point["rollouts"] <= rollouts), None)


def words(shares: Sequence[float]) -> str:
    """Median, least and most, in per cent."""
    return (
        f"{100 * statistics.median(shares):.1f} % "
        f"({100 * min(shares):.1f} to {100 * max(shares):.1f})"
    )


if __name__ == "__main__":
    main()
