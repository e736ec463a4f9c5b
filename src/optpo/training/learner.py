"""The last stages of a step: from the votes it took to the policy it has moved."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, pack
from optpo.data import Question
from optpo.sampling.voter import Voter
from optpo.training.distributed import ALONE, Processes
from optpo.training.policy import Policy
from optpo.training.reference import reference_logps
from optpo.training.sampler import Sampled
from optpo.training.schedule import learning_rate_factor
from optpo.training.settings import RunSettings
from optpo.training.step_rows import metrics_row, rollout_rows, slot_figures, verdict_rows
from optpo.training.update import StepTargets, behaviour, make_optimizer, update


@dataclass(frozen=True)
class StepRows:
    """A step as the lines of the run's files."""

    metrics: dict[str, Any]
    verdicts: Iterable[Mapping[str, Any]]
    rollouts: Iterable[Mapping[str, Any]]


class Learner:
    """A policy that learns from votes, with its optimiser."""

    def __init__(
        self,
        settings: RunSettings,
        policy: Policy,
        voter: Voter,
        questions: Mapping[str, Question],
        processes: Processes = ALONE,
    ) -> None:
        self.settings, self.policy, self.voter = settings, policy, voter
        self.questions, self.processes = questions, processes
        self.optimizer = make_optimizer(policy, settings.update)
        self.reference = reference_logps(settings, policy, processes)

    def learn(self, sampled: Sampled, flips: Sequence[bool | None]) -> StepRows:
        """Reward, select, advantage, objective and update.

        `flips` say of each visit whether its label changed. Raises RuntimeError if a rollout is of
        an older policy than `overlap` allows.
        """
        settings, began = self.settings, time.monotonic()
        visits, ballots = sampled.visits, sampled.ballots
        batch = pack([ballot.rollouts for ballot in ballots], [b.label_class for b in ballots])
        rewards = settings.reward(batch)
        keep = settings.select(batch, rewards)
        row = metrics_row(self.voter, visits, self.questions, batch, rewards, keep, flips)
        row["questions_rested"] = len(sampled.scheduled) - len(visits)
        row["tokens_prefill"] = sampled.tokens_prefill
        row |= slot_figures(sampled.occupancies)
        row |= self._staleness(batch)
        row["guards"] = settings.guards.alarms(
            row["questions"], row["entropy"], row["label_flip_rate"], row["undecided_share"]
        )
        if row["guards"]:
            keep = torch.zeros_like(keep)
            row |= {"rollouts_kept": 0, "tokens_kept": 0, "tokens_untrained": row["tokens"]}
        advantages = torch.full((batch.rollouts,), torch.nan)
        if keep.any():
            metrics, advantages[keep] = self._update(batch.select(keep), rewards[keep])
            row |= metrics | {"sampling_gap": max(sampled.gap, metrics["sampling_gap"])}
            if skipped := int(metrics["skipped_updates"]):
                row["guards"].append(
                    f"{skipped} of {settings.update.epochs * settings.update.minibatches} optimiser "
                    "steps skipped: loss or gradient was not finite"
                )
        row["seconds_update"] = time.monotonic() - began
        rollouts = [rollout for ballot in ballots for rollout in ballot.rollouts]
        return StepRows(
            {"step": sampled.step, "version": self.policy.version, **row},
            verdict_rows(sampled.step, self.voter, visits, self.questions),
            rollout_rows(rollouts, keep, rewards, advantages),
        )

    def _staleness(self, batch: RolloutBatch) -> dict[str, float]:
        """By how many optimiser steps the policy is ahead of the one that sampled."""
        settings = self.settings
        behind = self.policy.version - batch.versions
        mean, most = float(behind.double().mean()), int(behind.max())
        allowed = settings.overlap * settings.update.epochs * settings.update.minibatches
        if not 0 <= int(behind.min()) <= most <= allowed:
            raise RuntimeError(
                f"rollouts of versions {int(batch.versions.min())} to {int(batch.versions.max())} "
                f"came to version {self.policy.version} to learn from, of which {allowed} optimiser "
                "steps at most may lie between"
            )
        return {"staleness_mean": mean, "staleness_max": most}

    def _update(self, batch: RolloutBatch, rewards: Tensor) -> tuple[dict[str, float], Tensor]:
        """Move the policy by the rollouts kept; returns metrics, and mean advantages a rollout."""
        settings = self.settings
        logp_old, values = behaviour(self.policy, settings.update, batch, self.processes)
        advantages, returns = settings.advantage(batch, rewards, values)
        targets = StepTargets(
            advantages=advantages,
            logp_old=logp_old,
            logp_ref=self.reference(batch) if self.reference else None,
            values_old=values,
            returns=returns,
        )
        total = settings.steps * settings.update.epochs * settings.update.minibatches
        metrics = update(
            self.policy,
            self.optimizer,
            settings.objective,
            settings.update,
            batch,
            targets,
            lambda done: learning_rate_factor(settings.update, done, total),
            self.processes,
        )
        sums = torch.zeros(batch.rollouts).index_add(0, batch.token_rollouts, advantages)
        return metrics, sums / batch.lengths
