"""What a run remembers of each question from one visit to the next; saved with every checkpoint."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from typing import Any


@dataclass(frozen=True)
class Probe:
    """A rollout, or its begin, and the log-probs (nats) of a policy, to see how far it moves on."""

    tokens: tuple[int, ...]
    logps: tuple[float, ...]


@dataclass(frozen=True)
class Partial:
    """A rollout that is not at its end: what was sampled so far, and each token's log-prob then."""

    prompt_id: str
    index: int
    tokens: tuple[int, ...] = ()
    logps: tuple[float, ...] = ()


@dataclass(frozen=True)
class PromptState:
    """One question's past.

    Attributes:
        visits: how often it was asked.
        flips: how often its label changed.
        label: the last decided label.
        votes: what its visits have voted so far, by answer, the older ones discounted.
        probes: rollouts of the last visit, to measure how far the policy has moved since.
        rest: visits that it was last sent to rest for.
        rest_left: those of them that are still to come.
        notes: what the memory part knows of its rewards.
        trajectories: rollouts of the last visit, as the policy that learnt from them scores them.
    """

    visits: int = 0
    flips: int = 0
    label: str | None = None
    votes: Mapping[str, float] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()
    rest: int = 0
    rest_left: int = 0
    notes: Mapping[str, float] = field(default_factory=dict)
    trajectories: tuple[Probe, ...] = ()


class PromptStore:
    """Prompt states by question id; beside them, what the memory part notes of the run as a whole, the
    rollouts that go on at the next step, and how many turns of questions have come by then.
    """

    def __init__(self, states: Mapping[str, PromptState] | None = None) -> None:
        self._states = dict(states or {})
        self.notes: dict[str, float] = {}
        self.partials: list[Partial] = []
        self.begun = 0

    def __getitem__(self, prompt_id: str) -> PromptState:
        return self._states.get(prompt_id, PromptState())

    def visit(self, prompt_id: str, label: str | None) -> bool | None:
        """Record a visit and its decided label; whether the label changed, none if there was none.

        A visit that decides nothing leaves the last decided label standing.
        """
        before = self[prompt_id]
        flipped = None if label is None or before.label is None else label != before.label
        self._states[prompt_id] = replace(
            before,
            visits=before.visits + 1,
            flips=before.flips + bool(flipped),
            label=before.label if label is None else label,
        )
        return flipped

    def remember(
        self, prompt_id: str, votes: Mapping[str, float], probes: tuple[Probe, ...], rest: int
    ) -> None:
        """Keep what a visit leaves for the next one, and let the question rest for so many."""
        self._states[prompt_id] = replace(
            self[prompt_id], votes=dict(votes), probes=probes, rest=rest, rest_left=rest
        )

    def note(
        self, prompt_id: str, notes: Mapping[str, float], trajectories: tuple[Probe, ...] = ()
    ) -> None:
        """Keep what the memory part knows of a question, and how far the policy was by then."""
        self._states[prompt_id] = replace(
            self[prompt_id], notes=dict(notes), trajectories=trajectories
        )

    def awake(self, prompt_ids: Sequence[str]) -> list[str]:
        """Those of a step's questions that do not rest.

        Where all of them rest, all are asked: a step without questions would teach nothing.
        """
        return [name for name in prompt_ids if self[name].rest_left == 0] or list(prompt_ids)

    def rest(self, prompt_ids: Sequence[str]) -> None:
        """Count a step: those of its questions that rest have one visit less to rest."""
        for name in prompt_ids:
            if rest_left := self[name].rest_left:
                self._states[name] = replace(self[name], rest_left=rest_left - 1)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        questions = {name: asdict(state) for name, state in self._states.items()}
        partials = [asdict(partial) for partial in self.partials]
        return {
            "questions": questions,
            "notes": self.notes,
            "partials": partials,
            "begun": self.begun,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PromptStore":
        """The store that `to_json` wrote."""
        probed = ("probes", "trajectories")
        store = cls(
            {
                name: PromptState(
                    **{**state, **{key: tuple(map(_probe, state[key])) for key in probed}}
                )
                for name, state in data["questions"].items()
            }
        )
        store.notes, store.begun = dict(data["notes"]), data["begun"]
        store.partials = [
            Partial(v["prompt_id"], v["index"], tuple(v["tokens"]), tuple(v["logps"]))
            for v in data["partials"]
        ]
        return store


def _probe(value: Mapping[str, Any]) -> Probe:
    return Probe(tuple(value["tokens"]), tuple(value["logps"]))


def questions_of_step(
    prompt_ids: Sequence[str], questions_per_step: int, seed: int, step: int
) -> list[str]:
    """The questions of a step (from 1): each once an epoch, in an order drawn anew each epoch.

    A pure function of its arguments, so that a resumed run asks the same. 0 a step means all. An
    epoch's last step has fewer where the numbers do not divide.
    """
    size = min(questions_per_step or len(prompt_ids), len(prompt_ids))
    epoch, place = divmod(step - 1, math.ceil(len(prompt_ids) / size))
    order = sorted(prompt_ids, key=lambda name: rank(seed, epoch, name))
    return order[place * size : (place + 1) * size]


def next_in_turn(
    prompt_ids: Sequence[str], busy: Collection[str], begun: int, count: int, seed: int
) -> tuple[list[str], int]:
    """So many questions that are not busy, from turn `begun` on, and the turn to go on from.

    Turns are those of epochs as in `questions_of_step`; a question that is busy has its turn.
    """
    chosen: list[str] = []
    order: list[str] = []
    last = begun + 2 * len(prompt_ids)
    while len(chosen) < count and begun < last:
        epoch, place = divmod(begun, len(prompt_ids))
        if place == 0 or not order:
            order = sorted(prompt_ids, key=lambda name: rank(seed, epoch, name))
        if order[place] not in (*busy, *chosen):
            chosen.append(order[place])
        begun += 1
    return chosen, begun


def is_audited(prompt_id: str, share: float, seed: int, step: int) -> bool:
    """Whether a question's vote is taken on to the cap in this step; true for `share` of them."""
    return rank(seed, -step, prompt_id) < share * 2**64


def rank(seed: int, epoch: int, prompt_id: str) -> int:
    """A 64-bit number that depends on nothing else, to put questions in an order drawn anew."""
    text = f"{seed}\0{epoch}\0{prompt_id}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
