"""The protocol every engine speaks, and what passes over it."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from optpo.batch import FinishReason
from optpo.errors import SettingsError


@dataclass(frozen=True)
class SampleSettings:
    """How tokens are drawn.

    `temperature` 0 is greedy; `top_p` 1, `top_k` 0 and `min_p` 0 are off. `stop` strings end a
    rollout when its text contains one. `rows` is how many rollouts an in-process engine decodes at
    once; results do not depend on it.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()
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
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)


@dataclass(frozen=True)
class Request:
    """One rollout asked for: `stream` seeds its draws, `prompt_id` lets prefill be shared."""

    prompt_id: str
    prompt_tokens: tuple[int, ...]
    index: int
    stream: int


@dataclass(frozen=True)
class Completion:
    """A finished rollout as an engine returns it; `logps` in nats, one a token."""

    handle: int
    tokens: tuple[int, ...]
    logps: tuple[float, ...]
    finish: FinishReason
    version: int


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do; `exact_streams`: a rollout's tokens depend on its request alone."""

    cancel: bool
    logps: bool
    seed: bool
    exact_streams: bool
    prefix_cache: bool


class Engine(Protocol):
    """Samples rollouts. Every submitted handle comes back from `poll` once, or was cancelled."""

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do."""
        ...

    def submit(self, request: Request) -> int:
        """Queue a rollout; returns its handle."""
        ...

    def cancel(self, handle: int) -> int:
        """Drop a rollout; returns the tokens it had cost, 0 where it had not begun or has ended."""
        ...

    def poll(self) -> Sequence[Completion]:
        """Work until at least one rollout finishes and return those that did; empty when idle."""
        ...

    def update_weights(self, version: int, folder: Path | None = None) -> None:
        """Sample from now on with these weights (None: the module shared in process changed)."""
        ...


def stream_seed(seed: int, version: int, prompt_id: str, index: int, purpose: str) -> int:
    """The random stream of one rollout: a signed 64-bit number that depends on nothing else."""
    text = f"{seed}\0{version}\0{prompt_id}\0{index}\0{purpose}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little", signed=True)
