"""OptPO's test where p0 is estimated or integrated over, and where the candidates are unknown."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta

from optpo.errors import SettingsError
from optpo.voting import UNPARSED, BetaRule, OptpoRule, Tallies, Tally
from optpo.voting.optpo_likelihood import integrated_log_likelihood

VOTES = st.lists(st.integers(UNPARSED, 5), max_size=20).map(tuple)
STATISTICS = ("runner-up", "posterior")
FORMS = [
    OptpoRule(0.6, candidates, statistic=statistic, p0_from=p0_from)
    for candidates, p0_from, statistic in product(
        (4, None), ("setting", "votes", "prior"), STATISTICS
    )
]
forms = pytest.mark.parametrize("rule", FORMS, ids=repr)


def test_an_estimated_p0_is_the_share_with_pseudo_votes():
    """3 votes of 4 and 4 pseudo-votes at .5: p0 = 5/8, rho = 5/3 * 3 = 5, for a lead of 2."""
    tally = Tally((0, 0, 0, 1, UNPARSED))
    rule = OptpoRule(0.5, 4, p0_from="votes", p0_strength=4)
    assert rule.decide(tally).log_evidence == pytest.approx(2 * math.log(5))
    posterior = replace(rule, statistic="posterior").decide(tally).confidence
    assert posterior == pytest.approx(5**3 / (5**3 + 5 + 2))


def test_an_estimate_below_chance_is_no_evidence():
    """With a share of 1/3 among two candidates votes speak for none of them."""
    tally = Tally((0, 0, 1, 2, 3, 4))
    for statistic, confidence in (("runner-up", 1 / 2), ("posterior", 1 / 5)):
        rule = OptpoRule(0.3, 2, p0_from="votes", p0_strength=2, statistic=statistic)
        assert rule.decide(tally).confidence == pytest.approx(confidence)


@pytest.mark.parametrize(
    ("votes", "candidates", "odds"),
    [
        ((0, 0), 2, 7),  # integrals of p^2 and (1 - p)^2 from 1/2 to 1: 7/24 and 1/24
        ((0, 1), 2, 1),
        ((0,), 4, 5),  # of p and (1 - p)/3 from 1/4 to 1: 15/32 and 3/32
    ],
)
def test_an_integrated_p0_worked_by_hand(votes, candidates, odds):
    """With p0 uniform from 1/m to 1 the likelihoods are integrals of polynomials."""
    rule = OptpoRule(0.5, candidates, p0_from="prior", p0_strength=2)
    assert rule.decide(Tally(votes)).log_evidence == pytest.approx(math.log(odds))


@given(st.lists(st.integers(0, 1), min_size=1, max_size=60).map(tuple))
def test_two_candidates_with_a_uniform_p0_are_the_beta_rule(votes):
    """p0 uniform from 1/2 to 1 for either of two answers is Adaptive-Consistency's posterior."""
    expected = BetaRule().decide(Tally(votes))
    for statistic in STATISTICS:
        rule = OptpoRule(0.5, 2, p0_from="prior", p0_strength=2, statistic=statistic)
        found = rule.decide(Tally(votes))
        assert found.confidence == pytest.approx(expected.confidence, abs=1e-12)
        assert found.log_evidence == pytest.approx(expected.log_evidence, abs=1e-9)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=30).map(tuple),
    st.sampled_from([(0.5, 4), (0.2, 4), (0.7, 2), (0.3, 10)]),
    st.sampled_from([0.7, 4, 30]),
)
def test_the_integrated_posterior_is_the_literal_integral(votes, model, strength):
    """Numerical integration over p0, for every hypothesis, of the likelihood as the paper has it."""
    p0, m = model
    prior = beta(strength * p0, strength * (1 - p0))
    counts = sorted(Tally(votes).counts.values(), reverse=True)
    counts += [0] * (m - len(counts))

    def likelihood(own):
        def integrand(q):
            p = prior.ppf(q)
            return math.exp(own * math.log(p) + (len(votes) - own) * math.log((1 - p) / (m - 1)))

        return quad(integrand, prior.cdf(1 / m), 1 - 1e-12, epsabs=0, epsrel=1e-8, limit=200)[0]

    likelihoods = {own: likelihood(own) for own in set(counts)}
    rule = OptpoRule(p0, m, p0_from="prior", p0_strength=strength, statistic="posterior")
    expected = likelihoods[counts[0]] / sum(likelihoods[own] for own in counts)
    assert rule.decide(Tally(votes)).confidence == pytest.approx(expected, rel=1e-5)


@given(
    VOTES,
    st.sampled_from([(0.5, 4), (0.7, 2), (0.3, 10), (0.6, None)]),
    st.sampled_from(["votes", "prior"]),
    st.sampled_from(STATISTICS),
)
def test_much_trust_in_p0_makes_it_fixed(votes, model, p0_from, statistic):
    """With 10^8 pseudo-votes behind p0, estimating it or integrating over it changes nothing."""
    fixed = OptpoRule(*model, statistic=statistic)
    found = replace(fixed, p0_from=p0_from, p0_strength=1e8).decide(Tally(votes))
    expected = fixed.decide(Tally(votes)).log_evidence
    assert found.log_evidence == pytest.approx(expected, abs=1e-4)


@given(
    VOTES.filter(lambda votes: max(votes, default=UNPARSED) >= 0),
    st.sampled_from(["setting", "votes", "prior"]),
    st.sampled_from(STATISTICS),
)
def test_unknown_candidates_are_one_more_than_seen(votes, p0_from, statistic):
    """With K classes seen the decision is the one for K + 1 candidates."""
    unknown = OptpoRule(0.6, None, p0_from=p0_from, statistic=statistic, floor=1)
    known = replace(unknown, candidates=Tally(votes).seen + 1)
    assert unknown.decide(Tally(votes)) == known.decide(Tally(votes))


def test_a_new_answer_can_end_a_test_with_unknown_candidates():
    """Five votes for one of two answers: rho = 1.5 and odds of 7.6. A vote for another makes it
    four of five among three answers, rho = 3 and odds of 81: that ends it, one for the leader not.
    """
    rule = OptpoRule(0.6, None, floor=1)
    tally = Tally((0,) * 5)
    assert not rule.decide(tally.add(0)).stop
    assert rule.decide(tally.add(1)).log_evidence == pytest.approx(4 * math.log(3))
    assert rule.look_ahead(tally) == 1


@forms
def test_thousands_of_prefixes_equal_single_decisions(rule):
    """What is looked up in tables for many questions is what one question gets."""
    generator = np.random.default_rng(7)
    tops = generator.integers(1, 9, size=(1500, 1))
    votes = generator.integers(UNPARSED, tops, size=(1500, 40))
    decisions = rule.decide_many(Tallies(votes))
    places = zip(generator.integers(0, 1500, 150), generator.integers(0, 41, 150), strict=True)
    for row, n in places:
        single = rule.decide(Tally(tuple(votes[row, :n].tolist())))
        assert decisions[row, n].log_evidence == pytest.approx(single.log_evidence, abs=1e-9)
        assert decisions.stop[row, n] == single.stop


CARRIED = st.lists(st.sampled_from([0, 0.25, 1, 2.5, 3]), min_size=1, max_size=4).map(tuple)


@forms
@given(votes=VOTES, carried=CARRIED)
def test_carried_votes_alone_and_among_many_agree(rule, votes, carried):
    """With carried votes each prefix has the evidence it has alone."""
    tally = Tally(votes, carried=carried)
    decisions = rule.decide_many(Tallies.of([tally, Tally()]))
    for n in range(len(votes) + 1):
        single = rule.decide(Tally(votes[:n], carried=carried))
        assert decisions[0, n].log_evidence == pytest.approx(single.log_evidence, abs=1e-9)


@forms
@given(votes=VOTES, carried=st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_a_carried_whole_vote_counts_as_a_vote(rule, votes, carried):
    """Whole carried votes are worth as many votes of this visit."""
    with_votes = Tally((*votes, *(n for n, more in enumerate(carried) for _ in range(more))))
    found = rule.decide(Tally(votes, carried=tuple(map(float, carried))))
    assert found.log_evidence == pytest.approx(rule.decide(with_votes).log_evidence, abs=1e-9)


@forms
@given(votes=VOTES.filter(lambda votes: len(votes) < 12), carried=CARRIED)
def test_look_ahead_is_exact_with_carried_votes(rule, votes, carried):
    """Brute force over every class, as the battery does it for votes of one visit."""
    rule = replace(rule, floor=2, cap=12)
    runs = [
        more
        for more in range(13 - len(votes))
        for vote in range(UNPARSED, 7)
        if rule.decide(Tally((*votes, *[vote] * more), carried=carried)).stop
    ]
    assert rule.look_ahead(Tally(votes, carried=carried)) == min(runs)


@pytest.mark.parametrize("m", [2, 3, 10])
@pytest.mark.parametrize("share", [0.02, 0.2, 1.0])
def test_the_integral_stays_finite_and_rises_with_the_votes_for_the_leader(m, share):
    """Up to a million votes, of which a leader has a little more than 1/m and a rival less: the
    evidence is finite and a vote for the leader raises it, also where the integral underflows.
    """
    total = np.unique(np.logspace(1, 6, 3000).astype(int))
    first = np.ceil((1 / m + share * (1 - 1 / m)) * total).astype(int)
    second = ((total - first) / 2).astype(int)

    def evidence(more):
        def likelihood(votes):
            return integrated_log_likelihood(votes, total + more, m, p0=0.5, strength=4)

        return likelihood(first + more) - likelihood(second)

    assert np.isfinite(evidence(0)).all()
    assert (evidence(1) > evidence(0)).all()


@pytest.mark.parametrize(("m", "total"), [(2, 1500), (2, 20_000), (4, 9_000)])
def test_an_integral_too_small_for_a_float_is_a_little_too_large(m, total):
    """Without any vote the integral is (1 - 1/m)^n times one that can be done numerically: what is
    found lies above it, on the careful side, by less than a thousandth.
    """

    def scaled(p):
        return math.exp((total + 1) * math.log((1 - p) / (1 - 1 / m)) + math.log(p))

    exact = quad(scaled, 1 / m, 1 / m + 60 / total, epsabs=0, epsrel=1e-10)[0]
    log_exact = math.log(exact) + (total + 1) * math.log1p(-1 / m)
    found = integrated_log_likelihood(0, total, m, p0=0.5, strength=4)
    assert log_exact < float(found) < log_exact + 1e-3


@pytest.mark.parametrize("error", [0.05, 0.2])
def test_with_p0_drawn_from_its_prior_the_posterior_form_keeps_its_error(error):
    """20 000 votes at the model's own distribution, with a look after every rollout: of the labels
    at most `error` are wrong, and not much fewer.
    """
    runs = 20_000
    rule = OptpoRule(0.5, 4, error, 1, 64, "posterior", p0_from="prior", p0_strength=4)
    generator = np.random.default_rng(8)
    below = beta.cdf(1 / 4, 2, 2)
    p0 = beta.ppf(below + (1 - below) * generator.random(runs), 2, 2)
    drawn = np.where(
        generator.random((runs, 64)) < p0[:, None], 0, generator.integers(1, 4, size=(runs, 64))
    )
    tallies = Tallies(drawn)
    decisions = rule.decide_many(tallies)
    rows, ends = np.arange(runs), decisions.first_stop
    decided = decisions.decided[rows, ends]
    wrong = (tallies.leader[rows, ends] != 0)[decided].mean()
    claimed = 1 - decisions.confidence[rows, ends][decided].mean()
    assert error / 3 < wrong <= error
    assert wrong == pytest.approx(claimed, abs=4.5 * math.sqrt(claimed / decided.sum()))


def test_only_a_fixed_lead_is_named():
    """The lead is a number where p0 and the candidates are settings, else None."""
    assert OptpoRule().lead == 3
    for settings in ({"p0_from": "votes"}, {"p0_from": "prior"}, {"p0": 0.6, "candidates": None}):
        assert OptpoRule(**settings).lead is None


def test_with_unknown_candidates_a_fixed_p0_must_win_against_one_rival():
    """p0 = .5 says nothing while one class is seen, and is refused; as a start it is allowed."""
    with pytest.raises(SettingsError, match=r"p0 = 0.5: must be above 1/2 where candidates"):
        OptpoRule(candidates=None)
    for p0_from in ("votes", "prior"):
        assert OptpoRule(p0=0.3, candidates=None, p0_from=p0_from).look_ahead(Tally()) > 0


def test_every_problem_is_reported_at_once():
    """One error names the source of p0, its strength and all else that is out of range."""
    with pytest.raises(SettingsError) as raised:
        OptpoRule(p0=0, candidates=0, p0_from="data", p0_strength=math.nan)
    names = [problem.split(" = ")[0] for problem in raised.value.problems]
    assert names == ["candidates", "p0", "p0_from", "p0_strength"]
