"""The first stages of a step: which questions it asks, and the votes it takes on them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from optpo.batch import pack
from optpo.sampling.ballot import Ballot
from optpo.sampling.occupancy import Occupancy
from optpo.sampling.voter import Voter
from optpo.training.distributed import ALONE, Processes
from optpo.training.drift import drifts, take_probes
from optpo.training.evaluation import adopted
from optpo.training.policy import Policy
from optpo.training.prompt_state import PromptStore, is_audited, questions_of_step
from optpo.training.settings import RunSettings
from optpo.training.visits import Visit, carried_votes, remember_visit
from optpo.voting import FixedRule

Progress = Callable[[str, int, int], None]
"""Told of a stage how many of its questions have a verdict, of how many."""


@dataclass(frozen=True)
class Sampled:
    """A step's visits, in the order of its questions.

    `scheduled` are all questions whose turn it was, those that rest too; `seconds` were spent on
    the vote, without the audits; `occupancies` say how full each process's engine was then.
    `tokens_prefill` are prompt tokens that were computed. `gap` is the largest difference in nats
    between a log-prob that the engine recorded and the sampling policy's own, where those took its
    place.
    """

    step: int
    scheduled: tuple[str, ...]
    visits: tuple[Visit, ...]
    seconds: float
    occupancies: tuple[Occupancy, ...]
    tokens_prefill: int
    gap: float = 0.0

    @property
    def ballots(self) -> list[Ballot]:
        """The vote of each visit."""
        return [visit.ballot for visit in self.visits]


class Sampler:
    """A policy that is asked, and what it remembers of each question."""

    def __init__(
        self,
        settings: RunSettings,
        policy: Policy,
        voter: Voter,
        prompts: Mapping[str, tuple[int, ...]],
        processes: Processes = ALONE,
    ) -> None:
        self.settings, self.policy, self.voter = settings, policy, voter
        self.prompts, self.processes = prompts, processes
        self.store = PromptStore()

    def take_weights(self, policy: Policy) -> None:
        """Sample from now on with the weights of this policy."""
        self.policy.take_weights(policy)
        self.voter.update_weights(self.policy.version)

    def sample(self, step: int, progress: Progress) -> Sampled:
        """Ask this process's share of a step's questions, and audit some votes.

        Reads the store, but leaves it as it is; calls no other process.
        """
        settings, began = self.settings, time.monotonic()
        prefilled = self.voter.engine.prefill_tokens
        scheduled = questions_of_step(
            list(self.prompts), settings.prompts.questions_per_step, settings.seed, step
        )
        names = self.processes.share(self.store.awake(scheduled))
        probes = {name: self.store[name].probes for name in names}
        moved = drifts(self.policy, self.prompts, probes)
        carried = carried_votes(self.store, settings.tracker, moved)
        ballots = self.voter.ballots({name: self.prompts[name] for name in names}, carried)
        occupancy = self.voter.vote(
            ballots,
            settings.allocate,
            seed=settings.seed,
            purpose=f"train {step}",
            on_verdict=lambda done, total: progress("sampling", done, total),
            weight=settings.vote_weight,
            schedule=settings.schedule,
        )
        tracker = settings.tracker
        left = take_probes(self.policy, ballots, tracker.probes) if tracker.most_kept else {}
        # With overlap the policy that trains will be another one: it cannot score them itself.
        gap = _score_anew(self.policy, ballots) if settings.overlap else 0.0
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
        return Sampled(
            step,
            tuple(scheduled),
            tuple(visits),
            seconds,
            (occupancy,),
            self.voter.engine.prefill_tokens - prefilled,
            gap,
        )

    def gather(self, own: Sampled) -> Sampled:
        """The step as all processes sampled it; its seconds and gap are the largest of theirs."""
        visits = self.processes.gather(own.visits)
        everybody = self.processes.gather([replace(own, visits=())])
        return Sampled(
            own.step,
            own.scheduled,
            tuple(
                replace(
                    visit,
                    ballot=adopted(self.voter, visit.ballot),
                    audit=visit.audit and adopted(self.voter, visit.audit),
                )
                for visit in visits
            ),
            seconds=max(each.seconds for each in everybody),
            occupancies=tuple(one for each in everybody for one in each.occupancies),
            tokens_prefill=sum(each.tokens_prefill for each in everybody),
            gap=max(each.gap for each in everybody),
        )

    def remember(self, sampled: Sampled) -> list[bool | None]:
        """Record a step's visits; whether each question's label changed, none if there was none."""
        self.store.rest(sampled.scheduled)
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
