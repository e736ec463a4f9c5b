"""What a stopping rule is: it reads a tally and says if the vote is over, and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from optpo.voting.tally import Integers, Tallies, Tally

Kind = Literal["decided", "capped", "tied", "empty"]
"""How a vote ended: by the rule; at the cap with a unique leader the rule is not sure of; at the
cap with two leaders; or without any answer at all."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Decision:
    """What a rule says of a tally.

    Attributes:
        stop: whether the vote is over.
        kind: how it ended, None while it goes on.
        leader: the leading class so far, at a tie the one voted for first; None without a class.
        confidence: probability in [0, 1] that the leader is the answer the model gives most often,
            under the assumptions of the rule; 0 without a leader.
        log_evidence: the rule's statistic in nats: log odds of `confidence`.
    """

    stop: bool
    kind: Kind | None
    leader: int | None
    confidence: float
    log_evidence: float


@dataclass(frozen=True, eq=False)
class Decisions:
    """The decisions on many questions: arrays of shape (questions,), fields as in `Decision`.

    `kind` is "" while a vote goes on, `leader` -1 where no answer was parsed.
    """

    stop: NDArray[np.bool_]
    kind: NDArray[np.str_]
    leader: Integers
    confidence: Floats
    log_evidence: Floats

    def __len__(self) -> int:
        return len(self.stop)

    def __getitem__(self, question: int) -> Decision:
        leader = int(self.leader[question])
        return Decision(
            stop=bool(self.stop[question]),
            kind=cast("Kind | None", str(self.kind[question]) or None),
            leader=None if leader < 0 else leader,
            confidence=float(self.confidence[question]),
            log_evidence=float(self.log_evidence[question]),
        )


class StoppingRule(Protocol):
    """A test that reads votes in index order and stops; settings only, no state.

    A decision depends on the tally alone, so it is the same whichever rollout finished first.
    """

    @property
    def floor(self) -> int:
        """The fewest votes before the rule may stop."""
        ...

    @property
    def cap(self) -> int:
        """The votes at which the rule stops in any case."""
        ...

    def decide(self, tally: Tally) -> Decision:
        """Say whether the vote is over."""
        ...

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say the same of many questions at once."""
        ...

    def look_ahead(self, tally: Tally) -> int:
        """Return the fewest further votes that could end the test if they all agreed.

        At least 1 while the vote goes on, never past the cap; 0 once it is over.
        """
        ...


def budget_problems(floor: int, cap: int) -> list[str]:
    """Return what is wrong with a floor and a cap, as messages for a `SettingsError`."""
    problems = [
        f"{name} = {value!r}: must be a whole number of votes, 1 or more"
        for name, value in (("floor", floor), ("cap", cap))
        if type(value) is not int or value < 1
    ]
    if not problems and floor > cap:
        problems.append(f"floor = {floor}: must not be above cap = {cap}")
    return problems


def conclude(
    tally: Tally, *, floor: int, cap: int, sure: bool, confidence: float, log_evidence: float
) -> Decision:
    """Return the decision of a rule that is `sure` of the leader or not, within floor and cap."""
    kind: Kind | None = None
    if sure and tally.total >= floor:
        kind = "decided"
    elif tally.total >= cap:
        kind = "empty" if tally.parsed == 0 else "tied" if tally.tied else "capped"
    return Decision(kind is not None, kind, tally.leader, confidence, log_evidence)


def conclude_many(
    tallies: Tallies,
    *,
    floor: int,
    cap: int,
    sure: NDArray[np.bool_],
    confidence: Floats,
    log_evidence: Floats,
) -> Decisions:
    """Do what `conclude` does, for many questions."""
    decided = sure & (tallies.total >= floor)
    at_cap = tallies.total >= cap
    kind = np.select(
        [decided, ~at_cap, tallies.parsed == 0, tallies.tied],
        ["decided", "", "empty", "tied"],
        "capped",
    )
    return Decisions(decided | at_cap, kind, tallies.leader, confidence, log_evidence)
