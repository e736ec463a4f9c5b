"""A budget for a question set: never overrun, spent where it helps, the same whatever the timing."""

from collections import Counter
from pkgutil import resolve_name

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_scheduler import (
    READER,
    RULE,
    Letters,
    RashRule,
    ScriptedEngine,
    answer_of,
    ballots_of,
    outcome,
    take,
    tokens_of,
    votes_by_hand,
)

from optpo.errors import EngineError, SettingsError
from optpo.sampling.ballot import Ballot
from optpo.sampling.budgeted import FEWEST_IN_FLIGHT, Budget, take_votes_within
from optpo.sampling.engine import stream_seed
from optpo.stopping_rules import RULES as NAMED
from optpo.voting import BetaRule, FixedRule, OptpoRule, Tally

LONGEST = 6
RULES = [RULE, OptpoRule(statistic="posterior", cap=20), BetaRule(cap=16), FixedRule(votes=7)]


def take_within(engine, ballots, rule, budget, **hooks):
    take_votes_within(
        engine, ballots, rule, READER, budget=budget, seed=5, version=3, purpose="test", **hooks
    )


def tokens(amount):
    return Budget(amount, "tokens", LONGEST)


def votes(amount):
    return Budget(amount, "votes")


budgets = st.builds(tokens, st.integers(LONGEST, 250)) | st.builds(votes, st.integers(1, 70))


def spent_on(ballots, budget):
    return sum(
        ballot.tokens + ballot.cancelled_tokens
        if budget.unit == "tokens"
        else ballot.tally.total + ballot.cancelled_rollouts
        for ballot in ballots
    )


@given(st.integers(0, 10**6), st.integers(1, 5), st.sampled_from(RULES), budgets)
def test_the_result_depends_on_nothing_but_the_budget(seed, questions, rule, budget):
    """Whichever rollouts finish first, and however many at once, every ballot ends the same; its
    votes are those of its indices from 0."""
    here, there = ballots_of(questions), ballots_of(questions)
    engine = ScriptedEngine(seed)
    take_within(engine, here, rule, budget)
    take_within(ScriptedEngine(seed + 1), there, rule, budget)
    assert [outcome(ballot) for ballot in here] == [outcome(ballot) for ballot in there]
    for ballot in here:
        assert [rollout.index for rollout in ballot.rollouts] == list(range(ballot.tally.total))
        for rollout in ballot.rollouts:
            assert rollout.tokens == tokens_of(ballot.prompt_id, rollout.index)
            expected = answer_of(ballot.prompt_id, rollout.index)
            assert rollout.answer == (None if expected == "0" else expected)
    for request in engine.submitted:
        assert request.stream == stream_seed(5, 3, request.prompt_id, request.index, "test")


@given(st.integers(0, 10**6), st.integers(1, 8), st.sampled_from([*RULES, RashRule()]), budgets)
def test_a_budget_is_never_overrun_and_ends_every_vote(seed, questions, rule, budget):
    """Spent is at most the budget. A ballot that still wanted votes is cut short, and then less is
    left than one rollout may cost; the others ended by their rule."""
    ballots = ballots_of(questions)
    take_within(ScriptedEngine(seed), ballots, rule, budget)
    left = budget.amount - spent_on(ballots, budget)
    assert left >= 0
    for ballot in ballots:
        own = rule.decide(ballot.tally)
        assert ballot.decision.stop
        assert ballot.decision.leader == ballot.tally.leader
        if own.stop:
            assert ballot.decision == own
        else:
            assert left < budget.reserve
            kind = "tied" if ballot.tally.tied else "capped" if ballot.tally.parsed else "empty"
            assert ballot.decision.kind == kind
            assert ballot.label is None


@pytest.mark.parametrize("name", [name for name in NAMED if name != "frontier"])
@pytest.mark.parametrize("budget", [votes(25), tokens(10**6)])
def test_every_shipped_rule_shares_a_budget(name, budget):
    """Each rule ends each vote within the budget; with plenty, at the votes where it stops alone."""
    rule = resolve_name(NAMED[name])(**{"votes" if name == "fixed" else "cap": 12})
    ballots = ballots_of(5)
    take_within(ScriptedEngine(6), ballots, rule, budget)
    assert spent_on(ballots, budget) <= budget.amount
    assert all(ballot.decision.stop for ballot in ballots)
    if budget.unit == "tokens":
        by_hand = [votes_by_hand(ballot.prompt_id, rule) for ballot in ballots]
        assert [ballot.tally for ballot in ballots] == by_hand


@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from(RULES))
def test_a_budget_for_everything_changes_no_vote(seed, questions, rule):
    """Where the budget is more than the rule needs, the votes are those of waves."""
    ballots, waves = ballots_of(questions), ballots_of(questions)
    take_within(ScriptedEngine(seed), ballots, rule, tokens(10**6))
    take(ScriptedEngine(seed), waves, rule)
    assert [outcome(ballot) for ballot in ballots] == [outcome(ballot) for ballot in waves]


def test_each_question_gets_one_vote_before_any_gets_two():
    """An untouched question comes first, whatever the others have; then those that are not agreed."""
    ballots = ballots_of(70)
    take_within(ScriptedEngine(), ballots, FixedRule(votes=40), votes(71))
    assert sorted(Counter(ballot.tally.total for ballot in ballots)) in ([1, 2], [0, 1, 2])
    assert sum(ballot.tally.total > 1 for ballot in ballots) <= 1


class Opinions(ScriptedEngine):
    """Question q0 is always answered A, q1 with A and B in turn."""

    def poll(self):
        return [
            type(done)(done.handle, (ord(answer),), (-0.5,), done.finish, done.version)
            for done, answer in (
                (done, "AB"[request.index % 2] if request.prompt_id == "q1" else "A")
                for done, request in self.answered()
            )
        ]

    def answered(self):
        requests = dict(self.in_flight)
        return [(done, requests[done.handle]) for done in super().poll()]


def test_the_votes_go_where_they_help():
    """A question that agrees with itself gets few votes, one that is torn gets the rest."""
    ballots = ballots_of(2)
    take_within(Opinions(), ballots, FixedRule(votes=500), votes(300))
    assert ballots[0].tally.total + ballots[1].tally.total == 300
    assert ballots[1].tally.total > 200


class Talkative(Opinions):
    """Both questions are torn; q1 takes ten times as many tokens for its answer."""

    def poll(self):
        finished = []
        for done, request in self.answered():
            more = [0] * (59 if request.prompt_id == "q1" else 5)
            said = (ord("AB"[request.index % 2]), *more)
            finished.append(
                type(done)(done.handle, said, (-0.5,) * len(said), "stop", done.version)
            )
        return finished


def test_a_token_goes_where_it_helps_most():
    """Of two torn questions the one with the shorter answers gets more votes from a budget of
    tokens, and as many from a budget of votes."""
    by_token, by_vote = ballots_of(2), ballots_of(2)
    take_within(Talkative(), by_token, FixedRule(votes=500), Budget(12000, "tokens", 60))
    take_within(Talkative(), by_vote, FixedRule(votes=500), votes(300))
    assert by_token[0].tally.total > 3 * by_token[1].tally.total
    assert abs(by_vote[0].tally.total - by_vote[1].tally.total) <= FEWEST_IN_FLIGHT


def test_the_engine_is_kept_busy_up_to_what_the_budget_covers():
    """A rollout for every fourth question is in flight, or 8, or as many as could be the longest."""

    def busiest(questions, budget):
        class Counting(ScriptedEngine):
            most = 0

            def submit(self, request):
                handle = super().submit(request)
                self.most = max(self.most, len(self.in_flight))
                return handle

        engine = Counting()
        take_within(engine, ballots_of(questions), FixedRule(votes=10), budget)
        return engine.most

    assert busiest(5, votes(10**6)) == FEWEST_IN_FLIGHT
    assert busiest(100, votes(10**6)) == 25
    assert busiest(100, tokens(9 * LONGEST)) == 9


def test_what_a_rule_did_not_need_is_charged():
    """A rule that asks for more than it needs pays for all of it, at the same price every time."""
    ballots, budget = ballots_of(3), tokens(1000)
    engine = ScriptedEngine(4)
    take_within(engine, ballots, RashRule(), budget)
    assert engine.in_flight == {}
    assert engine.cancelled == []
    assert [ballot.tally.total for ballot in ballots] == [3, 3, 3]
    for ballot in ballots:
        assert ballot.cancelled_rollouts == ballot.launched - 3 > 0
        assert ballot.cancelled_tokens == sum(
            len(tokens_of(ballot.prompt_id, index)) for index in range(3, ballot.launched)
        )


def test_a_ballot_with_votes_goes_on_after_its_last_index():
    """Votes that were there before cost nothing, and count for what the next one is worth."""
    ballot, other = Ballot("q0", (1,), Letters(), Tally((0, 0, 0))), ballots_of(2)[1]
    ballot.classes.labels = ["A"]
    engine = ScriptedEngine()
    take_within(engine, [ballot, other], FixedRule(votes=9), votes(2))
    assert [request.prompt_id for request in engine.submitted] == ["q1", "q1"]
    assert (ballot.decision.kind, ballot.tally.total) == ("capped", 3)


def test_a_decided_ballot_is_left_alone():
    """Nothing is sampled, and no hook called, for a ballot whose test was over before."""
    ballots, heard = ballots_of(2), []
    take(ScriptedEngine(), ballots, RULE)
    engine = ScriptedEngine()
    take_within(engine, ballots, RULE, votes(50), on_ballot=heard.append)
    assert engine.submitted == heard == []


def test_hooks_hear_of_every_verdict_once():
    """Each ballot is handed over as it ends, by its rule or by the budget, and counted from 1."""
    heard, ended = [], []
    ballots = ballots_of(5)
    take_within(
        ScriptedEngine(2),
        ballots,
        RULE,
        votes(25),
        on_verdict=lambda done, total: heard.append((done, total)),
        on_ballot=lambda ballot: ended.append((ballot.prompt_id, ballot.decision.stop)),
    )
    assert heard == [(n, 5) for n in range(1, 6)]
    assert sorted(ended) == [(f"q{n}", True) for n in range(5)]
    kinds = {ballot.decision.kind for ballot in ballots}
    assert "decided" in kinds
    assert kinds - {"decided"}


def test_an_engine_that_goes_idle_is_an_error():
    """Missing rollouts are never passed over in silence: the error says how many."""
    with pytest.raises(EngineError, match="4 rollouts missing"):
        take_within(ScriptedEngine(dies_after=4), ballots_of(1), FixedRule(votes=4), votes(9))


@pytest.mark.parametrize(
    ("settings", "said"),
    [((0, "votes"), "0 votes .* 1 or more"), ((9, "tokens", 10), "9 tokens .*10 or more")],
)
def test_a_budget_that_covers_no_rollout_is_refused(settings, said):
    """The message says the least that would do."""
    with pytest.raises(SettingsError, match=said):
        Budget(*settings)


def test_more_budget_means_more_right_labels():
    """Over many questions, tokens given by value find the mode more often than equal votes do."""
    ballots, equal = ballots_of(200), ballots_of(200)
    take(ScriptedEngine(), equal, FixedRule(votes=4))
    cost = sum(ballot.tokens for ballot in equal)
    take_within(ScriptedEngine(), ballots, FixedRule(votes=64), tokens(cost))
    assert sum(ballot.tokens for ballot in ballots) <= cost
    share = [np.mean([ballot.leading == "A" for ballot in each]) for each in (ballots, equal)]
    assert share[0] > share[1] + 0.02
