"""The scheduler: verdicts are functions of what was sampled, not of when it arrived."""

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import EngineError
from optpo.sampling.ballot import Ballot, Reader
from optpo.sampling.engine import Capabilities, Completion, stream_seed
from optpo.sampling.scheduler import OLDEST_EVERY, QUEUE_SHARE, take_votes
from optpo.voting import Decision, FixedRule, OptpoRule, Tally


class Letters:
    """Answer classes numbered as they first appear."""

    def __init__(self):
        self.labels = []

    def classify(self, answer):
        if answer is None:
            return -1
        if answer not in self.labels:
            self.labels.append(answer)
        return self.labels.index(answer)


def answer_of(prompt_id, index):
    """What a rollout says: a fixed function of its place, skewed towards A; 0 says nothing."""
    return random.Random(f"{prompt_id} {index}").choice("AAAAABBC0")


def tokens_of(prompt_id, index):
    length = random.Random(f"length {prompt_id} {index}").randrange(1, 6)
    return (ord(answer_of(prompt_id, index)), *range(length))


@dataclass
class ScriptedEngine:
    """Answers by `answer_of`, in an order and in portions drawn from `seed`."""

    seed: int = 0
    finish: str = "stop"
    repeat: bool = False
    dies_after: int | None = None
    slots: int = 64
    refuses: str = ""
    submitted: list = field(default_factory=list)
    in_flight: dict = field(default_factory=dict)
    cancelled: list = field(default_factory=list)

    most_in_flight: int = 0

    capabilities = Capabilities(True, True, True, True, True)
    prefill_tokens = 0

    def submit(self, request):
        handle = 10 + 3 * len(self.submitted)
        self.submitted.append(request)
        self.in_flight[handle] = request
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        return handle

    def cancel(self, handle):
        self.cancelled.append(handle)
        # In flight it had cost 2 tokens; once it has come back there is nothing to drop.
        return 2 if self.in_flight.pop(handle, None) else 0

    def poll(self):
        if self.dies_after is not None and len(self.submitted) >= self.dies_after:
            return []
        draw = random.Random(f"{self.seed} {len(self.in_flight)} {len(self.submitted)}")
        if not self.in_flight:
            return []
        count = draw.randrange(1, min(6, len(self.in_flight)) + 1)
        chosen = draw.sample(sorted(self.in_flight), count)
        done = []
        for handle in chosen:
            request = self.in_flight.pop(handle)
            tokens = tokens_of(request.prompt_id, request.index)
            logps = tuple(-0.5 for _ in tokens)
            if request.prompt_id == self.refuses:
                done.append(Completion(handle, (), (), "error", 3, reason="too long"))
            else:
                done.append(Completion(handle, tokens, logps, self.finish, 3))
        return done * 2 if self.repeat else done


READER = Reader(
    decode=lambda tokens: chr(tokens[0]), extract=lambda text: None if text == "0" else text
)


def ballots_of(count):
    return [Ballot(f"q{n}", (1, n), Letters()) for n in range(count)]


def take(engine, ballots, rule, **options):
    return take_votes(engine, ballots, rule, READER, seed=5, version=3, purpose="test", **options)


def outcome(ballot):
    return (
        ballot.decision, ballot.tally, ballot.label, ballot.leading, tuple(ballot.rollouts),
        ballot.launched, ballot.cancelled_rollouts,
    )  # fmt: skip


def votes_by_hand(prompt_id, rule, tally=None, classes=None):
    """Ask for one vote after the other until the rule stops."""
    tally, classes = tally or Tally(), classes or Letters()
    while not rule.decide(tally).stop:
        answer = answer_of(prompt_id, tally.total)
        tally = tally.add(classes.classify(None if answer == "0" else answer))
    return tally


RULE = OptpoRule(floor=3, cap=20)


@given(
    st.integers(0, 10**6),
    st.integers(1, 8),
    st.sampled_from([RULE, FixedRule(votes=7)]),
    st.integers(1, 40),
    st.sampled_from(["waves", "speculative"]),
)
def test_verdicts_do_not_depend_on_the_order_of_arrival(seed, questions, rule, slots, schedule):
    """Whichever rollouts finish first, however many at once, in however many slots and with however
    many launched ahead, each ballot ends with the votes, rollouts and decision that asking one
    rollout after the other gives."""
    ballots, engine = ballots_of(questions), ScriptedEngine(seed, slots=slots)
    take(engine, ballots, rule, schedule=schedule)
    for ballot in ballots:
        tally = votes_by_hand(ballot.prompt_id, rule)
        assert ballot.tally == tally
        assert ballot.decision == rule.decide(tally)
        assert [rollout.index for rollout in ballot.rollouts] == list(range(tally.total))
        for rollout in ballot.rollouts:
            assert rollout.tokens == tokens_of(ballot.prompt_id, rollout.index)
            assert len(rollout.logps) == len(rollout.tokens)
            assert (rollout.version, rollout.prompt_tokens) == (3, ballot.prompt_tokens)
            expected = answer_of(ballot.prompt_id, rollout.index)
            assert rollout.answer == (None if expected == "0" else expected)
            assert rollout.vote == tally.votes[rollout.index]
        assert ballot.tokens == sum(len(rollout.tokens) for rollout in ballot.rollouts)


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_waves_launch_nothing_that_could_be_wasted(seed, questions):
    """With a rule that looks ahead exactly, every rollout launched is counted, none cancelled."""
    ballots, engine = ballots_of(questions), ScriptedEngine(seed)
    take(engine, ballots, RULE)
    assert engine.cancelled == []
    assert len(engine.submitted) == sum(ballot.tally.total for ballot in ballots)
    assert all(ballot.launched == ballot.tally.total for ballot in ballots)
    assert not any(ballot.waiting or ballot.cancelled_rollouts for ballot in ballots)


@given(st.integers(0, 10**6), st.integers(1, 30), st.sampled_from(["waves", "speculative"]))
def test_no_more_is_in_flight_than_the_engine_has_slots(seed, slots, schedule):
    """But for a quarter that waits in the engine, the slots bound what is launched, and they are
    all used while enough is wanted."""
    engine = ScriptedEngine(seed, slots=slots)
    take(engine, ballots_of(12), FixedRule(votes=6), schedule=schedule)
    assert engine.most_in_flight == slots + slots // QUEUE_SHARE


def test_speculation_fills_slots_that_would_stand_empty():
    """With one question only its wave is asked for in waves; speculation launches further ahead,
    never past the cap, and what the verdict makes needless is cancelled and charged."""
    rule = OptpoRule(floor=3, cap=20)
    waves, speculative = ScriptedEngine(slots=16), ScriptedEngine(slots=16)
    (ballot,) = ballots_of(1)
    take(waves, [ballot], rule)
    assert waves.most_in_flight == rule.look_ahead(Tally())
    (ballot,) = ballots_of(1)
    take(speculative, [ballot], rule, schedule="speculative")
    assert waves.most_in_flight < speculative.most_in_flight <= 16
    assert len({request.index for request in speculative.submitted}) == ballot.launched <= 20
    assert ballot.cancelled_rollouts == ballot.launched - ballot.tally.total > 0
    assert speculative.in_flight == {}


def test_sure_needs_go_before_speculation():
    """What may be needed is launched after all that is needed for sure, into the slots left."""
    engine = ScriptedEngine(slots=12)
    ballots, rule = ballots_of(2), OptpoRule(floor=4, cap=20)
    with pytest.raises(EngineError):
        take(replace(engine, dies_after=12), ballots, rule, schedule="speculative")
    assert [request.index < 4 for request in engine.submitted] == [True] * 8 + [False] * 4


def test_no_question_starves():
    """A question whose votes are worth little is begun while others still want theirs: each has its
    first rollout after `OLDEST_EVERY` picks a question at the latest."""
    questions = 12
    engine = ScriptedEngine(slots=1)
    take(engine, ballots_of(questions), FixedRule(votes=30))
    begun = {}
    for place, request in enumerate(engine.submitted):
        begun.setdefault(request.prompt_id, place)
    assert len(begun) == questions
    assert max(begun.values()) <= OLDEST_EVERY * questions


def test_a_close_vote_goes_before_a_clear_one():
    """Where slots are short, the question whose next vote is worth most gets the next rollout."""
    clear, close = (
        Ballot("clear", (1,), Letters(), Tally((0,) * 8)),
        Ballot("close", (2,), Letters(), Tally((0, 1) * 4)),
    )
    for ballot in (clear, close):
        ballot.classes.labels = ["A", "B"]
    engine = ScriptedEngine(slots=1)
    take(engine, [clear, close], FixedRule(votes=11))
    assert [request.prompt_id for request in engine.submitted[:3]] == ["close"] * 3


def test_a_refused_question_ends_without_a_verdict():
    """The error stays on its ballot; what it had in flight is cancelled, the others are untouched."""
    ballots, ended, heard = ballots_of(4), [], []
    engine = ScriptedEngine(2, refuses="q1")
    take(
        engine, ballots, RULE, on_ballot=lambda ballot: ended.append(ballot.prompt_id),
        on_verdict=lambda done, total: heard.append(done),
    )  # fmt: skip
    assert [ballot.error for ballot in ballots] == [None, "too long", None, None]
    assert sorted(ended) == ["q0", "q2", "q3"] and heard == [1, 2, 3, 4]
    assert engine.in_flight == {} and not ballots[1].rollouts and not ballots[1].waiting
    for ballot in ballots[:1] + ballots[2:]:
        assert ballot.tally == votes_by_hand(ballot.prompt_id, RULE)


def test_arrival_order_is_what_its_name_says():
    """Votes are counted as they come: the rollouts counted are those that finished first."""

    class Hares(ScriptedEngine):
        """The highest index in flight finishes first."""

        def poll(self):
            handle = max(self.in_flight)
            request = self.in_flight.pop(handle)
            tokens = tokens_of(request.prompt_id, request.index)
            return [Completion(handle, tokens, (-0.5,) * len(tokens), "stop", 3)]

    (ballot,) = ballots_of(1)
    rule = FixedRule(votes=5)
    take(Hares(slots=5), [ballot], rule, schedule="biased_arrival_order")
    assert [rollout.index for rollout in ballot.rollouts] == [4, 3, 2, 1, 0]
    engine = Hares(slots=5)
    take(engine, [ballot], FixedRule(votes=7), schedule="biased_arrival_order")
    assert [request.index for request in engine.submitted] == [5, 6]


def test_occupancy_is_that_of_the_engine():
    """One question that asks for one vote at a time uses one slot of four."""
    occupancy = take(ScriptedEngine(slots=4), ballots_of(1), FixedRule(votes=1))
    assert occupancy.share == pytest.approx(0.25)


def test_each_rollout_has_its_own_stream():
    """Requests carry the stream of their question, index, version, seed and purpose."""
    engine = ScriptedEngine()
    take(engine, ballots_of(2), FixedRule(votes=4))
    for request in engine.submitted:
        assert request.stream == stream_seed(5, 3, request.prompt_id, request.index, "test")
    assert len({request.stream for request in engine.submitted}) == 8


@dataclass(frozen=True)
class RashRule:
    """Stops at three votes, but asks for eight at a time."""

    floor = 3
    cap = 8

    def decide(self, tally):
        stop = tally.total >= 3
        return Decision(stop, "decided" if stop else None, tally.leader, 0.5, 0.0)

    def look_ahead(self, tally):
        return 8 - tally.total


@given(st.integers(0, 10**6))
def test_what_a_verdict_made_needless_is_cancelled_and_charged(seed):
    """A rollout launched beyond the verdict is cancelled; one in flight costs what the engine says,
    one that had already finished, also in the same poll, costs all of its tokens."""
    ballots, engine = ballots_of(3), ScriptedEngine(seed)
    take(engine, ballots, RashRule())
    assert engine.in_flight == {}
    handles = {10 + 3 * place: request for place, request in enumerate(engine.submitted)}
    for ballot in ballots:
        assert ballot.tally.total == 3
        assert ballot.cancelled_rollouts == 5
        dropped = {
            handles[handle].index
            for handle in engine.cancelled
            if handles[handle].prompt_id == ballot.prompt_id
        }
        finished = set(range(3, 8)) - dropped
        assert ballot.cancelled_tokens == 2 * len(dropped) + sum(
            len(tokens_of(ballot.prompt_id, index)) for index in finished
        )
    by_hand = [votes_by_hand(ballot.prompt_id, RashRule()) for ballot in ballots]
    assert [ballot.tally for ballot in ballots] == by_hand


def test_a_ballot_with_votes_goes_on_after_its_last_index():
    """Votes taken in two sittings are those of one sitting: no index is sampled twice."""
    whole, halves = ballots_of(3), ballots_of(3)
    take(ScriptedEngine(1), whole, FixedRule(votes=9))
    take(ScriptedEngine(2), halves, FixedRule(votes=4))
    engine = ScriptedEngine(3)
    take(engine, halves, FixedRule(votes=9))
    assert sorted({request.index for request in engine.submitted}) == [4, 5, 6, 7, 8]
    assert [outcome(ballot) for ballot in halves] == [outcome(ballot) for ballot in whole]


def test_a_ballot_filled_elsewhere_goes_on_after_its_last_index():
    """A tally that was read from a file says by itself where sampling goes on."""
    tally = votes_by_hand("q0", FixedRule(votes=4))
    classes = Letters()
    votes_by_hand("q0", FixedRule(votes=4), classes=classes)
    ballot, engine = Ballot("q0", (1,), classes, tally), ScriptedEngine()
    take(engine, [ballot], FixedRule(votes=9))
    assert ballot.tally == votes_by_hand("q0", FixedRule(votes=9))
    assert sorted(request.index for request in engine.submitted) == [4, 5, 6, 7, 8]


def test_a_decided_ballot_is_left_alone():
    """Nothing is sampled for a ballot whose test is over; it has its decision."""
    ballots = ballots_of(2)
    take(ScriptedEngine(), ballots, RULE)
    before, engine = [outcome(ballot) for ballot in ballots], ScriptedEngine()
    take(engine, ballots, RULE)
    assert engine.submitted == []
    assert [outcome(ballot) for ballot in ballots] == before


def test_an_engine_that_goes_idle_is_an_error():
    """Missing rollouts are never passed over in silence: the error says how many."""
    with pytest.raises(EngineError, match="4 rollouts missing"):
        take(ScriptedEngine(dies_after=4), ballots_of(1), FixedRule(votes=4))


def test_a_rule_that_looks_nowhere_is_an_error():
    """A rule that neither stops nor asks for votes cannot end in an undecided silence."""

    class StuckRule(RashRule):
        def look_ahead(self, tally):
            return 0

    with pytest.raises(ValueError, match="look_ahead"):
        take(ScriptedEngine(), ballots_of(1), StuckRule())


def test_a_completion_that_comes_twice_counts_once():
    """Handles that are not in flight are ignored."""
    once, twice = ballots_of(4), ballots_of(4)
    take(ScriptedEngine(8), once, RULE)
    take(ScriptedEngine(8, repeat=True), twice, RULE)
    assert [outcome(ballot) for ballot in twice] == [outcome(ballot) for ballot in once]


def test_only_a_rollout_that_came_to_an_end_votes():
    """What a rollout said before it was cut off at the limit is no answer."""
    ballots = ballots_of(2)
    take(ScriptedEngine(finish="length"), ballots, FixedRule(votes=5))
    assert {ballot.decision.kind for ballot in ballots} == {"empty"}
    assert {rollout.answer for ballot in ballots for rollout in ballot.rollouts} == {None}
    assert {ballot.label for ballot in ballots} == {None}


def test_hooks_hear_of_every_verdict_once():
    """`on_ballot` gets each ballot as it ends, `on_verdict` the count from 1 to all."""
    heard, ended = [], []
    ballots = ballots_of(5)
    take(
        ScriptedEngine(2),
        ballots,
        RULE,
        on_verdict=lambda done, total: heard.append((done, total)),
        on_ballot=lambda ballot: ended.append((ballot.prompt_id, ballot.decision.stop)),
    )
    assert heard == [(n, 5) for n in range(1, 6)]
    assert sorted(ended) == [(f"q{n}", True) for n in range(5)]


def test_a_label_needs_a_decision():
    """A ballot names its leader all along, and its label only once the test decided for it."""
    ballot = Ballot("q", (1,), Letters(), Tally((0, 0)))
    ballot.classes.labels = ["A"]
    assert (ballot.label, ballot.leading) == (None, "A")
    for kind, label in (("capped", None), ("tied", None), ("decided", "A")):
        ballot.decision = Decision(True, kind, 0, 0.9, 1.0)
        assert (ballot.label, ballot.leading) == (label, "A")
