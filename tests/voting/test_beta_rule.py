"""The posterior that the leader is the likelier of two, against quadrature and a binomial test."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binomtest

from optpo.errors import SettingsError
from optpo.voting import BetaRule, Tallies, Tally
from optpo.voting.beta import leader_is_likelier

VOTES = st.integers(0, 60)
PRIOR = st.floats(0.5, 20)


def tally(first, second):
    return Tally((0,) * first + (1,) * second)


@given(VOTES, VOTES, PRIOR, PRIOR)
def test_it_equals_quadrature(first, second, prior_leader, prior_rival):
    """The closed form is the integral of the Beta density above one half."""
    a, b = first + prior_leader, second + prior_rival
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)

    def density(x):
        return math.exp(scale + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x))

    expected, _ = quad(density, 0.5, 1, points=[min(0.999, max(0.501, a / (a + b)))], limit=200)
    found, log_odds = leader_is_likelier(first, second, prior_leader, prior_rival)
    assert found == pytest.approx(expected, abs=1e-7)
    if 1e-12 < found < 1 - 1e-12:
        assert log_odds == pytest.approx(math.log(found / (1 - found)), rel=1e-3, abs=1e-9)


@given(VOTES.filter(bool), VOTES)
def test_without_a_prior_vote_for_the_leader_it_is_a_p_value(first, second):
    """Pseudo-votes of 0 and 1 give one minus the one-sided p-value of a fair coin."""
    found, _ = leader_is_likelier(first, second, 0.0, 1.0)
    p_value = binomtest(first, first + second, 0.5, alternative="greater").pvalue
    assert found == pytest.approx(1 - p_value, abs=1e-12)


@pytest.mark.parametrize(("confidence", "votes"), [(0.9, 3), (0.95, 4), (0.99, 6)])
def test_the_votes_it_takes_when_all_agree(confidence, votes):
    """After n votes for one answer the posterior is 1 - 2^-(n + 1)."""
    rule = BetaRule(confidence=confidence)
    assert rule.look_ahead(Tally()) == votes
    assert rule.decide(tally(votes, 0)).kind == "decided"
    assert not rule.decide(tally(votes - 1, 0)).stop


def test_one_at_a_time_and_tables_say_the_same():
    """Few and many questions, whole and carried votes, go different ways to the same number."""
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 3, (400, 30))
    rule = BetaRule(prior_leader=2.0, prior_rival=3.0)
    many = rule.decide_many(Tallies(votes)).confidence
    carried = rule.decide_many(Tallies(votes, carried=np.zeros((400, 1)))).confidence
    np.testing.assert_allclose(carried, many, rtol=1e-12)
    for row in range(0, 400, 40):
        single = rule.decide(Tally(tuple(map(int, votes[row]))))
        assert single.confidence == pytest.approx(many[row, -1], rel=1e-12)


def test_every_problem_is_reported_at_once():
    """Settings out of range are all named."""
    with pytest.raises(SettingsError) as raised:
        BetaRule(confidence=0.5, prior_leader=-1, prior_rival=0, floor=0)
    names = [problem.split(" = ")[0] for problem in raised.value.problems]
    assert names == ["confidence", "prior_leader", "prior_rival", "floor"]
