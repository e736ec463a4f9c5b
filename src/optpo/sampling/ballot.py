"""One question's vote while it is taken: its rollouts, counted in the order of their index."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from optpo.rollout import Rollout
from optpo.sampling.engine import Completion, EntropyTemperature, Prompt
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
    """One question's vote.

    `prompt` is for engines that make tokens themselves. `error` says why the engine refused the
    question; such a ballot ends without a decision. `variants` are other ways of asking: the rollout
    of index i is asked for by the variant of number i modulo how many there are. `by_entropy` is how
    its rollouts are drawn, where the temperature is not the same for every token.
    """

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
    prompt: Prompt | None = None
    error: str | None = None
    variants: tuple[tuple[int, ...], ...] = ()
    by_entropy: EntropyTemperature | None = None

    def prompt_of(self, index: int) -> tuple[int, ...]:
        """The tokens that the rollout of this index is asked for by."""
        return self.variants[index % len(self.variants)] if self.variants else self.prompt_tokens

    @property
    def tokens(self) -> int:
        """Tokens of the rollouts counted so far."""
        return sum(len(rollout.tokens) for rollout in self.rollouts)

    @property
    def open(self) -> bool:
        """Whether more votes are wanted."""
        return self.error is None and not (self.decision is not None and self.decision.stop)

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


def count_votes(ballot: Ballot, rule: StoppingRule, reader: Reader) -> Decision:
    """Count the votes that are next in index order; stop where the rule does."""
    decision = ballot.decision
    assert decision is not None
    while not decision.stop and (index := ballot.tally.total) in ballot.waiting:
        decision = count_vote(ballot, index, rule, reader)
    return decision


def count_vote(ballot: Ballot, index: int, rule: StoppingRule, reader: Reader) -> Decision:
    """Count one rollout that has come back; one that was cut at its limit is no answer."""
    completion = ballot.waiting.pop(index)
    text = reader.decode(completion.tokens) if completion.text is None else completion.text
    answer = reader.extract(text) if completion.finish == "stop" else None
    vote = ballot.classes.classify(answer)
    rollout = Rollout(
        prompt_id=ballot.prompt_id,
        index=index,
        version=completion.version,
        prompt_tokens=ballot.prompt_of(index),
        tokens=completion.tokens,
        logps=completion.logps,
        finish=completion.finish,
        text=text,
        answer=answer,
        vote=vote,
    )
    weight = None if reader.weigh is None else reader.weigh(rollout)
    ballot.rollouts.append(rollout)
    ballot.tally = ballot.tally.add(vote, weight)
    ballot.decision = rule.decide(ballot.tally)
    return ballot.decision
