"""The contract of every stopping rule. A new rule joins by standing in RULES."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import DataError, SettingsError
from optpo.voting import (
    UNPARSED,
    BetaRule,
    CurtailedRule,
    DirichletRule,
    EprocessRule,
    FixedRule,
    FrontierRule,
    LeadRule,
    OptpoRule,
    PprRule,
    PredictiveRule,
    StoppingRule,
    Tallies,
    Tally,
    WindowRule,
    rule_from_json,
    rule_to_json,
)

# Fitted on 400 simulated questions with a cap of 12 and a vote cost of 0.004.
POLICY = str(Path(__file__).with_name("frontier_policy.json"))

RULES: list[StoppingRule] = [
    FixedRule(votes=1),
    FixedRule(votes=7),
    FixedRule(votes=6, at_cap="first"),
    BetaRule(cap=12),
    BetaRule(confidence=0.9, prior_leader=0.0, prior_rival=1.0, cap=11),
    BetaRule(prior_leader=2.0, prior_rival=3.5, cap=14, at_cap="first"),
    BetaRule(confidence=0.8, floor=3, cap=9, at_cap="leader"),
    OptpoRule(floor=1, cap=12, at_cap="first"),
    OptpoRule(floor=5, cap=9),
    OptpoRule(floor=4, cap=4),
    OptpoRule(p0=0.3, candidates=10, error=0.01, floor=1, cap=12),
    OptpoRule(p0=0.6, candidates=2, error=0.2, floor=2, cap=10),
    OptpoRule(statistic="posterior", floor=1, cap=12),
    OptpoRule(p0=0.6, candidates=2, error=0.1, statistic="posterior", floor=3, cap=9),
    OptpoRule(p0=0.4, candidates=30, error=0.02, statistic="posterior", floor=1, cap=8),
    OptpoRule(p0=0.6, candidates=None, floor=1, cap=12),
    OptpoRule(p0=0.51, candidates=None, error=0.2, statistic="posterior", floor=2, cap=11),
    OptpoRule(p0_from="votes", floor=1, cap=12),
    OptpoRule(
        p0=0.3, candidates=2, p0_from="votes", p0_strength=9, floor=3, cap=12, at_cap="first"
    ),
    OptpoRule(candidates=None, p0_from="votes", statistic="posterior", floor=1, cap=10),
    OptpoRule(p0_from="prior", floor=1, cap=12),
    OptpoRule(p0=0.8, candidates=2, p0_from="prior", p0_strength=0.5, floor=2, cap=9),
    OptpoRule(p0=0.2, p0_from="prior", error=0.2, statistic="posterior", floor=1, cap=12),
    OptpoRule(candidates=None, p0_from="prior", floor=4, cap=11),
    OptpoRule(candidates=None, p0_from="prior", error=0.1, statistic="posterior", floor=1, cap=9),
    DirichletRule(cap=12),
    DirichletRule(confidence=0.75, prior=0.3, unseen=0.3, floor=3, cap=9, at_cap="leader"),
    DirichletRule(confidence=0.9, prior=2.5, unseen=0, floor=2, cap=10, at_cap="first"),
    PprRule(error=0.3, cap=12),
    PprRule(error=0.45, floor=3, cap=9, at_cap="leader"),
    PprRule(error=0.2, candidates=2, floor=2, cap=11, at_cap="first"),
    PprRule(error=0.3, candidates=6, cap=13),
    EprocessRule(error=0.2, cap=8),
    EprocessRule(error=0.4, floor=4, cap=7, at_cap="leader"),
    EprocessRule(error=0.3, cap=6, at_cap="first"),
    LeadRule(cap=12),
    LeadRule(by=1, floor=4, cap=9, at_cap="leader"),
    LeadRule(by=5, floor=2, cap=11, at_cap="first"),
    WindowRule(cap=12),
    WindowRule(window=1, floor=3, cap=8, at_cap="leader"),
    WindowRule(window=2, floor=5, cap=12, at_cap="first"),
    WindowRule(window=3, cap=11),
    CurtailedRule(cap=12, at_cap="leader"),
    CurtailedRule(floor=5, cap=9, at_cap="first"),
    PredictiveRule(cap=12),
    PredictiveRule(error=0.2, concentration=2, floor=3, cap=9, at_cap="first"),
    PredictiveRule(error=0.01, concentration=0.1, cap=11),
    PredictiveRule(error=0.4, concentration=0.5, floor=2, cap=8),
    FrontierRule(POLICY, cap=12),
    FrontierRule(POLICY, least_confidence=0.9, floor=3, cap=9, at_cap="leader"),
    FrontierRule(POLICY, least_confidence=0.0, floor=2, cap=7, at_cap="first"),
]
rules = pytest.mark.parametrize("rule", RULES, ids=repr)
VOTES = st.lists(st.integers(UNPARSED, 4), max_size=14).map(tuple)


@rules
@given(st.lists(VOTES, max_size=5))
def test_deciding_many_at_once_equals_deciding_each(rule, many):
    """The vectorised decision after each vote is the single one, in every field."""
    decisions = rule.decide_many(Tallies.of([Tally(votes) for votes in many]))
    assert len(decisions) == len(many)
    for row, votes in enumerate(many):
        for n in range(decisions.stop.shape[1]):
            expected, found = rule.decide(Tally(votes[:n])), decisions[row, n]
            assert_same(found, expected)


def assert_same(found, expected):
    assert found.confidence == pytest.approx(expected.confidence, rel=1e-9)
    assert found.log_evidence == pytest.approx(expected.log_evidence, rel=1e-9, abs=1e-12)
    rounded = {"confidence": 0.0, "log_evidence": 0.0}
    assert replace(found, **rounded) == replace(expected, **rounded)


@rules
@given(VOTES, st.permutations(range(5)))
def test_renaming_the_answers_changes_nothing(rule, votes, names):
    """A decision names the leader by its new number and is the same in all else."""
    renamed = tuple(vote if vote == UNPARSED else names[vote] for vote in votes)
    before, after = rule.decide(Tally(votes)), rule.decide(Tally(renamed))
    expected = None if before.leader is None else names[before.leader]
    assert after == replace(before, leader=expected)
    assert rule.look_ahead(Tally(votes)) == rule.look_ahead(Tally(renamed))


@rules
@given(VOTES)
def test_a_vote_for_the_leader_never_lowers_its_evidence(rule, votes):
    """Evidence and confidence rise, or stay, with a vote for the leader."""
    before = rule.decide(Tally(votes))
    after = rule.decide(Tally(votes).add(before.leader or 0))
    assert after.log_evidence >= before.log_evidence
    assert after.confidence >= before.confidence


@rules
@given(VOTES)
def test_confidence_is_a_probability_and_kinds_mean_what_they_say(rule, votes):
    """Confidence lies in [0, 1]; tied, empty and decided describe the tally they end."""
    tally = Tally(votes)
    decision = rule.decide(tally)
    assert 0 <= decision.confidence <= 1
    assert decision.stop == (decision.kind is not None)
    assert decision.leader == tally.leader
    assert decision.stop or tally.total < rule.cap
    assert not decision.stop or tally.total >= rule.floor
    if decision.kind == "empty":
        assert tally.parsed == 0
    if decision.kind == "tied":
        assert tally.tied
    if decision.kind == "capped" or (decision.kind == "decided" and rule.at_cap != "first"):
        assert tally.leader_votes > tally.runner_up_votes


@rules
@given(VOTES, st.integers(1, 20))
def test_an_unparsed_vote_never_wins(rule, votes, more):
    """Unparsed votes never change the leader, however many there are. They change no evidence
    either, unless it is of what the votes still to come will do: they are some of those.
    """
    parsed = Tally(tuple(vote for vote in votes if vote != UNPARSED))
    flooded = Tally((*votes, *[UNPARSED] * more))
    assert rule.decide(flooded).leader == rule.decide(parsed).leader
    if rule.claims != "full vote":
        assert rule.decide(flooded).log_evidence == rule.decide(parsed).log_evidence


@rules
def test_votes_without_any_answer_end_empty(rule):
    """However many unparsed votes there are, there is no leader; at the cap the vote is empty."""
    for unparsed in range(rule.cap + 1):
        decision = rule.decide(Tally((UNPARSED,) * unparsed))
        assert (decision.leader, decision.confidence) == (None, 0)
        assert decision.kind == ("empty" if unparsed == rule.cap else None)


@rules
def test_a_rule_survives_json(rule):
    """A rule written to JSON comes back equal, whatever its settings."""
    assert rule_from_json(json.loads(json.dumps(rule_to_json(rule)))) == rule


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"rule": "bata"},
        {"rule": ["beta"]},
        {"rule": "beta", "confidance": 0.9},
        {"rule": "beta", "confidence": "x"},
        {"rule": "frontier"},
    ],
)
def test_json_that_is_no_rule_is_refused(value):
    """An unknown rule or setting, a wrong type and a missing setting are named."""
    with pytest.raises(DataError, match=r"must be one of|has no confidance|cannot have"):
        rule_from_json(value)


@rules
@pytest.mark.parametrize(
    ("kind", "tally"),
    [("weights", Tally((0, 0), (0.5, 1.0))), ("carried", Tally((0, 0), carried=(1.5,)))],
)
def test_what_a_rule_cannot_use_it_refuses_with_the_reason(rule, kind, tally):
    """Weights and carried votes are either used, alone and among many, or refused."""
    if kind in rule.refuses:
        many = Tallies.of([tally] * 200)
        for refused in (lambda: rule.decide(tally), lambda: rule.decide_many(many)):
            with pytest.raises(SettingsError, match=rf"takes no {kind}: .{{20}}"):
                refused()
    else:
        assert_same(rule.decide_many(Tallies.of([tally]))[0, -1], rule.decide(tally))


def fewest_unanimous_votes(rule, tally):
    for more in range(1, rule.cap + 1):
        for vote in range(UNPARSED, 6):
            if rule.decide(Tally((*tally.votes, *[vote] * more))).stop:
                return more
    raise AssertionError("no number of votes ends the test")


@rules
def test_look_ahead_is_exact_on_every_small_tally(rule):
    """No shorter run of equal votes ends the test, whatever the class, and one that long does."""
    for length in range(5):
        for votes in product(range(UNPARSED, 3), repeat=length):
            tally = Tally(votes)
            if rule.decide(tally).stop:
                assert rule.look_ahead(tally) == 0
            else:
                assert rule.look_ahead(tally) == fewest_unanimous_votes(rule, tally)


@rules
@given(VOTES)
def test_look_ahead_is_exact_on_longer_tallies(rule, votes):
    """The same by brute force on tallies drawn at random."""
    tally = Tally(votes)
    expected = 0 if rule.decide(tally).stop else fewest_unanimous_votes(rule, tally)
    assert rule.look_ahead(tally) == expected


@pytest.mark.parametrize(
    "rule",
    [FixedRule(5), OptpoRule(floor=5, cap=5), OptpoRule(floor=5, cap=5, statistic="posterior")],
)
def test_the_cap_says_how_the_vote_stands(rule):
    """At the cap a vote is decided, capped (for a test that is unsure), tied or empty."""
    assert rule.decide(Tally((0,) * 5)).kind == "decided"
    unsure = "decided" if isinstance(rule, FixedRule) else "capped"
    assert rule.decide(Tally((0, 0, 0, 1, 1))).kind == unsure
    assert rule.decide(Tally((0, 0, 1, 1, UNPARSED))).kind == "tied"
    assert rule.decide(Tally((UNPARSED,) * 5)).kind == "empty"
    assert not rule.decide(Tally((0,) * 4)).stop
