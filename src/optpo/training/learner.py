"""The last stages of a step: from the votes it took to the policy it has moved."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, segment_sum
from optpo.data import Question
from optpo.sampling.ballot import Ballot
from optpo.sampling.voter import Voter
from optpo.training.distributed import ALONE, Processes
from optpo.training.drift import drifts, take_probes
from optpo.training.gradient import StepTargets
from optpo.training.judge import Entropies, judge, judge_greedy
from optpo.training.policy import Policy
from optpo.training.prompt_state import Probe, PromptStore
from optpo.training.questions import thought_needed
from optpo.training.reference import guide_logps, reference_logps
from optpo.training.sampled import Sampled
from optpo.training.schedule import learning_rate_factor
from optpo.training.settings import RunSettings
from optpo.training.step_rows import (
    kept_figures,
    metrics_row,
    rollout_rows,
    slot_figures,
    verdict_rows,
)
from optpo.training.update import behaviour, make_optimizer, update
from optpo.training.visits import Visit


@dataclass(frozen=True)
class StepRows:
    """A step as the lines of the run's files."""

    metrics: dict[str, Any]
    verdicts: Iterable[Mapping[str, Any]]
    rollouts: Iterable[Mapping[str, Any]]


class Learner:
    """A policy that learns from votes or scores, with its optimiser."""

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
        self.needed = thought_needed(questions.values()) if "needed" in settings.needs else {}
        self.optimizer = make_optimizer(policy, settings.update)
        self.reference = reference_logps(settings, policy, processes)
        self.guide = guide_logps(settings, policy, processes)

    def learn(self, sampled: Sampled, flips: Sequence[bool | None], store: PromptStore) -> StepRows:
        """Reward, select, advantage, objective and update; then note what the memory part keeps.

        `flips` say of each visit whether its label changed. Raises RuntimeError if a rollout is of
        an older policy than `overlap` allows.
        """
        settings, began = self.settings, time.monotonic()
        visits, ballots, goes_on = sampled.visits, sampled.ballots, _go_on(sampled)
        waits = goes_on if settings.window else None
        batch, rewards = judged = judge(settings.reward, visits, self._entropies, waits)
        row = metrics_row(self.voter, visits, self.questions, judged, flips, settings.score.full)
        if settings.learns_from_gold:
            # What 64 votes would have cost says nothing where nobody votes.
            row |= {"scored_share": float((~rewards.isnan()).float().mean())}
            row |= {"label_accuracy": None, "fixed_budget_tokens": 0}
        row["questions_rested"] = len(sampled.scheduled) - len(visits)
        row["tokens_prefill"] = sampled.tokens_prefill
        row["tokens_baseline"] = sampled.tokens_greedy
        row |= slot_figures(sampled.occupancies)
        row |= self._staleness(batch)
        row["guards"] = self._alarms(row, nothing=bool((rewards.isnan() & ~goes_on).all()))
        batch = replace(
            batch,
            longest=settings.sample.max_new_tokens,
            question_values=self._question_values(visits, store),
            token_values={**batch.token_values, **_earlier(visits, batch)},
        )
        shaped = settings.shape(batch, rewards).masked_fill(goes_on, 0)
        if "greedy" in batch.question_values:
            # What cannot be compared has no reward.
            unknown = batch.question_values["greedy"].isnan()
            shaped = shaped.masked_fill(unknown[batch.groups], torch.nan)
        keep = settings.select(batch, shaped)
        if row["guards"]:
            keep = torch.zeros_like(keep)
        row |= kept_figures(batch, keep)
        advantages = torch.full((batch.rollouts,), torch.nan)
        if keep.any():
            metrics, advantages[keep] = self._update(batch.select(keep), shaped[keep], sampled.step)
            row |= metrics | {"sampling_gap": max(sampled.gap, metrics["sampling_gap"])}
            if skipped := int(metrics["skipped_updates"]):
                row["guards"].append(
                    f"{skipped} of {settings.update.epochs * settings.update.minibatches} optimiser "
                    "steps skipped: loss or gradient was not finite"
                )
        row["rollouts_without_advantage"] = int((advantages.nan_to_num() == 0).sum())
        self._remember(ballots, batch, rewards, store)
        row["seconds_update"] = time.monotonic() - began
        rollouts = [rollout for ballot in ballots for rollout in ballot.rollouts]
        return StepRows(
            {"step": sampled.step, "version": self.policy.version, **row},
            verdict_rows(sampled.step, self.voter, visits, self.questions),
            rollout_rows(rollouts, keep, shaped, advantages),
        )

    def _alarms(self, row: Mapping[str, Any], *, nothing: bool) -> list[str]:
        """What is wrong with a step, in words; `nothing`: no rollout has a reward, or will."""
        alarms = self.settings.guards.alarms
        if not self.settings.learns_from_gold:
            return alarms(
                row["questions"], row["entropy"], row["label_flip_rate"], row["undecided_share"]
            )
        # Where a verifier rewards, labels are only reported, and may change or be missing.
        unscored = ["no rollout was given a score"] if nothing else []
        return alarms(row["questions"], row["entropy"], None, 0.0) + unscored

    def begin_memory(self, visits: Sequence[Visit], store: PromptStore) -> None:
        """Let the memory part begin with what rollouts before the first step were worth."""
        batch, rewards = judge(self.settings.reward, visits, self._entropies)
        sizes = batch.groups.bincount().tolist()
        for visit, of_question in zip(visits, torch.split(rewards, sizes), strict=True):
            given = of_question[~of_question.isnan()].tolist()
            store.note(visit.ballot.prompt_id, self.settings.memory.begin(given))

    def _question_values(self, visits: Sequence[Visit], store: PromptStore) -> dict[str, Tensor]:
        """What is known of each question beside its rollouts of this step."""
        past = [store[visit.ballot.prompt_id].notes for visit in visits]
        values = self.settings.memory.recall(past, store.notes)
        if "greedy" in self.settings.needs:
            greedy = judge_greedy(self.settings.reward, visits, self._entropies)
            values = {**values, "greedy": greedy}
        if self.needed:
            needed = [self.needed[visit.ballot.prompt_id] for visit in visits]
            values = {**values, "needed": torch.tensor(needed)}
        return values

    def _remember(
        self,
        ballots: Sequence[Ballot],
        batch: RolloutBatch,
        rewards: Tensor,
        store: PromptStore,
    ) -> None:
        """Note what this step's rewards say of each question, by the policy as it now is."""
        memory = self.settings.memory
        names = [ballot.prompt_id for ballot in ballots]
        past = [store[name].notes for name in names]
        moved: dict[str, float] = {}
        probes: dict[str, tuple[Probe, ...]] = {}
        if memory.forgets:
            prompts = {ballot.prompt_id: ballot.prompt_tokens for ballot in ballots}
            before = {name: store[name].trajectories for name in names}
            moved = drifts(self.policy, prompts, before, self.processes)
            probes = take_probes(self.policy, ballots, 1, self.processes)
        kept, store.notes = memory.remember(
            past, store.notes, batch, rewards, [moved.get(name) for name in names]
        )
        given = segment_sum((~rewards.isnan()).long(), batch.groups, batch.group_count)
        for name, notes, count in zip(names, kept, given.tolist(), strict=True):
            # Where there was no reward the notes are of an earlier visit, and so are its rollouts.
            left = probes.get(name, ()) if count else store[name].trajectories
            store.note(name, notes, left)

    @property
    def _entropies(self) -> Entropies | None:
        """What measures entropies, where a part asks for them."""
        if "entropy" not in self.settings.needs:
            return None
        return partial(self.policy.entropies, processes=self.processes)

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

    def _update(
        self, batch: RolloutBatch, rewards: Tensor, step: int
    ) -> tuple[dict[str, float], Tensor]:
        """Move the policy by the rollouts kept; returns metrics, and mean advantages a rollout."""
        settings = self.settings
        # An advantage that reads the reference's log-probs compares them with the policy's.
        wanted = "reference" in settings.advantage.needs
        logp_old, values = behaviour(
            self.policy, settings.update, batch, self.processes, wanted=wanted
        )
        measured = {
            "value": values,
            "reference": self.reference(batch) if self.reference else None,
            "guide": self.guide(batch) if self.guide else None,
        }
        given = {name: column for name, column in measured.items() if column is not None}
        seen = replace(
            batch,
            logps=batch.logps if logp_old is None else logp_old,
            token_values={**batch.token_values, **given},
        )
        taught = settings.mask(seen)
        if "earlier" in batch.token_values:
            taught = taught & (batch.token_values["earlier"] == 0)
        if not taught.all():
            seen = replace(seen, token_values={**seen.token_values, "taught": taught.float()})
        advantages, returns = settings.advantage(seen, rewards)
        if advantages.shape != batch.logps.shape:
            raise ValueError(
                f"{type(settings.advantage).__name__} gave advantages of shape "
                f"{tuple(advantages.shape)}; it must give one a completion token, "
                f"{tuple(batch.logps.shape)}"
            )
        advantages = advantages.masked_fill(~taught, 0)
        head_tokens = head_logps = None
        if logp_old is not None and "heads" in settings.needs:
            top = getattr(settings.objective, "top", 0)
            head_tokens, head_logps = self.policy.heads(batch, top, self.processes)
        targets = StepTargets(
            advantages=advantages,
            logp_old=logp_old,
            logp_ref=measured["reference"],
            values_old=values,
            returns=returns,
            entropies=batch.token_values.get("entropy"),
            head_tokens=head_tokens,
            head_logps=head_logps,
            taught=taught,
            longest=batch.longest,
            critic_only=step <= settings.update.critic_warmup,
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
            settings.penalty if settings.penalty.coefficient > 0 else None,
            settings.critic if values is not None else None,
        )
        sums = torch.zeros(batch.rollouts).index_add(0, batch.token_rollouts, advantages)
        return metrics, sums / batch.lengths


def _go_on(sampled: Sampled) -> Tensor:
    """Whether each rollout goes on at the next step, (R,) bool."""
    left = {(partial.prompt_id, partial.index) for partial in sampled.partials}
    return torch.tensor(
        [
            (rollout.prompt_id, rollout.index) in left
            for ballot in sampled.ballots
            for rollout in ballot.rollouts
        ]
    )


def _earlier(visits: Sequence[Visit], batch: RolloutBatch) -> dict[str, Tensor]:
    """As "earlier" 1 for tokens that were sampled at an earlier step, else 0, (C,) float32."""
    if not any(visit.earlier for visit in visits):
        return {}
    counts = torch.tensor([count for visit in visits for count in visit.earlier])
    rollouts = batch.token_rollouts
    place = torch.arange(len(rollouts)) - batch.completion_offsets[:-1][rollouts]
    return {"earlier": (place < counts[rollouts]).float()}
