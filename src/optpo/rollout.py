"""A rollout: one sampled completion, as engines make it and votes and batches read it."""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class Rollout:
    """One sampled completion of one question.

    `logps` are the log-probs (nats) of the sampled tokens under the policy `version` that drew
    them, at the sampling temperature and before any truncation (top-p and the like).
    `vote` is the answer class within the question, -1 where no answer was found.
    """

    prompt_id: str
    index: int
    version: int
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    logps: tuple[float, ...]
    finish: FinishReason
    text: str = ""
    answer: str | None = None
    vote: int = -1
