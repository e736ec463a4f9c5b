"""Test-time policy optimization: step by step through the eight stages, saved after every step."""

import copy
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from optpo.batch import RolloutBatch, pack
from optpo.data import Question, load_questions
from optpo.errors import RunStoppedError, StorageError
from optpo.sampling.scheduler import Ballot
from optpo.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from optpo.training.evaluation import Voter, accuracy, verdict_of
from optpo.training.ledger import Ledger, fixed_budget_tokens
from optpo.training.loading import load_policy
from optpo.training.policy import Policy
from optpo.training.prompt_state import PromptStore, is_audited, questions_of_step
from optpo.training.questions import prompt_tokens
from optpo.training.run_directory import RunDirectory
from optpo.training.schedule import learning_rate_factor
from optpo.training.settings import RunSettings
from optpo.training.step_rows import metrics_row, rollout_rows, verdict_rows
from optpo.training.summary import summarise
from optpo.training.update import StepTargets, behaviour, make_optimizer, update
from optpo.training.view import RunView, Tracker
from optpo.voting import FixedRule

QUESTIONS, UNSEEN = "questions.jsonl", "unseen.jsonl"


def adapt(
    settings: RunSettings,
    directory: RunDirectory,
    view: RunView,
    trackers: Sequence[Tracker] = (),
) -> dict[str, Any]:
    """Run, or go on with, the run in `directory`; returns its summary.

    The adapted model is left in `final/`. Same settings, same weights, however often the run was
    stopped or killed on the way. Raises RunStoppedError after an interrupt, when the step is saved,
    and StorageError where its files cannot be written.
    """
    with ExitStack() as stack:
        run = _Run(settings, directory, view, trackers, stack)
        try:
            return run.to_the_end()
        except (OSError, SafetensorError) as error:
            where = getattr(error, "filename", None) or directory.path
            reason = getattr(error, "strerror", None) or str(error)
            raise StorageError(
                f"{where}: {reason}. What was saved is intact: when there is room again, go on by "
                f"`optpo resume {directory.path}`"
            ) from error


class _Run:
    """The state of one run while it lasts."""

    def __init__(
        self,
        settings: RunSettings,
        directory: RunDirectory,
        view: RunView,
        trackers: Sequence[Tracker],
        stack: ExitStack,
    ) -> None:
        self.settings, self.directory = settings, directory
        self.view, self.trackers = view, trackers
        data, sample = settings.data, settings.sample
        questions, unseen = _questions(settings, directory)
        self.policy = load_policy(settings.model, sample.temperature, settings.update.pass_tokens)
        self.questions = {question.id: question for question in questions}
        self.unseen = {question.id: question for question in unseen}
        self.prompts, self.unseen_prompts = (
            prompt_tokens(self.policy, some, settings.model, data, sample.max_new_tokens)
            for some in (questions, unseen)
        )
        if settings.advantage.needs_critic:
            self.policy.add_value_head()
        self.optimizer = make_optimizer(self.policy, settings.update)
        self.reference = _reference(settings, self.policy)
        self.voter = stack.enter_context(Voter(self.policy, sample, data.answers))
        self.store = PromptStore()
        self.ledger = Ledger()
        self.step = 0
        self.stop_asked = stack.enter_context(_stop_on_signal(view))

    def to_the_end(self) -> dict[str, Any]:
        """Go on from the newest checkpoint, or from the start."""
        self.view.start({"recipe": self.settings.recipe, "steps": self.settings.steps})
        checkpoint = load_checkpoint(self._checkpoints, self.policy, self.optimizer)
        if checkpoint is None:
            self.directory.forget_after(-1)
            self.directory.replace(QUESTIONS, _question_rows(self.questions.values()))
            self.directory.replace(UNSEEN, _question_rows(self.unseen.values()))
            self._timed(self._evaluate)
            self._save()
        else:
            self.step = checkpoint.step
            self.store = PromptStore.from_json(checkpoint.state["prompts"])
            self.ledger = Ledger(**checkpoint.state["ledger"])
            self.directory.forget_after(self.step)
            for row in self.directory.rows("evaluations.jsonl"):
                self.view.evaluation(row)
            for row in self.directory.rows("metrics.jsonl"):
                self.view.step(row)
        self.voter.engine.update_weights(self.policy.version)
        while self.step < self.settings.steps:
            self._stop_if_asked()
            self.step += 1
            self._timed(self._one_step)
            every, last = self.settings.evaluate.every, self.step == self.settings.steps
            if last or (every and self.step % every == 0):
                self._timed(self._evaluate)
            if last or self.step % self.settings.checkpoint_every == 0 or self.stop_asked():
                self._save()
        self.policy.save(self.directory.path / "final")
        summary = summarise(self.settings, self.ledger, len(self.questions), self.directory)
        self.directory.write("summary.json", summary)
        return summary

    def _one_step(self) -> None:
        """The eight stages once: prompts, allocate, sample, vote, select, advantage, objective, update."""
        settings, began = self.settings, time.monotonic()
        names = questions_of_step(
            list(self.prompts), settings.prompts.questions_per_step, settings.seed, self.step
        )
        ballots = self.voter.ballots({name: self.prompts[name] for name in names})
        self._vote(ballots, f"train {self.step}", "sampling")
        audits = self._audit(ballots)
        sampled = time.monotonic()
        version = self.policy.version
        flips = [self.store.visit(ballot.prompt_id, ballot.label) for ballot in ballots]
        groups = [ballot.rollouts for ballot in ballots]
        labels = [
            -1 if ballot.label is None or ballot.tally.leader is None else ballot.tally.leader
            for ballot in ballots
        ]
        batch = pack(groups, labels)
        rewards = settings.reward(batch)
        keep = settings.select(batch, rewards)
        self._count(ballots, audits, keep, batch)
        row = metrics_row(self.voter, ballots, self.questions, batch, rewards, keep, flips)
        row |= {
            "guards": settings.guards.alarms(
                row["entropy"], row["label_flip_rate"], row["undecided_share"]
            )
        }
        advantages = torch.full((batch.rollouts,), torch.nan)
        if not row["guards"] and keep.any():
            metrics, advantages[keep] = self._update(batch.select(keep), rewards[keep])
            row |= metrics
            if metrics["skipped_updates"]:
                row["guards"].append("loss or gradient was not finite: weights are as they were")
        ended = time.monotonic()
        self.ledger.seconds_sampling += sampled - began
        self.ledger.seconds_update += ended - sampled
        row = (
            {"step": self.step, "version": self.policy.version}
            | row
            | {
                "tokens_total": self.ledger.tokens + self.ledger.tokens_cancelled,
                "fixed_budget_tokens_total": self.ledger.fixed_budget_tokens,
                "seconds_sampling": sampled - began,
                "seconds_update": ended - sampled,
                "seconds": ended - began,
            }
        )
        self._write_step(row, ballots, audits, batch, rewards, keep, advantages, version)

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
        self.voter.engine.update_weights(self.policy.version)
        sums = torch.zeros(batch.rollouts).index_add(0, batch.token_rollouts, advantages)
        return metrics, sums / batch.lengths

    def _vote(self, ballots: Sequence[Ballot], purpose: str, stage: str) -> None:
        self.voter.vote(
            ballots,
            self.settings.allocate,
            seed=self.settings.seed,
            purpose=purpose,
            on_verdict=lambda done, total: self.view.progress(stage, done, total, "questions"),
        )

    def _audit(self, ballots: Sequence[Ballot]) -> dict[str, Ballot]:
        """Take the vote of some questions on to the cap, on copies; their rollouts are not trained on."""
        settings = self.settings
        chosen = [
            Ballot(
                ballot.prompt_id,
                ballot.prompt_tokens,
                copy.deepcopy(ballot.classes),
                ballot.tally,
                list(ballot.rollouts),
                launched=ballot.tally.total,
            )
            for ballot in ballots
            if is_audited(ballot.prompt_id, settings.audit, settings.seed, self.step)
        ]
        self.voter.vote(
            chosen,
            FixedRule(votes=settings.allocate.cap),
            seed=settings.seed,
            purpose=f"train {self.step}",
        )
        return {ballot.prompt_id: ballot for ballot in chosen}

    def _count(
        self,
        ballots: Sequence[Ballot],
        audits: Mapping[str, Ballot],
        keep: Tensor,
        batch: RolloutBatch,
    ) -> None:
        ledger = self.ledger
        tokens = int(batch.lengths.sum())
        ledger.rollouts += batch.rollouts
        ledger.rollouts_kept += int(keep.sum())
        ledger.rollouts_cancelled += sum(ballot.cancelled_rollouts for ballot in ballots)
        ledger.tokens += tokens
        ledger.tokens_kept += int(batch.lengths[keep].sum())
        ledger.tokens_cancelled += sum(ballot.cancelled_tokens for ballot in ballots)
        before = {ballot.prompt_id: ballot.tokens for ballot in ballots}
        ledger.tokens_audit += sum(audit.tokens - before[name] for name, audit in audits.items())
        ledger.fixed_budget_tokens += fixed_budget_tokens(ballots)
        for ballot in ballots:
            ledger.verdicts[verdict_of(ballot).kind] += 1
            gold = self.questions[ballot.prompt_id].gold
            if ballot.label is not None and gold is not None:
                ledger.labels_with_gold += 1
                ledger.labels_right += self.voter.correct(ballot.label, gold)

    def _write_step(
        self,
        row: dict[str, Any],
        ballots: Sequence[Ballot],
        audits: Mapping[str, Ballot],
        batch: RolloutBatch,
        rewards: Tensor,
        keep: Tensor,
        advantages: Tensor,
        version: int,
    ) -> None:
        rollouts = [rollout for ballot in ballots for rollout in ballot.rollouts]
        self.directory.append(
            f"rollouts/step-{self.step:05d}.jsonl",
            rollout_rows(rollouts, keep, rewards, advantages),
        )
        self.directory.append(
            "verdicts.jsonl", verdict_rows(self.step, self.voter, ballots, audits, self.questions)
        )
        self.directory.append("metrics.jsonl", [row])
        self.view.step(row)
        for message in row["guards"]:
            self.view.guard(f"step {self.step} was not trained on: {message}")
        numbers = {
            name: float(value) for name, value in row.items() if isinstance(value, int | float)
        }
        for tracker in self.trackers:
            tracker.log(numbers, self.step)

    def _evaluate(self) -> None:
        """Accuracy on both sets where gold is known; nothing of it reaches the policy."""
        settings = self.settings.evaluate
        sets = (
            ("adapt", self.questions, self.prompts, settings.samples),
            ("unseen", self.unseen, self.unseen_prompts, settings.unseen_samples),
        )
        for name, questions, prompts, samples in sets:
            known = {key: prompts[key] for key in prompts if questions[key].gold is not None}
            if samples == 0 or not known:
                continue
            ballots = self.voter.ballots(known)
            self.voter.vote(
                ballots,
                FixedRule(votes=samples),
                seed=self.settings.seed,
                purpose=f"evaluate {name} {self.step}",
                on_verdict=lambda done, total: self.view.progress(
                    "evaluation", done, total, "questions"
                ),
            )
            self.ledger.tokens_evaluation += sum(ballot.tokens for ballot in ballots)
            reached = accuracy(self.voter, ballots, questions)
            assert reached is not None
            row = {"step": self.step, "set": name, **vars(reached), "samples": samples} | {
                "tokens_total": self.ledger.tokens + self.ledger.tokens_cancelled,
                "seconds_total": self.ledger.seconds_sampling + self.ledger.seconds_update,
            }
            self.directory.append("evaluations.jsonl", [row])
            self.view.evaluation(row)
            for tracker in self.trackers:
                tracker.log(
                    {f"{name}/mean": reached.mean, f"{name}/majority": reached.majority}, self.step
                )

    def _save(self) -> None:
        state = {"prompts": self.store.to_json(), "ledger": self.ledger.to_json()}
        save_checkpoint(
            self._checkpoints, self.policy, self.optimizer, Checkpoint(self.step, state)
        )

    def _timed(self, work: Callable[[], None]) -> None:
        began = time.monotonic()
        work()
        self.ledger.seconds += time.monotonic() - began

    def _stop_if_asked(self) -> None:
        if self.stop_asked():
            path = self.directory.path
            raise RunStoppedError(
                f"stopped after step {self.step}, which is saved; go on by `optpo resume {path}`"
            )

    @property
    def _checkpoints(self) -> Path:
        return self.directory.path / "checkpoints"


def _reference(settings: RunSettings, policy: Policy) -> Callable[[RolloutBatch], Tensor] | None:
    """Log-probs of the policy as it was before adaptation, where the objective asks for them."""
    if not settings.objective.needs_reference:
        return None
    if settings.model.lora.rank > 0:

        def without_adapter(batch: RolloutBatch) -> Tensor:
            with policy.model.disable_adapter():
                return policy.score_all(batch)[0]

        return without_adapter
    first = load_policy(settings.model, settings.sample.temperature, policy.pass_tokens)
    return lambda batch: first.score_all(batch)[0]


def _questions(
    settings: RunSettings, directory: RunDirectory
) -> tuple[list[Question], list[Question]]:
    """Both question sets: the run's own copies where it has begun, so that it cannot change midway."""
    sources = (
        (directory.path / QUESTIONS, settings.data.questions, settings.data.limit),
        (directory.path / UNSEEN, settings.data.unseen, None),
    )
    questions, unseen = (
        [] if named is None else load_questions(kept if kept.exists() else named, limit)
        for kept, named, limit in sources
    )
    return questions, unseen


def _question_rows(questions: Iterable[Question]) -> Iterator[dict[str, Any]]:
    for question in questions:
        prompt = question.prompt
        text = prompt if isinstance(prompt, str) else [vars(message) for message in prompt]
        yield {"id": question.id, "prompt": text, "gold": question.gold}


@contextmanager
def _stop_on_signal(view: RunView) -> Iterator[Callable[[], bool]]:
    """The first interrupt or termination asks to stop after the step; the next one acts at once."""
    asked = False

    def ask(number: int, _: object) -> None:
        nonlocal asked
        asked = True
        view.guard("stopping when this step is saved; interrupt again to stop at once")
        signal.signal(number, before[number])

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread, where signals cannot be caught
        before = {}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
