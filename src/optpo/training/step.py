"""One step through the eight stages: from the questions it asks to the policy it has moved."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, pack
from optpo.data import Question
from optpo.sampling.ballot import Ballot
from optpo.sampling.voter import Voter
from optpo.training.drift import drifts, take_probes
from optpo.training.policy import Policy
from optpo.training.prompt_state import PromptStore, is_audited, questions_of_step
from optpo.training.reference import reference_logps
from optpo.training.schedule import learning_rate_factor
from optpo.training.settings import RunSettings
from optpo.training.step_rows import metrics_row, rollout_rows, verdict_rows
from optpo.training.update import StepTargets, behaviour, make_optimizer, update
from optpo.training.visits import Visit, carried_votes, remember_visit
from optpo.voting import FixedRule

Progress = Callable[[str, int, int], None]
"""Told of a stage how many of its questions have a verdict, of how many."""


@dataclass(frozen=True)
class Sampled:
    """A step's visits, in the order of its questions.

    `rested` questions were left out because they rest; `seconds` were spent on the vote, without
    the audits.
    """

    step: int
    visits: tuple[Visit, ...]
    rested: int
    seconds: float

    @property
    def ballots(self) -> list[Ballot]:
        """The vote of each visit."""
        return [visit.ballot for visit in self.visits]


@dataclass(frozen=True)
class StepRows:
    """A step as the lines of the run's files."""

    metrics: dict[str, Any]
    verdicts: Iterable[Mapping[str, Any]]
    rollouts: Iterable[Mapping[str, Any]]


class Stages:
    """The stages of a run's steps, and what they move: policy, optimiser and prompt store."""

    def __init__(
        self,
        settings: RunSettings,
        policy: Policy,
        voter: Voter,
        questions: Mapping[str, Question],
        prompts: Mapping[str, tuple[int, ...]],
    ) -> None:
        self.settings, self.policy, self.voter = settings, policy, voter
        self.questions, self.prompts = questions, prompts
        self.optimizer = make_optimizer(policy, settings.update)
        self.reference = reference_logps(settings, policy)
        self.store = PromptStore()

    def sample(self, step: int, progress: Progress) -> Sampled:
        """Prompts, allocate, sample and vote; and the audit of some votes."""
        settings, began = self.settings, time.monotonic()
        scheduled = questions_of_step(
            list(self.prompts), settings.prompts.questions_per_step, settings.seed, step
        )
        names = self.store.awake(scheduled)
        probes = {name: self.store[name].probes for name in names}
        moved = drifts(self.policy, self.prompts, probes)
        carried = carried_votes(self.store, settings.tracker, moved)
        ballots = self.voter.ballots({name: self.prompts[name] for name in names}, carried)
        self.voter.vote(
            ballots,
            settings.allocate,
            seed=settings.seed,
            purpose=f"train {step}",
            on_verdict=lambda done, total: progress("sampling", done, total),
            weight=settings.vote_weight,
        )
        tracker = settings.tracker
        left = take_probes(self.policy, ballots, tracker.probes) if tracker.most_kept else {}
        seconds = time.monotonic() - began
        audits = self._audit(step, ballots, progress)
        visits = [
            Visit(
                ballot,
                carried=carried.get(ballot.prompt_id, {}),
                drift=moved.get(ballot.prompt_id),
                probes=left.get(ballot.prompt_id, ()),
                audit=audits.get(ballot.prompt_id),
            )
            for ballot in ballots
        ]
        return Sampled(step, tuple(visits), len(scheduled) - len(names), seconds)

    def learn(self, sampled: Sampled) -> StepRows:
        """Reward, select, advantage, objective and update; what the visits leave is remembered."""
        settings, began = self.settings, time.monotonic()
        visits, ballots = sampled.visits, sampled.ballots
        flips = [remember_visit(self.store, settings.tracker, visit) for visit in visits]
        batch = pack([ballot.rollouts for ballot in ballots], [b.label_class for b in ballots])
        rewards = settings.reward(batch)
        keep = settings.select(batch, rewards)
        row = metrics_row(self.voter, visits, self.questions, batch, rewards, keep, flips)
        row["questions_rested"] = sampled.rested
        row["guards"] = settings.guards.alarms(
            row["questions"], row["entropy"], row["label_flip_rate"], row["undecided_share"]
        )
        if row["guards"]:
            keep = torch.zeros_like(keep)
            row |= {"rollouts_kept": 0, "tokens_kept": 0, "tokens_untrained": row["tokens"]}
        advantages = torch.full((batch.rollouts,), torch.nan)
        if keep.any():
            metrics, advantages[keep] = self._update(batch.select(keep), rewards[keep])
            row |= metrics
            if skipped := int(metrics["skipped_updates"]):
                row["guards"].append(
                    f"{skipped} of {settings.update.epochs * settings.update.minibatches} optimiser "
                    "steps skipped: loss or gradient was not finite"
                )
        row["seconds_sampling"] = sampled.seconds
        row["seconds_update"] = time.monotonic() - began
        rollouts = [rollout for ballot in ballots for rollout in ballot.rollouts]
        return StepRows(
            {"step": sampled.step, "version": self.policy.version, **row},
            verdict_rows(sampled.step, self.voter, visits, self.questions),
            rollout_rows(rollouts, keep, rewards, advantages),
        )

    def _audit(self, step: int, ballots: Sequence[Ballot], progress: Progress) -> dict[str, Ballot]:
        """Take the vote of some questions on to the cap, on copies that are not trained on."""
        settings = self.settings
        chosen = [
            self.voter.copy(ballot)
            for ballot in ballots
            if is_audited(ballot.prompt_id, settings.audit, settings.seed, step)
        ]
        self.voter.vote(
            chosen,
            FixedRule(votes=settings.allocate.cap),
            seed=settings.seed,
            purpose=f"train {step}",
            on_verdict=lambda done, total: progress("audit", done, total),
            weight=settings.vote_weight,
        )
        return {ballot.prompt_id: ballot for ballot in chosen}

    def _update(self, batch: RolloutBatch, rewards: Tensor) -> tuple[dict[str, float], Tensor]:
        """Move the policy by the rollouts kept; returns metrics, and mean advantages a rollout."""
        settings = self.settings
        logp_old, values = behaviour(self.policy, settings.update, batch)
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
        )
        self.voter.update_weights(self.policy.version)
        sums = torch.zeros(batch.rollouts).index_add(0, batch.token_rollouts, advantages)
        return metrics, sums / batch.lengths
