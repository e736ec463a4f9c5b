"""Ask an engine for rollouts and feed their votes back until every question has its verdict.

Waves: for each question only as many rollouts are launched as could end its test if they all
agreed, so that none is wasted; the engine stays full because many questions are asked at once.
Votes are counted in the order of their index, never of arrival, so a verdict does not depend on
timing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from optpo.errors import EngineError
from optpo.rollout import Rollout
from optpo.sampling.engine import Completion, Engine, Request, stream_seed
from optpo.sampling.weights import Weigh
from optpo.voting import Decision, StoppingRule, Tally


class Classes(Protocol):
    """The answer classes of one question, numbered in the order in which they are first seen."""

    def classify(self, answer: str | None) -> int:
        """The class of an answer; -1 for none."""
        ...

    @property
    def labels(self) -> list[str]:
        """A representative answer a class."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The classes, as a value that `json` can write."""
        ...


@dataclass
class Ballot:
    """One question's vote while it is taken."""

    prompt_id: str
    prompt_tokens: tuple[int, ...]
    classes: Classes
    tally: Tally = field(default_factory=Tally)
    rollouts: list[Rollout] = field(default_factory=list)
    decision: Decision | None = None
    launched: int = 0
    cancelled_rollouts: int = 0
    cancelled_tokens: int = 0
    waiting: dict[int, Completion] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens of the rollouts counted so far."""
        return sum(len(rollout.tokens) for rollout in self.rollouts)

    @property
    def decided(self) -> bool:
        """Whether the test has decided for the leader."""
        return self.decision is not None and self.decision.kind == "decided"

    @property
    def label(self) -> str | None:
        """The leader's answer where the test decided for it, else none."""
        return self.leading if self.decided else None

    @property
    def label_class(self) -> int:
        """The class of `label`, -1 where there is none."""
        leader = self.tally.leader
        return leader if self.decided and leader is not None else -1

    @property
    def leading(self) -> str | None:
        """The answer with the most votes, decided or not."""
        leader = self.tally.leader
        return None if leader is None else self.classes.labels[leader]


@dataclass(frozen=True)
class Reader:
    """How a completion becomes a vote: tokens to text, text to an answer or none, and its weight.

    `weigh` none: every vote counts 1.
    """

    decode: Callable[[Sequence[int]], str]
    extract: Callable[[str], str | None]
    weigh: Weigh | None = None


def take_votes(
    engine: Engine,
    ballots: Sequence[Ballot],
    rule: StoppingRule,
    reader: Reader,
    *,
    seed: int,
    version: int,
    purpose: str,
    on_verdict: Callable[[int, int], None] = lambda done, total: None,
    on_ballot: Callable[[Ballot], None] = lambda ballot: None,
) -> None:
    """Sample until `rule` stops every ballot; the ballots are filled in place.

    A ballot that already holds votes goes on after its last index. `purpose` keeps the random
    streams of training, evaluation and audit apart; `on_verdict(done, total)` reports progress,
    `on_ballot` hands over each ballot as it ends.
    Raises EngineError if the engine goes idle with votes missing, ValueError if the rule neither
    stops nor asks for votes.
    """
    in_flight: dict[int, tuple[Ballot, int]] = {}

    def launch(ballot: Ballot) -> None:
        wanted = rule.look_ahead(ballot.tally)
        if wanted < 1:
            raise ValueError(f"look_ahead of {rule} is {wanted} while the vote goes on")
        for index in range(ballot.launched, ballot.launched + wanted):
            handle = submit_next(engine, ballot, seed, version, purpose)
            in_flight[handle] = (ballot, index)

    done = 0
    for ballot in ballots:
        ballot.launched = ballot.tally.total
        ballot.decision = rule.decide(ballot.tally)
        if ballot.decision.stop:
            done += 1
        else:
            launch(ballot)
    while in_flight:
        completions = engine.poll()
        if not completions:
            raise EngineError(f"the engine went idle with {len(in_flight)} rollouts missing")
        arrived = [
            (*in_flight.pop(completion.handle), completion)
            for completion in completions
            if completion.handle in in_flight
        ]
        # All are put down before any is counted, so that what a verdict makes needless is charged.
        for ballot, index, completion in arrived:
            ballot.waiting[index] = completion
        for ballot, _, _ in arrived:
            if not ballot.waiting:
                continue
            decision = count_votes(ballot, rule, reader)
            if decision.stop:
                _cancel_rest(engine, ballot, in_flight)
                done += 1
                on_ballot(ballot)
                on_verdict(done, len(ballots))
            elif ballot.tally.total == ballot.launched:
                launch(ballot)


def submit_next(engine: Engine, ballot: Ballot, seed: int, version: int, purpose: str) -> int:
    """Ask for the ballot's next rollout; returns its handle."""
    index = ballot.launched
    stream = stream_seed(seed, version, ballot.prompt_id, index, purpose)
    ballot.launched = index + 1
    return engine.submit(Request(ballot.prompt_id, ballot.prompt_tokens, index, stream))


def count_votes(ballot: Ballot, rule: StoppingRule, reader: Reader) -> Decision:
    """Count the votes that are next in index order; stop where the rule does."""
    decision = ballot.decision
    assert decision is not None
    while not decision.stop and (index := ballot.tally.total) in ballot.waiting:
        completion = ballot.waiting.pop(index)
        text = reader.decode(completion.tokens)
        answer = reader.extract(text) if completion.finish == "stop" else None
        vote = ballot.classes.classify(answer)
        ballot.rollouts.append(
            Rollout(
                prompt_id=ballot.prompt_id,
                index=index,
                version=completion.version,
                prompt_tokens=ballot.prompt_tokens,
                tokens=completion.tokens,
                logps=completion.logps,
                finish=completion.finish,
                text=text,
                answer=answer,
                vote=vote,
            )
        )
        weight = None if reader.weigh is None else reader.weigh(completion)
        ballot.tally = ballot.tally.add(vote, weight)
        decision = ballot.decision = rule.decide(ballot.tally)
    return decision


def _cancel_rest(engine: Engine, ballot: Ballot, in_flight: dict[int, tuple[Ballot, int]]) -> None:
    """Cancel what a verdict made needless, and charge what it had cost."""
    for handle in [handle for handle, (owner, _) in in_flight.items() if owner is ballot]:
        del in_flight[handle]
        ballot.cancelled_rollouts += 1
        ballot.cancelled_tokens += engine.cancel(handle)
    ballot.cancelled_rollouts += len(ballot.waiting)
    ballot.cancelled_tokens += sum(len(done.tokens) for done in ballot.waiting.values())
    ballot.waiting.clear()
