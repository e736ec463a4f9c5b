"""The first stages of a step: which questions it asks, and the votes it takes on them."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from optpo.batch import pack
from optpo.data import Scorer
from optpo.memory.entropies import NAMES as ENTROPIES
from optpo.rollout import Rollout
from optpo.sampling.ballot import Ballot
from optpo.sampling.engine import EntropyTemperature
from optpo.sampling.occupancy import Occupancy
from optpo.sampling.voter import Voter
from optpo.training.distributed import ALONE, Processes
from optpo.training.drift import drifts, take_probes
from optpo.training.evaluation import adopted, take_votes_of_all
from optpo.training.judge import judge
from optpo.training.policy import Policy
from optpo.training.prompt_state import Partial, PromptStore, is_audited, next_in_turn
from optpo.training.sampled import Sampled
from optpo.training.settings import RunSettings
from optpo.training.visit_scores import score_visits
from optpo.training.visits import Visit, carried_votes, remember_visit
from optpo.training.windows import sample_window
from optpo.voting import FixedRule

PROBE_TOKENS = 256
"""So many tokens of a rollout are stored and scored, where votes are carried, to see how far the
policy has moved since; what a memory part asks of is the whole rollout."""

Progress = Callable[[str, int, int], None]
"""Told of a stage how many of its questions have a verdict, of how many."""


class Sampler:
    """A policy that is asked, and what it remembers of each question.

    `greedy` is a voter that draws the likeliest token, where a part asks for that. `variants` are
    the ways of asking that a question's rollouts take in turn, where there are several.
    """

    def __init__(
        self,
        settings: RunSettings,
        policy: Policy,
        voter: Voter,
        prompts: Mapping[str, tuple[int, ...]],
        processes: Processes = ALONE,
        scorer: Scorer | None = None,
        greedy: Voter | None = None,
        variants: Mapping[str, tuple[tuple[int, ...], ...]] | None = None,
    ) -> None:
        self.settings, self.policy, self.voter = settings, policy, voter
        self.prompts, self.processes = prompts, processes
        self.scorer, self.greedy, self.variants = scorer, greedy, variants
        self.store = PromptStore()

    def take_weights(self, policy: Policy) -> None:
        """Sample from now on with the weights of this policy."""
        self.policy.take_weights(policy)
        self.update_engines()

    def update_engines(self, all_but: Voter | None = None) -> None:
        """Let the engines have the weights of the policy that samples; not one that has them."""
        for voter in (self.voter, self.greedy):
            if voter is not None and voter is not all_but:
                voter.update_weights(self.policy.version)

    def sample(self, step: int, progress: Progress) -> Sampled:
        """Ask this process's share of a step's questions, and audit some votes.

        Reads the store, but leaves it as it is; calls no other process.
        """
        if self.settings.window:
            return self._sample_window(step)
        settings, began = self.settings, time.monotonic()
        prefilled = self.voter.engine.prefill_tokens
        scheduled: list[str] = []
        visits: list[Visit] = []
        occupancies: list[Occupancy] = []
        teaching = 0
        for _ in range(1 + settings.prompts.most_refills):
            chosen, names = self._chosen(step, scheduled)
            scheduled += chosen
            if names:
                asked, occupancy = self._ask(step, names, progress)
                if settings.prompts.most_refills:
                    asked = score_visits(self.scorer, asked)
                    teaching += self._informative(asked)
                visits += asked
                occupancies.append(occupancy)
            if settings.prompts.most_refills == 0 or teaching >= len(chosen):
                break
        # With overlap the policy that trains will be another one: it cannot score them itself.
        ballots = [visit.ballot for visit in visits]
        gap = _score_anew(self.policy, ballots) if settings.overlap else 0.0
        seconds = time.monotonic() - began
        audits = self._audit(step, ballots, progress)
        return Sampled(
            step,
            tuple(scheduled),
            tuple(replace(visit, audit=audits.get(visit.ballot.prompt_id)) for visit in visits),
            seconds,
            tuple(occupancies),
            self.voter.engine.prefill_tokens - prefilled,
            gap,
        )

    def _chosen(self, step: int, asked: Sequence[str]) -> tuple[list[str], list[str]]:
        """The questions whose turn it is, and those of them that this process is to ask.

        Where more may be chosen later, each process chooses among questions of its own, as nobody
        waits for what the others find.
        """
        prompts, every = self.settings.prompts, list(self.prompts)
        if prompts.most_refills == 0:
            chosen = prompts.choose(every, self.store, self.settings.seed, step)
            return chosen, self.processes.share(self.store.awake(chosen))
        left = [name for name in self.processes.share(every) if name not in asked]
        chosen = prompts.choose(left, self.store, self.settings.seed, step)
        chosen = chosen[: math.ceil(prompts.questions_per_step / self.processes.world)]
        return chosen, self.store.awake(chosen) if chosen else []

    def _ask(
        self, step: int, names: Sequence[str], progress: Progress
    ) -> tuple[list[Visit], Occupancy]:
        """Visit these questions."""
        settings, tracker = self.settings, self.settings.tracker
        probes = {name: self.store[name].probes for name in names}
        moved = drifts(self.policy, self.prompts, probes)
        carried = carried_votes(self.store, tracker, moved)
        asked = {name: self.prompts[name] for name in names}
        ballots = self.voter.ballots(asked, carried, self.variants, self._by_entropy())
        occupancy = self.voter.vote(
            ballots,
            settings.allocate,
            seed=settings.seed,
            purpose=f"train {step}",
            on_verdict=lambda done, total: progress("sampling", done, total),
            weight=settings.vote_weight,
            schedule=settings.schedule,
        )
        left = {}
        if tracker.most_kept:
            left = take_probes(self.policy, ballots, tracker.probes, longest=PROBE_TOKENS)
        greedy = self._greedily(step, names)
        visits = [
            Visit(
                ballot,
                carried=carried.get(ballot.prompt_id, {}),
                drift=moved.get(ballot.prompt_id),
                probes=left.get(ballot.prompt_id, ()),
                greedy=greedy.get(ballot.prompt_id),
            )
            for ballot in ballots
        ]
        return visits, occupancy

    def _by_entropy(self) -> EntropyTemperature | None:
        """The temperature by the entropies of the step before; none where there was no such step."""
        strength, notes = self.settings.entropy_temperature, self.store.notes
        if strength == 0 or not all(name in notes for name in ENTROPIES):
            return None
        return EntropyTemperature(strength, *(notes[name] for name in ENTROPIES))

    def _sample_window(self, step: int) -> Sampled:
        """Go on with the rollouts that are not at their end, and begin new ones in free places.

        There are as many places as the step's questions have rollouts, so the batch stays as large.
        """
        settings, began = self.settings, time.monotonic()
        prefilled = self.voter.engine.prefill_tokens
        rows, old = settings.allocate.cap, self.store.partials
        busy = {partial.prompt_id for partial in old}
        places = (settings.prompts.questions_per_step or len(self.prompts)) * rows
        chosen, begun = next_in_turn(
            list(self.prompts), busy, self.store.begun, (places - len(old)) // rows, settings.seed
        )
        new = [Partial(name, index) for name in chosen for index in range(rows)]
        ballots, left = sample_window(
            self.voter,
            self.prompts,
            [*old, *new],
            longest=settings.sample.max_new_tokens,
            seed=settings.seed,
            purpose=f"train {step}",
        )
        before = {(partial.prompt_id, partial.index): len(partial.tokens) for partial in old}
        visits = [
            Visit(
                ballot,
                earlier=tuple(
                    before.get((ballot.prompt_id, rollout.index), 0) for rollout in ballot.rollouts
                ),
            )
            for ballot in ballots
        ]
        return Sampled(
            step,
            tuple(ballot.prompt_id for ballot in ballots),
            tuple(visits),
            time.monotonic() - began,
            (),
            self.voter.engine.prefill_tokens - prefilled,
            partials=tuple(left),
            begun=begun,
        )

    def scored(self, own: Sampled) -> Sampled:
        """With what the verifier gives this process's rollouts, where one is asked for.

        Not in `sample`, which may run in a thread: functions of users may not be made for that.
        """
        goes_on = {(partial.prompt_id, partial.index) for partial in own.partials}
        return replace(own, visits=tuple(score_visits(self.scorer, own.visits, goes_on)))

    def _informative(self, visits: Sequence[Visit]) -> int:
        """How many of these questions have rewards that differ."""
        measured = self.policy.entropies if "entropy" in self.settings.reward.needs else None
        return int(judge(self.settings.reward, visits, measured).informative.sum())

    def _greedily(self, step: int, names: Sequence[str]) -> dict[str, Rollout]:
        """A rollout of the likeliest tokens a question, where a part asks for that."""
        if self.greedy is None:
            return {}
        ballots = self.greedy.ballots({name: self.prompts[name] for name in names})
        self.greedy.vote(
            ballots, FixedRule(votes=1), seed=self.settings.seed, purpose=f"greedy {step}"
        )
        return {ballot.prompt_id: ballot.rollouts[0] for ballot in ballots}

    def first_visits(self, count: int, progress: Progress) -> list[Visit]:
        """So many rollouts of every question before the first step, to begin the memory with."""
        ballots = take_votes_of_all(
            self.voter,
            {name: self.prompts[name] for name in self.processes.share(list(self.prompts))},
            count,
            ALONE,
            seed=self.settings.seed,
            purpose="memory",
            on_verdict=lambda done, total: progress("first values", done, total),
        )
        own = score_visits(self.scorer, [Visit(ballot) for ballot in ballots])
        return self._adopted(self.processes.gather(own))

    def gather(self, own: Sampled) -> Sampled:
        """The step as all processes sampled it; its seconds and gap are the largest of theirs."""
        visits = self._adopted(self.processes.gather(own.visits))
        everybody = self.processes.gather([replace(own, visits=())])
        return Sampled(
            own.step,
            tuple(dict.fromkeys(name for each in everybody for name in each.scheduled)),
            tuple(visits),
            seconds=max(each.seconds for each in everybody),
            occupancies=tuple(one for each in everybody for one in each.occupancies),
            tokens_prefill=sum(each.tokens_prefill for each in everybody),
            gap=max(each.gap for each in everybody),
            partials=own.partials,
            begun=own.begun,
        )

    def _adopted(self, visits: Sequence[Visit]) -> list[Visit]:
        """Visits that other processes may have made, to be read by this one's voter."""
        return [
            replace(
                visit,
                ballot=adopted(self.voter, visit.ballot),
                audit=visit.audit and adopted(self.voter, visit.audit),
            )
            for visit in visits
        ]

    def remember(self, sampled: Sampled) -> list[bool | None]:
        """Record a step's visits; whether each question's label changed, none if there was none."""
        self.store.rest(sampled.scheduled)
        self.store.partials, self.store.begun = list(sampled.partials), sampled.begun
        return [
            remember_visit(self.store, self.settings.tracker, visit) for visit in sampled.visits
        ]

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


def _score_anew(policy: Policy, ballots: Sequence[Ballot]) -> float:
    """Record the policy's own log-probs in place of the engine's; returns the largest difference.

    They are the same but for rounding, which depends on the sampling batch and must not reach the
    weights.
    """
    batch = pack([ballot.rollouts for ballot in ballots], [-1] * len(ballots))
    logps, _ = policy.score_all(batch)
    values = iter(logps.tolist())
    for ballot in ballots:
        ballot.rollouts = [
            replace(rollout, logps=tuple(islice(values, len(rollout.tokens))))
            for rollout in ballot.rollouts
        ]
    return max((logps - batch.logps).abs().tolist(), default=0.0)
