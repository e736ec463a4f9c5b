"""How the vote on a question ended: what is written to `verdicts.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

from optpo.errors import DataError
from optpo.voting.rule import Kind


@dataclass(frozen=True)
class Verdict:
    """The end of the vote on one question.

    Attributes:
        prompt_id: the question's id.
        kind: `decided`, or why it is not: `capped`, `tied`, `empty`.
        label: the answer with most votes, None where there is none to name.
        confidence: the rule's probability in [0, 1] that it is the model's most frequent answer.
        counts: votes by answer.
        unparsed: votes in which no answer was found.
        unfinished: of these, rollouts that were cut at their limit.
        rollouts: rollouts counted.
        tokens: tokens sampled for them.
        cancelled_rollouts: further rollouts begun and cancelled.
        cancelled_tokens: tokens sampled for those.
        carried: votes of earlier visits that counted too, by answer, discounted.

    Raises:
        DataError: the kind is unknown, or the confidence outside [0, 1].
    """

    prompt_id: str
    kind: Kind
    label: str | None
    confidence: float
    counts: dict[str, int]
    unparsed: int
    rollouts: int
    tokens: int
    cancelled_rollouts: int = 0
    cancelled_tokens: int = 0
    carried: dict[str, float] = field(default_factory=dict)
    unfinished: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise DataError(f"kind must be one of {', '.join(get_args(Kind))}, found {self.kind!r}")
        if not (math.isfinite(self.confidence) and 0 <= self.confidence <= 1):
            raise DataError(f"confidence must lie in [0, 1], found {self.confidence!r}")

    @property
    def decided(self) -> bool:
        """Whether the rule was sure of the label."""
        return self.kind == "decided"

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as a value that `json` can write."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Verdict:
        """Read what `to_json` returned; fields of a later version are ignored.

        Raises:
            DataError: a field is missing, or its value impossible.
        """
        names = {known.name for known in fields(cls)}
        try:
            return cls(**{name: value[name] for name in value if name in names})
        except TypeError as error:
            raise DataError(f"not a verdict ({error}): {value!r}") from error
