"""Claim: advantage and objective on ragged tokens cost no more than TRL's and verl's on padded ones.

1,024 rollouts (128 questions, 8 each) of at most 2,048 tokens, once with lengths spread as a language
model's are (log-normal, median 500), once all of them 2,048 long, where there is no padding to save.
A row is the time from rewards and log-probs to the gradient by the log-probs: advantage, objective,
aggregation and backward; float32, one thread. verl's are its own functions of `core_algos` on tables
of 1,024 by 2,048; TRL's is the loss method of its own GRPOTrainer on a stub that holds what it reads.
Its advantages are made where it samples and cannot be called alone: it is given them, and set against
our loss with advantages given, a number a token where TRL's are one a rollout. Contenders take turns,
`--repeats` times; a ratio is ours over theirs, the median of the turns with its least and most.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import verl.trainer.ppo.core_algos as core_algos
from adapt_vs_fixed import machine
from rich.console import Console
from rich.table import Table
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer
from verl.workers.config import ActorConfig

from optpo.advantages.centred import CentredAdvantage
from optpo.advantages.gae import GaeAdvantage
from optpo.batch import RolloutBatch
from optpo.objectives.aggregate import token_weights
from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.divergence import DivergenceObjective
from optpo.objectives.token_batch import TokenBatch
from optpo.objectives.truncated import TruncatedObjective
from optpo.training.stages import Advantage, Objective

QUESTIONS, GROUP, LONGEST = 128, 8, 2048


@dataclass(frozen=True)
class Case:
    """The same rollouts end to end and in padded tables."""

    batch: RolloutBatch
    rewards: Tensor
    logp: Tensor
    logp_old: Tensor
    mask: Tensor

    def padded(self, flat: Tensor) -> Tensor:
        """A table (R, LONGEST) of values (C,)."""
        return torch.zeros(self.mask.shape).masked_scatter(self.mask.bool(), flat)


@dataclass(frozen=True)
class Method:
    """A method by ours and by verl's names; `trl` are its settings in TRL, none where it has none."""

    name: str
    advantage: Advantage
    objective: Objective
    estimator: str
    loss: str
    mode: str = "token-mean"
    settings: Mapping[str, float] | None = None
    trl: Mapping[str, Any] | None = None


NARROW = {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4}
METHODS = (
    Method(
        "grpo, token mean", CentredAdvantage(), ClippedObjective(), "grpo_vectorized", "vanilla",
        trl={"loss_type": "bnpo"},
    ),
    Method(
        "grpo, sequence mean",
        CentredAdvantage(),
        ClippedObjective(aggregate="sequence-mean-token-mean"),
        "grpo", "vanilla", "seq-mean-token-mean", trl={"loss_type": "grpo"},
    ),
    Method(
        "dr-grpo", CentredAdvantage(scale="none"), ClippedObjective(aggregate="constant-length"),
        "grpo_vectorized", "vanilla", "seq-mean-token-sum-norm", trl={"loss_type": "dr_grpo"},
    ),
    Method(
        "rloo", CentredAdvantage(centre="leave-one-out", scale="none"), ClippedObjective(),
        "rloo_vectorized", "vanilla",
    ),
    Method(
        "opo", CentredAdvantage(centre="token-mean", scale="none"), ClippedObjective(), "opo",
        "vanilla",
    ),
    Method(
        "reinforce++", CentredAdvantage(centre="none", scale="batch-tokens", epsilon=1e-8),
        ClippedObjective(), "reinforce_plus_plus", "vanilla",
    ),
    Method(
        "reinforce++ baseline", CentredAdvantage(scale="batch-tokens", epsilon=1e-8),
        ClippedObjective(), "reinforce_plus_plus_baseline", "vanilla",
    ),
    Method(
        "remax", CentredAdvantage(centre="greedy", scale="none"), ClippedObjective(), "remax",
        "vanilla",
    ),
    Method("ppo", GaeAdvantage(), ClippedObjective(), "gae", "vanilla"),
    Method(
        "gspo", CentredAdvantage(),
        ClippedObjective(
            ratio="sequence", clip_low=3e-4, clip_high=4e-4, aggregate="sequence-mean-token-mean"
        ),
        "grpo_vectorized", "gspo", "seq-mean-token-mean", NARROW,
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 3e-4,
         "epsilon_high": 4e-4},
    ),
    Method(
        "cispo", CentredAdvantage(), TruncatedObjective(clip_low=0.2, clip_high=0.2),
        "grpo_vectorized", "cispo", trl={"loss_type": "cispo", "epsilon_high": 1.2},
    ),
    Method(
        "dppo, variation", CentredAdvantage(), DivergenceObjective(), "grpo_vectorized", "dppo_tv",
        settings={"clip_ratio_low": 0.15, "clip_ratio_high": 0.15, "clip_ratio_c": 20.0},
    ),
    Method(
        "dppo, divergence", CentredAdvantage(),
        DivergenceObjective(divergence="kl", bound_low=0.05, bound_high=0.05),
        "grpo_vectorized", "dppo_kl",
        settings={"clip_ratio_low": 0.05, "clip_ratio_high": 0.05, "clip_ratio_c": 20.0},
    ),
)  # fmt: skip


def main() -> None:
    """Time every method on both sets of lengths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="three repeats")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    repeats = 3 if options.quick else options.repeats
    rows: list[dict[str, Any]] = []
    for lengths in ("log-normal", "all 2,048"):
        case = draw(options.seed, ragged=lengths == "log-normal")
        share = float(case.batch.lengths.sum()) / case.mask.numel()
        rows += [
            {"lengths": lengths, "share_of_padded": share, **timed(method, case, repeats)}
            for method in METHODS
        ]
    result = {"machine": machine(), "seed": options.seed, "repeats": repeats, "rows": rows}
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def draw(seed: int, *, ragged: bool) -> Case:
    """Random rollouts of random lengths, or of the longest."""
    generator = torch.Generator().manual_seed(seed)
    count = QUESTIONS * GROUP
    lengths = torch.full((count,), LONGEST)
    if ragged:
        spread = (torch.randn(count, generator=generator) * 0.8).exp()
        lengths = (500 * spread).long().clamp(1, LONGEST)
        lengths[0] = LONGEST
    tokens = int(lengths.sum())

    def normal() -> Tensor:
        return torch.randn(tokens, generator=generator)

    logp_old = -normal().abs()
    spans = lengths + 1
    batch = RolloutBatch(
        tokens=torch.randint(3, 1000, (int(spans.sum()),), generator=generator),
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), spans.cumsum(0)]),
        prompt_lengths=torch.ones(count, dtype=torch.int64),
        groups=torch.repeat_interleave(torch.arange(QUESTIONS), GROUP),
        votes=torch.zeros(count, dtype=torch.int64),
        labels=torch.zeros(QUESTIONS, dtype=torch.int64),
        logps=logp_old,
        versions=torch.zeros(count, dtype=torch.int64),
        indices=torch.arange(GROUP).repeat(QUESTIONS),
        unfinished=torch.zeros(count, dtype=torch.bool),
        scores=torch.full((count,), torch.nan),
        question_values={"greedy": torch.rand(QUESTIONS, generator=generator).round()},
        token_values={"value": 0.1 * normal()},
    )
    rewards = (torch.rand(count, generator=generator) < 0.4).float()
    mask = (torch.arange(LONGEST) < lengths[:, None]).float()
    return Case(batch, rewards, (logp_old + 0.1 * normal()).clamp(max=0), logp_old, mask)


def timed(method: Method, case: Case, repeats: int) -> dict[str, Any]:
    """Milliseconds of each contender, and ours over theirs."""
    contenders = {"optpo": ours(method, case), "verl": verls(method, case)}
    if method.trl is not None:
        contenders["optpo, loss"] = ours_given(method, case)
        contenders["trl"] = trls(method.trl, case)
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for work in contenders.values():
        work()
    for _ in range(repeats):
        for name, work in contenders.items():
            began = time.perf_counter()
            work()
            taken[name].append(1000 * (time.perf_counter() - began))
    pairs = {"verl": "optpo", "trl": "optpo, loss"}
    ratios = {
        theirs: [mine / other for mine, other in zip(taken[ours], taken[theirs], strict=True)]
        for theirs, ours in pairs.items()
        if theirs in taken
    }
    return {
        "method": method.name,
        "milliseconds": {name: statistics.median(times) for name, times in taken.items()},
        "ratio": {
            name: {"median": statistics.median(of), "min": min(of), "max": max(of)}
            for name, of in ratios.items()
        },
    }


def ours(method: Method, case: Case) -> Callable[[], None]:
    """Advantage, objective, weights and backward on tokens end to end."""
    return lambda: step(method, case, method.advantage(case.batch, case.rewards)[0])


def ours_given(method: Method, case: Case) -> Callable[[], None]:
    """The same with the advantages given."""
    advantages, _ = method.advantage(case.batch, case.rewards)
    return lambda: step(method, case, advantages)


def step(method: Method, case: Case, advantages: Tensor) -> None:
    """Objective, weights and backward."""
    logp = case.logp.detach().requires_grad_()
    batch = TokenBatch(
        logp, case.logp_old, advantages,
        rollouts=case.batch.token_rollouts, groups=case.batch.groups,
    )  # fmt: skip
    losses, _ = method.objective(batch)
    weights = token_weights(case.batch.lengths, method.objective.aggregate, LONGEST)
    (losses * weights).sum().backward()


def verls(method: Method, case: Case) -> Callable[[], None]:
    """The same by verl's functions on padded tables, which are there beforehand."""
    token_rewards = torch.zeros_like(case.mask).scatter(
        1, case.batch.lengths[:, None] - 1, case.rewards[:, None]
    )
    settings = {"clip_ratio_c": 1e9, **(method.settings or {})}
    config = ActorConfig(
        strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, **settings
    )  # fmt: skip
    config.global_batch_info["loss_scale_factor"] = LONGEST
    estimate = core_algos.get_adv_estimator_fn(method.estimator)
    policy_loss = core_algos.get_policy_loss_fn(method.loss)
    arguments: dict[str, Any] = {
        "token_level_rewards": token_rewards,
        "response_mask": case.mask,
        "index": case.batch.groups.numpy(),
    }
    if method.estimator == "gae":
        arguments = {
            "token_level_rewards": token_rewards,
            "values": case.padded(case.batch.token_values["value"]),
            "response_mask": case.mask,
            "gamma": 1.0,
            "lam": 0.95,
        }
    elif method.estimator == "remax":
        del arguments["index"]
        baselines = case.batch.question_values["greedy"][case.batch.groups]
        arguments["reward_baselines"] = baselines
    elif method.estimator == "reinforce_plus_plus":
        del arguments["index"]
        arguments["config"] = SimpleNamespace(gamma=1.0)
    padded, padded_old = case.padded(case.logp), case.padded(case.logp_old)

    def work() -> None:
        logp = padded.detach().requires_grad_()
        advantages, _ = estimate(**arguments)
        loss, _ = policy_loss(
            old_log_prob=padded_old, log_prob=logp, advantages=advantages,
            response_mask=case.mask, loss_agg_mode=method.mode, config=config,
        )  # fmt: skip
        loss.backward()

    return work


def trls(settings: Mapping[str, Any], case: Case) -> Callable[[], None]:
    """TRL's loss and backward on padded tables, advantages given."""
    padded, padded_old = case.padded(case.logp), case.padded(case.logp_old)
    advantages = CentredAdvantage().of_rollouts(case.batch, case.rewards)
    rollouts = len(case.mask)
    inputs = {
        "prompt_ids": torch.zeros(rollouts, 2).long(),
        "prompt_mask": torch.ones(rollouts, 2).long(),
        "completion_ids": torch.zeros_like(case.mask).long(),
        "completion_mask": case.mask,
        "advantages": advantages,
        "old_per_token_logps": padded_old,
        "num_items_in_batch": case.mask.sum(),
    }

    def work() -> None:
        logp = padded.detach().requires_grad_()
        GRPOTrainer._compute_loss(stub(logp, settings), None, inputs).backward()

    return work


def stub(logp: Tensor, settings: Mapping[str, Any]) -> SimpleNamespace:
    """As much of TRL's trainer as its loss reads."""
    entropies = torch.zeros_like(logp)
    alone = SimpleNamespace(
        num_processes=1,
        gather=lambda value: value,
        gather_for_metrics=lambda value: value,
        reduce=lambda value, reduction: value,
        sync_gradients=True,
    )
    plain = {
        "beta": 0.0,
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "importance_sampling_level": "token",
    }
    return SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logp, entropies, None),
        accelerator=alone,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=LONGEST,
        aux_loss_enabled=False,
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        **{**plain, **settings},
    )


def show(result: Mapping[str, Any]) -> None:
    """A row a method and set of lengths."""
    console = Console(width=130)
    console.print(f"{result['machine']}; {result['repeats']} turns")
    table = Table(
        "lengths", "method", "optpo", "verl", "ours / verl", "our loss", "trl", "ours / trl"
    )
    for row in result["rows"]:
        taken = row["milliseconds"]
        table.add_row(
            row["lengths"],
            row["method"],
            *(f"{taken[name]:.0f} ms" for name in ("optpo", "verl")),
            words(row["ratio"]["verl"]),
            *(f"{taken[name]:.0f} ms" for name in ("optpo, loss", "trl") if name in taken),
            *(words(ratio) for name, ratio in row["ratio"].items() if name == "trl"),
        )
    console.print(table)


def words(ratio: Mapping[str, float]) -> str:
    """A ratio with its spread."""
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


if __name__ == "__main__":
    main()
