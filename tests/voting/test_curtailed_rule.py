"""Curtailment without loss: never another label than the full vote's, and never a vote too many."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import SettingsError
from optpo.voting import UNPARSED, CurtailedRule, FixedRule, Tallies, Tally

ends = pytest.mark.parametrize("at_cap", ["leader", "first"])


def check_every_continuation(rule, full, tally, further):
    """The labels that the full vote may still have; on the way each decision is checked."""
    if tally.total == rule.cap:
        end = full.decide(tally)
        labels = {end.leader if end.kind == "decided" else None}
    else:
        labels = set()
        for vote, weight in further:
            labels |= check_every_continuation(rule, full, tally.add(vote, weight), further)
    decision = rule.decide(tally)
    settled = len(labels) == 1 and None not in labels
    assert (decision.kind == "decided") == settled, tally
    assert decision.confidence == settled
    assert not settled or {decision.leader} == labels
    return labels


@ends
@pytest.mark.parametrize("cap", [1, 2, 5, 6])
def test_it_stops_exactly_when_every_continuation_has_the_same_label(cap, at_cap):
    """Over all votes of up to three answers and unparsed: never too early, never too late."""
    rule, full = CurtailedRule(cap=cap, at_cap=at_cap), FixedRule(cap, at_cap)
    further = [(vote, None) for vote in range(UNPARSED, 3)]
    assert len(check_every_continuation(rule, full, Tally(), further)) > 1


@pytest.mark.parametrize("cap", [1, 2, 4])
def test_it_stops_exactly_when_every_weighted_continuation_has_the_same_label(cap):
    """The same with votes that weigh nothing, a half or 1."""
    rule, full = CurtailedRule(cap=cap, at_cap="leader"), FixedRule(cap)
    further = [(vote, weight) for vote in range(2) for weight in (0.25, 0.5, 1.0)]
    further.append((UNPARSED, 1.0))
    assert len(check_every_continuation(rule, full, Tally(), further)) > 1


def streams(kind, generator):
    """(questions, 40) votes, and weights or None, of streams that are easy to get wrong."""
    shape = (2_000, 40)
    weights = None
    if kind == "two equal answers":
        votes = generator.integers(0, 2, shape)
    elif kind == "diffuse":
        votes = generator.integers(0, 30, shape)
    elif kind == "mostly unparsed":
        votes = np.where(generator.random(shape) < 0.8, UNPARSED, generator.integers(0, 3, shape))
    elif kind == "turning late":
        votes = (np.arange(40) >= generator.integers(5, 35, (2_000, 1))).astype(int)
    else:
        votes = generator.integers(UNPARSED, 3, shape)
        weights = generator.random(shape)
        if kind == "weights that are nearly equal":
            weights = np.where(votes == 1, 0.1 + 0.2, 0.3)
    return Tallies(votes, weights)


@ends
@pytest.mark.parametrize(
    "kind",
    [
        "two equal answers",
        "diffuse",
        "mostly unparsed",
        "turning late",
        "weights",
        "weights that are nearly equal",
    ],
)
def test_the_label_is_always_that_of_the_full_vote(kind, at_cap):
    """On 2 000 streams of every kind the end is that of the full vote, decided or not."""
    tallies = streams(kind, np.random.default_rng(7))
    decisions = CurtailedRule(cap=40, at_cap=at_cap).decide_many(tallies)
    full = FixedRule(40, at_cap).decide_many(tallies)
    rows, end = np.arange(len(tallies)), decisions.first_stop
    np.testing.assert_array_equal(decisions.decided[rows, end], full.decided[:, -1])
    decided = full.decided[:, -1]
    labels, full_labels = tallies.leader[rows, end], tallies.leader[:, -1]
    np.testing.assert_array_equal(labels[decided], full_labels[decided])
    assert (decisions.confidence[rows, end] == decided).all()
    assert end.mean() < 40


@given(st.lists(st.tuples(st.integers(UNPARSED, 3), st.floats(0, 1)), max_size=12))
def test_weighted_votes_are_decided_alike_alone_and_among_many(votes):
    """The vectorised decision with weights is the single one, after every vote."""
    whole = Tally(tuple(vote for vote, _ in votes), tuple(weight for _, weight in votes))
    for rule in (CurtailedRule(cap=10), CurtailedRule(cap=9, at_cap="first")):
        decisions = rule.decide_many(Tallies.of([whole]))
        for n in range(whole.total + 1):
            assert decisions[0, n] == rule.decide(Tally(whole.votes[:n], whole.weights[:n]))


def test_equal_votes_are_settled_when_more_than_half_are_in():
    """Of 64, 33 are needed where a tie stays undecided, 32 where the first would win it."""
    for at_cap, needed in (("leader", 33), ("first", 32)):
        rule = CurtailedRule(cap=64, at_cap=at_cap)
        assert rule.look_ahead(Tally()) == needed
        assert not rule.decide(Tally((0,) * (needed - 1))).stop
        assert rule.decide(Tally((0,) * needed)).kind == "decided"


def test_who_was_first_decides_whether_a_tie_must_be_feared():
    """A leader may rest on a tie with a later answer, not on one with an earlier answer."""
    rule = CurtailedRule(cap=6, at_cap="first")
    assert rule.decide(Tally((0, 1, 0, 0))).kind == "decided"
    assert not rule.decide(Tally((1, 0, 0, 0))).stop


def test_every_problem_of_the_settings_is_reported_at_once():
    """One error names all settings that are out of range; abstaining is no end of a full vote."""
    with pytest.raises(SettingsError) as raised:
        CurtailedRule(floor=0, cap=0, at_cap="abstain")
    names = [problem.split(" = ")[0] for problem in raised.value.problems]
    assert sorted(names) == ["at_cap", "cap", "floor"]
