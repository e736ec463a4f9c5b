"""What a run remembers of each question from one visit to the next; saved with every checkpoint."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from typing import Any

from optpo.training.drift import Probe


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
    """

    visits: int = 0
    flips: int = 0
    label: str | None = None
    votes: Mapping[str, float] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()
    rest: int = 0
    rest_left: int = 0


class PromptStore:
    """Prompt states by question id."""

    def __init__(self, states: Mapping[str, PromptState] | None = None) -> None:
        self._states = dict(states or {})

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

    def to_json(self) -> dict[str, dict[str, Any]]:
        """A JSON object by question id."""
        return {name: asdict(state) for name, state in self._states.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, Any]]) -> "PromptStore":
        """The store that `to_json` wrote."""
        return cls(
            {
                name: PromptState(**{**state, "probes": tuple(map(_probe, state["probes"]))})
                for name, state in data.items()
            }
        )


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
    order = sorted(prompt_ids, key=lambda name: _rank(seed, epoch, name))
    return order[place * size : (place + 1) * size]


def is_audited(prompt_id: str, share: float, seed: int, step: int) -> bool:
    """Whether a question's vote is taken on to the cap in this step; true for `share` of them."""
    return _rank(seed, -step, prompt_id) < share * 2**64


def _rank(seed: int, epoch: int, prompt_id: str) -> int:
    text = f"{seed}\0{epoch}\0{prompt_id}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
