"""Take votes within one budget for a whole question set: each goes where it is worth most."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from optpo.errors import EngineError, SettingsError
from optpo.sampling.ballot import Ballot, Reader, count_votes
from optpo.sampling.engine import Completion, Engine
from optpo.sampling.occupancy import Occupancy
from optpo.sampling.scheduler import submit_next
from optpo.voting import StoppingRule, value_of_next_vote
from optpo.voting.budget import expected_cost
from optpo.voting.rule import undecided_kind

FEWEST_IN_FLIGHT = 8
"""With 32 questions or more a rollout for every fourth question is in flight instead. A launch reads
no vote that is still in flight: with one in flight for every question half the gain is lost."""


@dataclass(frozen=True)
class Budget:
    """What the votes of a question set may cost together.

    Args:
        amount: the budget; enough for one rollout at least.
        unit: "tokens" are sampled tokens, those of a prompt cost nothing; or "votes".
        longest: the most tokens a rollout can have. Of a budget of tokens so many are set aside
            for every rollout in flight, so it is never overrun; less than that is left at the end,
            and the last rollouts run few at a time.

    Raises:
        SettingsError: the budget does not cover one rollout.
    """

    amount: int
    unit: Literal["tokens", "votes"]
    longest: int = 1

    def __post_init__(self) -> None:
        if self.amount < self.reserve:
            longest = f" (of up to {self.longest} tokens)" if self.unit == "tokens" else ""
            raise SettingsError(
                [
                    f"a budget of {self.amount} {self.unit} does not cover one rollout{longest}; "
                    f"it must be {self.reserve} or more"
                ]
            )

    @property
    def reserve(self) -> int:
        """The most that one rollout can cost."""
        return self.longest if self.unit == "tokens" else 1

    def cost(self, completion: Completion) -> int:
        """What a rollout has cost."""
        return len(completion.tokens) if self.unit == "tokens" else 1


def take_votes_within(
    engine: Engine,
    ballots: Sequence[Ballot],
    rule: StoppingRule,
    reader: Reader,
    *,
    budget: Budget,
    seed: int,
    version: int,
    purpose: str,
    on_verdict: Callable[[int, int], None] = lambda done, total: None,
    on_ballot: Callable[[Ballot], None] = lambda ballot: None,
) -> Occupancy:
    """Do what `take_votes` does, until `rule` has stopped every ballot or the budget is used up.

    The next rollout is of the question whose next vote is worth most by `value_of_next_vote`, for
    what it is expected to cost; votes in flight count as votes for the leader. As in waves no
    question has more in flight than could end its test. The rule alone says that a question is
    done; one that the budget cuts short ends `capped`, `tied` or `empty`, whatever the rule does at
    its cap.

    Rollouts are counted in the order in which they were launched, and after each count as many are
    launched as the questions allow and the budget covers. So what is asked, and every verdict,
    depends on the ballots, the settings and the seed alone, not on the engine's batch or on timing.

    Raises EngineError if the engine goes idle with votes missing.
    """
    done = 0
    for ballot in ballots:
        ballot.launched = ballot.tally.total
        ballot.decision = rule.decide(ballot.tally)
        done += ballot.decision.stop
    queue = _Queue(ballots, rule)
    most = max(FEWEST_IN_FLIGHT, len(ballots) // 4)
    in_flight: deque[tuple[int, int]] = deque()
    arrived: dict[int, Completion] = {}
    occupancy = Occupancy()
    spent = 0

    def launch() -> None:
        while (
            len(in_flight) < most and spent + (len(in_flight) + 1) * budget.reserve <= budget.amount
        ):
            place = queue.first()
            if place is None:
                break
            handle = submit_next(engine, ballots[place], seed, version, purpose)
            in_flight.append((place, handle))
            queue.launched(place)
        occupancy.note(len(in_flight), engine.slots)

    def end(ballot: Ballot) -> None:
        nonlocal done
        done += 1
        if ballot.error is None:
            on_ballot(ballot)
        on_verdict(done, len(ballots))

    launch()
    while in_flight:
        place, handle = in_flight[0]
        while handle not in arrived:
            completions = engine.poll()
            if not completions:
                raise EngineError(f"the engine went idle with {len(in_flight)} rollouts missing")
            arrived |= {completion.handle: completion for completion in completions}
        in_flight.popleft()
        ballot, completion = ballots[place], arrived.pop(handle)
        spent += budget.cost(completion)
        if not ballot.open:
            # A rule that asks for more than it needs; what is in flight runs on to its end, because
            # the tokens up to a cancellation depend on timing.
            ballot.cancelled_rollouts += 1
            ballot.cancelled_tokens += len(completion.tokens)
        elif completion.finish == "error":
            ballot.error = completion.reason
            end(ballot)
        else:
            ballot.waiting[ballot.tally.total] = completion
            if count_votes(ballot, rule, reader).stop:
                end(ballot)
        queue.counted(place, budget.cost(completion))
        launch()
    for ballot in ballots:
        if ballot.open and ballot.decision is not None:
            kind = undecided_kind(ballot.tally.leader is not None, ballot.tally.tied)
            ballot.decision = replace(ballot.decision, stop=True, kind=kind)
            end(ballot)
    return occupancy


class _Queue:
    """Which question gets the next vote."""

    def __init__(self, ballots: Sequence[Ballot], rule: StoppingRule) -> None:
        self._ballots, self._rule = ballots, rule
        self._ahead = [rule.look_ahead(ballot.tally) for ballot in ballots]
        self._waits = np.zeros(len(ballots), dtype=bool)
        self._value, self._spent, self._votes = np.zeros((3, len(ballots)))
        for place in range(len(ballots)):
            self.launched(place)

    def counted(self, place: int, cost: int) -> None:
        """See how a question stands after a vote, and what it has cost."""
        self._spent[place] += cost
        self._votes[place] += 1
        ballot = self._ballots[place]
        self._ahead[place] = self._rule.look_ahead(ballot.tally) if ballot.open else 0
        self.launched(place)

    def launched(self, place: int) -> None:
        """See how a question stands after a launch."""
        ballot = self._ballots[place]
        tally, pending = ballot.tally, ballot.launched - ballot.tally.total
        self._waits[place] = pending < self._ahead[place]
        self._value[place] = value_of_next_vote(
            tally.leader_votes + pending, tally.runner_up_votes, ballot.launched, self._rule.cap
        )

    def first(self) -> int | None:
        """The question whose next vote is worth most for its cost; none if nobody may have one."""
        if not self._waits.any():
            return None
        mean = self._spent.sum() / max(1.0, self._votes.sum()) or 1.0
        worth = self._value / expected_cost(self._spent, self._votes, mean)
        return int(np.where(self._waits, worth, -1.0).argmax())
