"""Test-time policy optimization: a run that evaluates, takes its steps, saves them and stops."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from optpo.data import open_scorer, require_judged
from optpo.errors import RunStoppedError, SettingsError, StorageError
from optpo.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from optpo.training.distributed import join_processes
from optpo.training.engines import open_sampling, open_voter
from optpo.training.evaluation import accuracy, take_votes_of_all
from optpo.training.interruption import stop_on_signal
from optpo.training.learner import Learner
from optpo.training.ledger import Ledger
from optpo.training.loading import load_policy
from optpo.training.overlap import Ahead
from optpo.training.policy import Policy
from optpo.training.preflight import check_training
from optpo.training.prompt_state import PromptStore
from optpo.training.questions import (
    QUESTIONS,
    UNSEEN,
    prompt_tokens,
    prompt_variants,
    question_rows,
    questions_of_run,
)
from optpo.training.run_directory import RunDirectory
from optpo.training.sampler import Sampler
from optpo.training.settings import EngineSettings, RunSettings
from optpo.training.summary import summarise
from optpo.training.view import RunView, Tracker
from optpo.voting.accuracy import usual_k


def adapt(
    settings: RunSettings,
    directory: RunDirectory,
    view: RunView,
    open_trackers: Callable[[], Sequence[Tracker]] = tuple,
) -> dict[str, Any]:
    """Run, or go on with, the run in `directory`; returns its summary.

    Trackers are opened once model and questions are known to be good, and closed at the end.

    The adapted model is left in `final/`. Same settings, same weights, however often the run was
    stopped or killed on the way. Raises RunStoppedError after an interrupt, when the step is saved,
    and StorageError where its files cannot be written.
    """
    with ExitStack() as stack:
        run = _Run(settings, directory, view, stack)
        for tracker in open_trackers():
            stack.callback(tracker.close)
            run.trackers.append(tracker)
        try:
            return run.to_the_end()
        except (OSError, SafetensorError) as error:
            where = getattr(error, "filename", None) or directory.path
            reason = getattr(error, "strerror", None) or str(error)
            raise StorageError(
                f"{where}: {reason}. What was saved is intact: when that is mended, go on by "
                f"`optpo resume {directory.path}`"
            ) from error


class _Run:
    """The state of one run while it lasts."""

    def __init__(
        self,
        settings: RunSettings,
        directory: RunDirectory,
        view: RunView,
        stack: ExitStack,
    ) -> None:
        self.settings, self.directory = settings, directory
        self.view = view
        self.trackers: list[Tracker] = []
        self.processes = join_processes(settings.model.device)
        if settings.window and self.processes.world > 1:
            raise SettingsError(
                [f"window is {settings.window}; with several processes it must be 0 (off)"]
            )
        data, sample = settings.data, settings.sample
        questions, unseen = questions_of_run(settings.data, directory)
        self.questions = {question.id: question for question in questions}
        self.unseen = {question.id: question for question in unseen}
        if settings.learns_from_gold:
            # What cannot be scored is told before the model is loaded, and the verifier with it.
            without = open_scorer(settings.score, self.questions, data.answers, None)
            require_judged(without, questions, data.questions)
        self.policy = load_policy(settings.model, sample.temperature, settings.update.pass_tokens)
        self.prompts, self.unseen_prompts = (
            prompt_tokens(self.policy, some, settings.model, data, sample.max_new_tokens)
            for some in (questions, unseen)
        )
        check_training(self.policy, list(self.prompts.values()))
        if "critic" in settings.needs:
            self.policy.add_value_head()
        self.whole = self.policy
        if settings.update.sharding == "full":
            self.whole = self.policy.shard(self.processes)
        asked = [*self.prompts.values(), *self.unseen_prompts.values()]
        # With overlap other processes are the sampler's; accuracy is measured in this one.
        here = replace(settings, engine=EngineSettings()) if settings.overlap else settings
        self.voter = stack.enter_context(open_voter(self.whole, here, asked))
        self.scorers = {
            name: open_scorer(settings.score, some, data.answers, self.voter.verifier)
            for name, some in (("adapt", self.questions), ("unseen", self.unseen))
        }
        scorer = self.scorers["adapt"] if settings.learns_from_gold else None
        self.learner = Learner(settings, self.policy, self.voter, self.questions, self.processes)
        sampling, voter, greedy = open_sampling(settings, self.whole, self.voter, asked, stack)
        variants = prompt_variants(self.policy, questions, settings)
        self.sampler = Sampler(
            settings, sampling, voter, self.prompts, self.processes, scorer, greedy, variants
        )
        self.ahead = stack.enter_context(Ahead(self.sampler, self._progress))
        self.ledger = Ledger()
        self.step = self.saved = 0
        self.stop_asked = stack.enter_context(stop_on_signal(view.guard))

    def to_the_end(self) -> dict[str, Any]:
        """Go on from the newest checkpoint, or from the start."""
        self.view.start({"recipe": self.settings.recipe, "steps": self.settings.steps})
        checkpoint = load_checkpoint(
            self._checkpoints, self.policy, self.learner.optimizer, self._samples_apart
        )
        if checkpoint is None:
            self.directory.forget_after(-1)
            self.directory.replace(QUESTIONS, question_rows(self.questions.values()))
            self.directory.replace(UNSEEN, question_rows(self.unseen.values()))
            self._timed(self._evaluate)
            self._timed(self._begin_memory)
            self._save()
        else:
            self.step = self.saved = checkpoint.step
            self.sampler.store = PromptStore.from_json(checkpoint.state["prompts"])
            self.ledger = Ledger(**checkpoint.state["ledger"])
            self.directory.forget_after(self.step)
            for row in self.directory.rows("evaluations.jsonl"):
                self.view.evaluation(row)
            for row in self.directory.rows("metrics.jsonl"):
                self.view.step(row)
        self._show_weights()
        self.sampler.update_engines()
        while not self._at_the_end:
            self._stop_if_asked()
            self.step += 1
            self._timed(self._one_step)
            every, last = self.settings.evaluate.every, self._at_the_end
            if last or (every and self.step % every == 0):
                self._timed(self._evaluate)
                # What it has computed of prompts is not there in a run that goes on from here.
                self._show_weights()
            if last or self.step % self.settings.checkpoint_every == 0:
                self._save()
        if self.processes.first:
            self.whole.save(self.directory.path / "final")
        if self._stands_still and self.step < self.settings.steps:
            self.view.guard(
                f"ended after step {self.step} of {self.settings.steps}: the last "
                f"{self.ledger.held_back_in_a_row} steps were held back, so the policy stood still"
            )
        summary = summarise(
            self.settings, self.ledger, self.step, len(self.questions), self.directory
        )
        self.directory.write("summary.json", summary)
        return summary

    def _begin_memory(self) -> None:
        """Sample what the memory part wants to begin with."""
        if count := self.settings.memory.initial_rollouts:
            visits = self.sampler.first_visits(count, self._progress)
            self.ledger.tokens_baseline += sum(visit.ballot.tokens for visit in visits)
            self.learner.begin_memory(visits, self.sampler.store)

    def _one_step(self) -> None:
        """Sample and learn, and write down what was done."""
        began = time.monotonic()
        sampled = self.sampler.gather(self.sampler.scored(self.ahead.result(self.step)))
        waited = time.monotonic() - began
        flips = self.sampler.remember(sampled)
        if self.settings.overlap:
            self.sampler.take_weights(self.whole)
            if self.step < self.settings.steps and not self.stop_asked():
                self.ahead.begin(self.step + 1)
        rows = self.learner.learn(sampled, flips, self.sampler.store)
        self._show_weights()
        row = rows.metrics
        row["seconds_sampling"] = min(waited, sampled.seconds)
        row["seconds"] = time.monotonic() - began
        self.ledger.add_step(row)
        row["tokens_total"] = self.ledger.tokens_spent
        row["fixed_budget_tokens_total"] = self.ledger.fixed_budget_tokens
        self.directory.append(f"rollouts/step-{self.step:05d}.jsonl", rows.rollouts)
        self.directory.append("verdicts.jsonl", rows.verdicts)
        self.directory.append("metrics.jsonl", [row])
        self._show_step(row)

    def _show_weights(self) -> None:
        """Evaluate and sample by what was learnt."""
        self.whole.take_weights(self.policy)
        self.voter.update_weights(self.whole.version)
        if not self.settings.overlap:
            self.sampler.update_engines(all_but=self.voter)

    def _progress(self, stage: str, done: int, total: int) -> None:
        self.view.progress(stage, done, total, "questions")

    def _show_step(self, row: dict[str, Any]) -> None:
        self.view.step(row)
        for message in row["guards"]:
            held_back = " is held back" if row["loss"] is None else ""
            self.view.guard(f"step {self.step}{held_back}: {message}")
        numbers = {
            name: float(value) for name, value in row.items() if isinstance(value, int | float)
        }
        for tracker in self.trackers:
            tracker.log(numbers, self.step)

    def _evaluate(self) -> None:
        """Accuracy on both sets where it can be judged; nothing of it reaches the policy."""
        settings = self.settings.evaluate
        sets = (
            ("adapt", self.questions, self.prompts, settings.samples),
            ("unseen", self.unseen, self.unseen_prompts, settings.unseen_samples),
        )
        for name, questions, prompts, samples in sets:
            scorer = self.scorers[name]
            known = {key: prompts[key] for key in prompts if scorer.judges(questions[key])}
            if samples == 0 or not known:
                continue
            ballots = take_votes_of_all(
                self.voter,
                known,
                samples,
                self.processes,
                seed=self.settings.seed,
                purpose=f"evaluate {name} {self.step}",
                on_verdict=lambda done, total: self._progress("evaluation", done, total),
            )
            self.ledger.tokens_evaluation += sum(ballot.tokens for ballot in ballots)
            reached = accuracy(self.voter, ballots, questions, scorer, at=usual_k(samples))
            if reached is None:
                self.view.guard(f"no rollout of the {name} questions was given a score")
                continue
            row = {"step": self.step, "set": name, **vars(reached), "samples": samples} | {
                "tokens_total": self.ledger.tokens_spent,
                "seconds_total": self.ledger.seconds_sampling + self.ledger.seconds_update,
            }
            self.directory.append("evaluations.jsonl", [row])
            self.view.evaluation(row)
            for tracker in self.trackers:
                tracker.log(
                    {f"{name}/mean": reached.mean, f"{name}/majority": reached.majority}, self.step
                )

    def _save(self) -> None:
        self.saved = self.step
        state = {"prompts": self.sampler.store.to_json(), "ledger": self.ledger.to_json()}
        checkpoint = Checkpoint(self.step, state)
        save_checkpoint(
            self._checkpoints,
            self.policy,
            self.learner.optimizer,
            checkpoint,
            self._samples_apart,
            writes=self.processes.first,
        )

    def _timed(self, work: Callable[[], None]) -> None:
        began = time.monotonic()
        work()
        self.ledger.seconds += time.monotonic() - began

    def _stop_if_asked(self) -> None:
        if self.processes.any(self.stop_asked()):
            if self.saved != self.step:
                self._save()
            path = self.directory.path
            raise RunStoppedError(
                f"stopped after step {self.step}, which is saved; go on by `optpo resume {path}`"
            )

    @property
    def _at_the_end(self) -> bool:
        return self._stands_still or self.step >= self.settings.steps or self._spent

    @property
    def _stands_still(self) -> bool:
        return self.ledger.held_back_in_a_row >= self.settings.guards.patience

    @property
    def _spent(self) -> bool:
        return 0 < self.settings.most_tokens <= self.ledger.tokens_spent

    @property
    def _samples_apart(self) -> Policy | None:
        """The policy that samples, where it is not the one that learns."""
        return self.sampler.policy if self.settings.overlap else None

    @property
    def _checkpoints(self) -> Path:
        return self.directory.path / "checkpoints"
