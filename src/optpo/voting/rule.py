"""What a stopping rule is: it reads a tally and says if the vote is over, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from optpo.errors import SettingsError
from optpo.voting.tally import Floats, Integers, Tallies, Tally

Kind = Literal["decided", "capped", "tied", "empty"]
"""How a vote ended: by the rule; at the cap with a unique leader the rule is not sure of; at the
cap with two leaders; or without any answer at all."""

AtCap = Literal["abstain", "leader", "first"]
"""What becomes of a vote at the cap that the rule is not sure of. "abstain": it stays undecided
(`capped`, `tied`). "leader": a unique leader is the label, `decided` with the confidence it has; a
tie stays undecided. "first": so is, at a tie, the leader that was voted for first."""

Claim = Literal["mode", "full vote"]
"""What the confidence of a rule is about: that the leader is the answer the model gives most often,
or that it is the label of the vote at the cap."""


@dataclass(frozen=True)
class Decision:
    """What a rule says of a tally.

    Attributes:
        stop: whether the vote is over.
        kind: how it ended, None while it goes on.
        leader: the leading class so far, at a tie the one voted for first; None without a class.
        confidence: probability in [0, 1] of what the rule claims of the leader, under the
            assumptions of the rule; 0 without a leader.
        log_evidence: the rule's statistic in nats.
    """

    stop: bool
    kind: Kind | None
    leader: int | None
    confidence: float
    log_evidence: float


@dataclass(frozen=True, eq=False)
class Decisions:
    """The decisions on many questions after every vote.

    Attributes:
        tallies: the votes.
        stop: (questions, votes + 1) whether the vote is over after n votes.
        decided: of the same shape; whether it is over because the rule is sure.
        confidence: of the same shape, as in `Decision`.
        log_evidence: of the same shape, as in `Decision`.
    """

    tallies: Tallies
    stop: NDArray[np.bool_]
    decided: NDArray[np.bool_]
    confidence: Floats
    log_evidence: Floats

    def __len__(self) -> int:
        return len(self.stop)

    def __getitem__(self, place: tuple[int, int]) -> Decision:
        """The decision on a question (a row) after n votes (a column, -1: all it has)."""
        leader = int(self.tallies.leader[place])
        kind: Kind | None = None
        if self.decided[place]:
            kind = "decided"
        elif self.stop[place]:
            kind = undecided_kind(leader >= 0, bool(self.tallies.tied[place]))
        return Decision(
            stop=bool(self.stop[place]),
            kind=kind,
            leader=None if leader < 0 else leader,
            confidence=float(self.confidence[place]),
            log_evidence=float(self.log_evidence[place]),
        )

    @property
    def first_stop(self) -> Integers:
        """(questions,) the votes after which each is over first; all where it never is."""
        last = self.stop.shape[1] - 1
        return np.asarray(np.where(self.stop.any(axis=1), self.stop.argmax(axis=1), last))


class StoppingRule(Protocol):
    """A test that reads votes in index order and stops; settings only, no state.

    A decision depends on the tally alone, so it is the same whichever rollout finished first, and
    classes that are merged late leave nothing to mend.

    Attributes:
        claims: what `confidence` is about; None where it is no claim about errors, but only a
            heuristic figure.
        refuses: why `weights` or `carried` votes cannot be used, for what cannot.
    """

    claims: ClassVar[Claim | None]
    refuses: ClassVar[Mapping[str, str]]

    @property
    def floor(self) -> int:
        """The fewest votes before the rule may stop."""
        ...

    @property
    def cap(self) -> int:
        """The votes at which the rule stops in any case."""
        ...

    @property
    def at_cap(self) -> AtCap:
        """What becomes of a vote at the cap that the rule is not sure of."""
        ...

    def decide(self, tally: Tally) -> Decision:
        """Say whether the vote is over.

        Raises:
            SettingsError: the tally has weights or carried votes that the rule refuses.
        """
        ...

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say the same of many questions at once, after each of their votes."""
        ...

    def look_ahead(self, tally: Tally) -> int:
        """Return the fewest further votes that could end the test if they all agreed.

        At least 1 while the vote goes on, never past the cap; 0 once it is over. A further vote is
        taken to weigh 1.
        """
        ...


def budget_problems(floor: int, cap: int, at_cap: str = "abstain") -> list[str]:
    """Return what is wrong with floor, cap and end at the cap, as messages for a `SettingsError`."""
    problems = [
        f"{name} = {value!r}: must be a whole number of votes, 1 or more"
        for name, value in (("floor", floor), ("cap", cap))
        if type(value) is not int or value < 1
    ]
    if not problems and floor > cap:
        problems.append(f"floor = {floor}: must not be above cap = {cap}")
    if at_cap not in get_args(AtCap):
        problems.append(f"at_cap = {at_cap!r}: must be one of {', '.join(get_args(AtCap))}")
    return problems


def undecided_kind(named: bool, tied: bool) -> Kind:
    """How a vote ended that nobody is sure of: with a leader or without, or with two."""
    return "empty" if not named else "tied" if tied else "capped"


def check_accepted(rule: StoppingRule, tally: Tally | Tallies) -> None:
    """Refuse weights or carried votes that the rule cannot use, with the reason.

    Raises:
        SettingsError: there are some.
    """
    carried = tally.carried is not None and len(tally.carried) > 0
    for kind, present in (("weights", tally.weights is not None), ("carried", carried)):
        if present and kind in rule.refuses:
            raise SettingsError([f"{type(rule).__name__} takes no {kind}: {rule.refuses[kind]}"])


def conclude(
    rule: StoppingRule,
    tally: Tally,
    *,
    sure: Any,
    confidence: Any,
    log_evidence: Any,
) -> Decision:
    """Return the decision of a rule that is `sure` of the leader or not, within floor and cap."""
    check_accepted(rule, tally)
    kind: Kind | None = None
    named = tally.leader is not None
    if named and sure and tally.total >= rule.floor:
        kind = "decided"
    elif tally.total >= rule.cap:
        taken = named and (rule.at_cap == "first" or (rule.at_cap == "leader" and not tally.tied))
        kind = "decided" if taken else undecided_kind(named, tally.tied)
    claimed = float(confidence) if named else 0.0
    return Decision(kind is not None, kind, tally.leader, claimed, float(log_evidence))


def conclude_many(
    rule: StoppingRule,
    tallies: Tallies,
    *,
    sure: NDArray[np.bool_] | bool,
    confidence: Floats,
    log_evidence: Floats,
) -> Decisions:
    """Do what `conclude` does, for many questions after every vote."""
    check_accepted(rule, tallies)
    named, over = tallies.leader >= 0, tallies.total >= rule.cap
    decided = sure & named & (tallies.total >= rule.floor)
    if rule.at_cap != "abstain":
        decided |= over & named & ((rule.at_cap == "first") | ~tallies.tied)
    return Decisions(
        tallies, decided | over, decided, np.where(named, confidence, 0.0), log_evidence
    )
