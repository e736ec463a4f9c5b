"""Ask an engine for rollouts and feed their votes back until every question has its verdict.

Waves: for each question only as many rollouts are launched as could end its test if they all
agreed, so that none is wasted; the engine stays full because many questions are asked at once.
Speculative: where slots would stand empty, further rollouts are launched that may be needed, and
cancelled where they are not. In both, votes are counted in the order of their index, never of
arrival, so a verdict does not depend on timing.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np

from optpo.errors import EngineError
from optpo.sampling.ahead import chance_needed
from optpo.sampling.ballot import Ballot, Reader, count_vote, count_votes
from optpo.sampling.engine import Engine, Request, stream_seed
from optpo.sampling.occupancy import Occupancy
from optpo.voting import StoppingRule, value_of_next_vote

Schedule = Literal["waves", "speculative", "biased_arrival_order"]
"""Which rollouts are launched, and in which order votes are counted. "biased_arrival_order" launches
as "speculative" does and counts whichever rollout finishes first: quick, but it counts the short
answers, depends on timing, and breaks what a stopping rule promises."""

LEAST_CHANCE = 0.7
"""The probability of being needed that a speculative rollout must have."""

QUEUE_SHARE = 4
"""For so many slots one more rollout waits in the engine: so it is never idle between two polls, and
computes the prompts of several questions at once."""

OLDEST_EVERY = 4
"""Every so many picks the question that waited longest is next, however little its vote is worth."""


def schedule_problems(schedule: Schedule) -> list[str]:
    """What is wrong with the name of a schedule."""
    known = get_args(Schedule)
    if schedule in known:
        return []
    return [f"schedule is {schedule!r}; it must be one of {', '.join(known)}"]


def take_votes(
    engine: Engine,
    ballots: Sequence[Ballot],
    rule: StoppingRule,
    reader: Reader,
    *,
    seed: int,
    version: int,
    purpose: str,
    schedule: Schedule = "waves",
    on_verdict: Callable[[int, int], None] = lambda done, total: None,
    on_ballot: Callable[[Ballot], None] = lambda ballot: None,
) -> Occupancy:
    """Sample until `rule` stops every ballot; the ballots are filled in place.

    No more rollouts are in flight than the engine has slots, and a few that wait. Of the questions
    that need votes the one where a vote is worth most goes first, by `value_of_next_vote`.

    A ballot that already holds votes goes on after its last index. `purpose` keeps the random
    streams of training, evaluation and audit apart; `on_verdict(done, total)` reports progress,
    `on_ballot` hands over each ballot as it ends. A ballot whose question the engine refuses ends
    with its `error`, and is not handed over.

    Returns how full the engine was. Raises EngineError if the engine fails or goes idle with votes
    missing, ValueError if the rule neither stops nor asks for votes.
    """
    for ballot in ballots:
        past = max((rollout.index + 1 for rollout in ballot.rollouts), default=0)
        ballot.launched = max(ballot.tally.total, past)
        ballot.decision = rule.decide(ballot.tally)
    questions = _Questions(ballots, rule)
    in_flight: dict[int, tuple[int, int]] = {}
    occupancy = Occupancy()
    done = sum(not ballot.open for ballot in ballots)

    def launch(place: int) -> None:
        index = ballots[place].launched
        handle = submit_next(engine, ballots[place], seed, version, purpose)
        in_flight[handle] = (place, index)
        questions.launched(place)

    def fill() -> None:
        slots = engine.slots
        while len(in_flight) < slots + slots // QUEUE_SHARE:
            if (place := questions.most_worth()) is None:
                break
            launch(place)
        while schedule != "waves" and len(in_flight) < slots:
            if (place := questions.likeliest()) is None:
                break
            launch(place)
        occupancy.note(len(in_flight), slots)

    def end(place: int) -> None:
        nonlocal done
        ballot, done = ballots[place], done + 1
        questions.ended(place)
        for handle in [handle for handle, (owner, _) in in_flight.items() if owner == place]:
            del in_flight[handle]
            ballot.cancelled_rollouts += 1
            ballot.cancelled_tokens += engine.cancel(handle)
        ballot.cancelled_rollouts += len(ballot.waiting)
        ballot.cancelled_tokens += sum(len(ended.tokens) for ended in ballot.waiting.values())
        ballot.waiting.clear()
        if ballot.error is None:
            on_ballot(ballot)
        on_verdict(done, len(ballots))

    fill()
    while in_flight:
        completions = engine.poll()
        if not completions:
            raise EngineError(f"the engine went idle with {len(in_flight)} rollouts missing")
        arrived = [
            (*in_flight.pop(completion.handle), completion)
            for completion in completions
            if completion.handle in in_flight
        ]
        # All are put down before any is counted, so that what a verdict makes needless is charged.
        for place, index, completion in arrived:
            ballots[place].waiting[index] = completion
        for place, index, completion in arrived:
            ballot = ballots[place]
            if index not in ballot.waiting:
                continue
            if completion.finish == "error":
                ballot.error = completion.reason
            elif schedule == "biased_arrival_order":
                count_vote(ballot, index, rule, reader)
            else:
                count_votes(ballot, rule, reader)
            if ballot.open:
                questions.counted(place)
            else:
                end(place)
        fill()
    return occupancy


def submit_next(engine: Engine, ballot: Ballot, seed: int, version: int, purpose: str) -> int:
    """Ask for the ballot's next rollout; returns its handle."""
    index = ballot.launched
    stream = stream_seed(seed, version, ballot.prompt_id, index, purpose)
    ballot.launched = index + 1
    tokens = ballot.prompt_of(index)
    return engine.submit(
        Request(ballot.prompt_id, tokens, index, stream, ballot.prompt, ballot.by_entropy)
    )


class _Questions:
    """Which question gets the next rollout."""

    def __init__(self, ballots: Sequence[Ballot], rule: StoppingRule) -> None:
        self._ballots, self._rule = ballots, rule
        self._ahead = np.zeros(len(ballots), dtype=np.int64)
        self._pending = np.zeros(len(ballots), dtype=np.int64)
        self._worth = np.zeros(len(ballots))
        self._chance = np.zeros(len(ballots))
        self._waits_since = np.arange(len(ballots))
        self._picks = 0
        for place, ballot in enumerate(ballots):
            if ballot.open:
                self.counted(place)

    def counted(self, place: int) -> None:
        """See how a question stands after votes were counted.

        Raises ValueError if the rule neither stops nor asks for votes.
        """
        ballot = self._ballots[place]
        tally = ballot.tally
        ahead = self._rule.look_ahead(tally)
        if ahead < 1:
            raise ValueError(f"look_ahead of {self._rule} is {ahead} while the vote goes on")
        self._ahead[place] = ahead
        self._pending[place] = ballot.launched - tally.total
        self._worth[place] = value_of_next_vote(
            tally.leader_votes, tally.runner_up_votes, tally.total, self._rule.cap
        )
        self._see_chance(place)

    def launched(self, place: int) -> None:
        """See how a question stands after a launch."""
        self._pending[place] += 1
        self._waits_since[place] = len(self._ballots) + self._picks
        self._see_chance(place)

    def ended(self, place: int) -> None:
        """A question needs no more."""
        self._ahead[place] = self._pending[place] = self._chance[place] = 0

    def most_worth(self) -> int | None:
        """Of the questions that need a vote for sure, the one where it is worth most; else none."""
        waits = self._pending < self._ahead
        if not waits.any():
            return None
        self._picks += 1
        if self._picks % OLDEST_EVERY == 0:
            return int(np.where(waits, self._waits_since, np.iinfo(np.int64).max).argmin())
        return int(np.where(waits, self._worth, -1.0).argmax())

    def likeliest(self) -> int | None:
        """The question that most likely needs one more than is pending; none if none is likely."""
        if not self._chance.any():
            return None
        place = int(self._chance.argmax())
        return place if self._chance[place] >= LEAST_CHANCE else None

    def _see_chance(self, place: int) -> None:
        ballot, tally = self._ballots[place], self._ballots[place].tally
        self._chance[place] = (
            0.0
            if ballot.launched >= self._rule.cap
            else chance_needed(
                int(self._ahead[place]), tally.leader_votes, tally.runner_up_votes,
                tally.total + sum(tally.carried), int(self._pending[place]),
            )
        )  # fmt: skip
