"""The protocol every engine speaks, and what passes over it."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from optpo.data import ChatMessage
from optpo.errors import SettingsError
from optpo.rollout import FinishReason


@dataclass(frozen=True)
class SampleSettings:
    """How tokens are drawn.

    `temperature` 0 is greedy; `top_p` 1, `top_k` 0 and `min_p` 0 are off. `stop` strings end a
    rollout when its text contains one, `stop_tokens` when one is drawn, beside the model's own end
    tokens. `rows` is how many rollouts an in-process engine decodes at once; results do not depend
    on it.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()
    rows: int = 64

    def __post_init__(self) -> None:
        checks = {
            f"temperature is {self.temperature}; it must be 0 or more": self.temperature >= 0,
            f"top_p is {self.top_p}; it must be above 0 and at most 1": 0 < self.top_p <= 1,
            f"top_k is {self.top_k}; it must be 0 (off) or more": self.top_k >= 0,
            f"min_p is {self.min_p}; it must be at least 0 and below 1": 0 <= self.min_p < 1,
            f"max_new_tokens is {self.max_new_tokens}; it must be 1 or more": self.max_new_tokens
            >= 1,
            f"rows is {self.rows}; it must be 1 or more": self.rows >= 1,
            "stop holds an empty string, which would end every rollout at once": ""
            not in self.stop,
            f"stop_tokens is {list(self.stop_tokens)}; a token is 0 or more": all(
                token >= 0 for token in self.stop_tokens
            ),
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)


Prompt = str | tuple[ChatMessage, ...]
"""A question as a person writes it: text, or the messages of a conversation."""


@dataclass(frozen=True)
class EntropyTemperature:
    """A temperature a token: that of the settings times 1 + strength * place (HAPO, 2509.16591).

    The place is that of the policy's entropy there on the scale from `least` over `quantile` to `most`,
    logarithms of nats: see `entropy_places`.
    """

    strength: float
    least: float
    quantile: float
    most: float


@dataclass(frozen=True)
class Request:
    """One rollout asked for: `stream` seeds its draws, `prompt_id` lets prefill be shared.

    `prompt` is for engines that make tokens themselves; they need no `prompt_tokens`. `by_entropy` is
    for the embedded engine alone; log-probs are still those at the temperature of the settings.
    """

    prompt_id: str
    prompt_tokens: tuple[int, ...]
    index: int
    stream: int
    prompt: Prompt | None = None
    by_entropy: EntropyTemperature | None = None


@dataclass(frozen=True)
class Completion:
    """A rollout as an engine returns it.

    `tokens` are all that were sampled, the one that ended it included; -1 each where the engine
    tells only how many. `logps` (nats), one a token; none where the engine has none. `text` is the
    engine's own text of them; None where it is left to the caller's tokenizer.
    `finish` is "stop", "length" (cut at `max_new_tokens`) or "error": this question was refused for
    the `reason`, and would be again.
    """

    handle: int
    tokens: tuple[int, ...]
    logps: tuple[float, ...]
    finish: FinishReason
    version: int
    text: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do; `exact_streams`: a rollout's tokens depend on its request alone."""

    cancel: bool
    logps: bool
    seed: bool
    exact_streams: bool
    prefix_cache: bool
    token_ids: bool = True


class Engine(Protocol):
    """Samples rollouts. Every submitted handle comes back from `poll` once, or was cancelled."""

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do."""
        ...

    @property
    def slots(self) -> int:
        """How many rollouts it can make use of at once, 1 or more; may change from poll to poll."""
        ...

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens computed so far; 0 where the engine does not tell."""
        ...

    @property
    def lost_tokens(self) -> int:
        """Tokens sampled for rollouts that then failed and were begun anew, as far as is known."""
        ...

    def submit(self, request: Request) -> int:
        """Queue a rollout; returns its handle. Rollouts begin in the order of submission."""
        ...

    def cancel(self, handle: int) -> int:
        """Drop a rollout; returns the tokens it had cost, 0 where it had not begun or has ended.

        It never comes back from `poll`, also where it had finished but was not yet returned.
        """
        ...

    def poll(self) -> Sequence[Completion]:
        """Work until at least one rollout finishes and return those that did; empty when idle.

        Raises EngineError where the engine cannot go on: says what failed and what to do.
        """
        ...

    def update_weights(self, version: int, folder: Path | None = None) -> None:
        """Sample from now on with these weights (None: the module shared in process changed).

        Raises RuntimeError while rollouts are in flight, and EngineError where the engine cannot.
        """
        ...

    def close(self) -> None:
        """Let go of threads, connections and processes; what is in flight is dropped."""
        ...


def stream_seed(seed: int, version: int, prompt_id: str, index: int, purpose: str) -> int:
    """The random stream of one rollout: a signed 64-bit number that depends on nothing else."""
    text = f"{seed}\0{version}\0{prompt_id}\0{index}\0{purpose}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little", signed=True)
