"""Predictive curtailment: the chance it states, and how often labels differ under its model."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom, binomtest

from optpo.errors import SettingsError
from optpo.voting import UNPARSED, CurtailedRule, PredictiveRule, Tallies, Tally


def chance(rule, *votes):
    return 1 - rule.decide(Tally(votes)).confidence


def test_the_chance_is_the_one_worked_out_by_hand():
    """At cap 3 and t = 1 one vote is overtaken with 1/2 * 2/3: a new answer, then itself again."""
    rule = PredictiveRule(concentration=1, cap=3)
    assert chance(rule, 0) == pytest.approx(1 / 3)
    assert chance(rule, 0, 0) == 0
    assert chance(rule, 0, 1) == 1
    # One vote is left: a new answer, which comes with probability 1/3, draws level.
    assert chance(rule, 0, UNPARSED) == pytest.approx(1 / 3)


def exact_chance(tally, cap, concentration, unparsed_share):
    """P(label at the cap is not the leader) by following every continuation of the urn."""

    @cache
    def differs(leader, rivals, unparsed):
        cast = leader + sum(rivals) + unparsed
        if cast == cap:
            return float(max(rivals, default=0) >= leader)
        result = leader * differs(leader + 1, rivals, unparsed)
        unparsed_weight = unparsed + concentration * unparsed_share
        result += unparsed_weight * differs(leader, rivals, unparsed + 1)
        new = tuple(sorted((*rivals, 1)))
        result += concentration * (1 - unparsed_share) * differs(leader, new, unparsed)
        for place, votes in enumerate(rivals):
            more = tuple(sorted((*rivals[:place], votes + 1, *rivals[place + 1 :])))
            result += votes * differs(leader, more, unparsed)
        return result / (cast + concentration)

    others = sorted(votes for number, votes in tally.counts.items() if number != tally.leader)
    return differs(tally.leader_votes, tuple(others), tally.total - tally.parsed)


@given(
    st.lists(st.integers(UNPARSED, 3), min_size=1, max_size=9).map(tuple),
    st.sampled_from([0.1, 0.5, 2.0]),
    st.sampled_from([0.0, 0.4]),
)
def test_the_chance_is_never_below_that_of_all_continuations(votes, concentration, unparsed_share):
    """Whatever share of the new is unparsed, the stated chance bounds the exact one."""
    tally = Tally(votes)
    if tally.leader is None:
        return
    rule = PredictiveRule(concentration=concentration, cap=10)
    exact = exact_chance(tally, 10, concentration, unparsed_share)
    assert 1 - rule.decide(tally).confidence >= exact - 1e-12


def test_the_chance_is_exact_where_at_most_one_rival_can_draw_level():
    """Two answers and little that is new: what is added up for others is as good as nothing."""
    rule = PredictiveRule(concentration=0.01, cap=12)
    for votes in [(0, 0, 0, 1, 1), (0, 0, 1, 0, 1, UNPARSED, 1, 0), (0, 0, 0, 1, 1, 0, 1, 1, 0)]:
        exact = exact_chance(Tally(votes), 12, 0.01, 0.0)
        assert chance(rule, *votes) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("concentration", [0.3, 1.0, 4.0])
@pytest.mark.parametrize(
    "votes", [(3,), (6, 2), (6, 2, 2), (10, 7, 3, 1), (12, 1, 1, 1, 1), (20, 19), (5, 5)]
)
def test_the_chance_is_a_sum_of_beta_binomials(votes, concentration):
    """Each rival's part, by the number of further votes for the two: SciPy's Beta-binomial."""
    cap = 48
    cast = sum(votes) + 2  # two of them unparsed
    leader = votes[0]

    def draws_level(rival, weight):
        for_both = np.arange(cap - cast + 1)
        both = leader + weight
        weights = betabinom.pmf(for_both, cap - cast, both, cast + concentration - both)
        needed = np.ceil((leader - rival + for_both) / 2)
        return weights @ betabinom.sf(needed - 1, for_both, weight, leader)

    expected = sum(draws_level(rival, rival) for rival in votes[1:]) + draws_level(0, concentration)
    stream = [number for number, count in enumerate(votes) for _ in range(count)]
    rule = PredictiveRule(concentration=concentration, cap=cap)
    stated = chance(rule, *stream, UNPARSED, UNPARSED)
    assert stated == pytest.approx(min(1, expected), rel=1e-9)


@given(st.lists(st.integers(UNPARSED, 3), max_size=14).map(tuple), st.sampled_from([0.05, 1, 50]))
def test_no_chance_is_left_just_where_the_label_is_settled(votes, concentration):
    """Its confidence is 1 exactly where lossless curtailment stops."""
    settled = CurtailedRule(cap=14, at_cap="leader").decide(Tally(votes)).kind == "decided"
    rule = PredictiveRule(concentration=concentration, cap=14)
    assert (rule.decide(Tally(votes)).confidence == 1) == settled


@given(st.lists(st.integers(UNPARSED, 3), max_size=20).map(tuple))
def test_a_smaller_error_never_stops_sooner(votes):
    """Stopping at a level implies stopping at every larger one."""
    errors = (0.001, 0.01, 0.05, 0.2, 0.45)
    stops = [PredictiveRule(error, cap=24).decide(Tally(votes)).stop for error in errors]
    assert stops == sorted(stops)


def test_the_more_is_new_the_more_equal_votes_are_needed():
    """At cap 64 and error .05 one to six equal votes are enough, by how much is new."""
    needed = [
        PredictiveRule(concentration=concentration).look_ahead(Tally())
        for concentration in (0.05, 0.5, 1, 2)
    ]
    assert needed == [1, 3, 5, 6]


def urn(questions, cap, concentration, unparsed_share, seed):
    """(questions, cap) votes drawn from the rule's own model."""
    generator = np.random.default_rng(seed)
    votes = np.zeros((questions, cap), dtype=int)
    named = np.zeros(questions, dtype=int)
    for n in range(cap):
        new = generator.random(questions) < concentration / (n + concentration)
        repeated = votes[np.arange(questions), generator.integers(0, max(1, n), questions)]
        unparsed = generator.random(questions) < unparsed_share
        votes[:, n] = np.where(new, np.where(unparsed, UNPARSED, named), repeated)
        named += new & ~unparsed
    return votes


@pytest.mark.parametrize(
    ("concentration", "unparsed_share", "cap"), [(0.5, 0.0, 64), (0.5, 0.3, 40), (3.0, 0.1, 64)]
)
def test_under_its_own_model_no_more_labels_differ_than_claimed(concentration, unparsed_share, cap):
    """Of 20 000 streams, read after every vote, at most the claimed share of labels differs from
    the full vote's, within the exact interval; and the claim is no more than twice too careful.
    """
    tallies = Tallies(urn(20_000, cap, concentration, unparsed_share, seed=11))
    rows = np.arange(len(tallies))
    for error in (0.2, 0.05, 0.01):
        decisions = PredictiveRule(error, concentration, cap=cap).decide_many(tallies)
        end = decisions.first_stop
        decided = decisions.decided[rows, end]
        same = (tallies.leader[rows, end] == tallies.leader[:, -1]) & ~tallies.tied[:, -1]
        differ, labels = int((decided & ~same).sum()), int(decided.sum())
        claimed = (1 - decisions.confidence[rows, end])[decided].mean()
        assert error / 4 <= claimed <= error
        interval = binomtest(differ, labels).proportion_ci(0.999, method="exact")
        assert interval.low <= claimed
        assert interval.high >= claimed / 2


def test_a_long_vote_is_refused_and_every_problem_reported_at_once():
    """Tables for thousands of votes do not fit; one error names all settings out of range."""
    with pytest.raises(SettingsError, match="cap = 513: must be at most 512"):
        PredictiveRule(cap=513)
    with pytest.raises(SettingsError) as raised:
        PredictiveRule(error=0.5, concentration=0, floor=0, cap=0, at_cap="abstain")
    names = [problem.split(" = ")[0] for problem in raised.value.problems]
    assert sorted(names) == ["at_cap", "cap", "concentration", "error", "floor"]
