"""The posterior that the leader is the mode: closed forms, brute quadrature and simulation."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import gamma

from optpo.errors import SettingsError
from optpo.voting import UNPARSED, BetaRule, DirichletRule, Tallies, Tally

VOTES = st.lists(st.integers(UNPARSED, 5), min_size=1, max_size=30).map(tuple)


def tally_of(*counts):
    return Tally(tuple(number for number, votes in enumerate(counts) for _ in range(votes)))


def brute_quadrature(rule, scores):
    """P(leader is not the mode): an adaptive integral over x, with every factor written out."""
    leader, *rivals = sorted(scores, reverse=True)
    shapes = [rule.prior + votes for votes in rivals] + [rule.unseen] * (rule.unseen > 0)

    def wrong(x):
        largest = math.prod(gamma.cdf(x, shape) for shape in shapes)
        return gamma.pdf(x, rule.prior + leader) * (1 - largest)

    ends = [0, *gamma.ppf([1e-6, 0.01, 0.5, 0.99], rule.prior + leader), 20 + 3 * leader]
    return sum(
        quad(wrong, *pair, epsabs=1e-13, epsrel=1e-12, limit=200)[0] for pair in pairwise(ends)
    )


@pytest.mark.parametrize("counts", [(1,), (3, 2, 2), (9, 9, 4, 1, 1, 1), (30, 12, 1), (2,) * 30])
@pytest.mark.parametrize(("prior", "unseen"), [(1.0, 1.0), (0.5, 0.3), (3.0, 0.0)])
def test_the_confidence_is_the_integral(counts, prior, unseen):
    """Brute adaptive quadrature of the Gamma densities gives the same to 1e-8."""
    rule = DirichletRule(prior=prior, unseen=unseen)
    expected = 1 - brute_quadrature(rule, counts)
    assert rule.decide(tally_of(*counts)).confidence == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("classes", [2, 5, 20, 100])
@pytest.mark.parametrize("votes", [1, 2, 7, 40])
def test_equal_answers_share_the_probability(classes, votes):
    """With k equal classes and an unseen one that equals them, each is the mode with 1/(k + 1)."""
    rule = DirichletRule(unseen=1.0 + votes)
    decision = rule.decide(tally_of(*[votes] * classes))
    assert decision.confidence == pytest.approx(1 / (classes + 1), abs=1e-8)


@pytest.mark.parametrize(("leader", "rivals"), [(1.5, 1), (4.0, 3), (2.5, 12)])
def test_rivals_with_exponential_variables_have_a_closed_form(leader, rivals):
    """Against k variables of shape 1, P = sum over j of (-1)^j C(k, j) (1 + j)^-shape."""
    tally = Tally(carried=(leader, *[0.5] * (rivals - 1)))
    expected = sum(
        (-1) ** j * math.comb(rivals, j) * (1 + j) ** -(leader + 0.5) for j in range(rivals + 1)
    )
    decision = DirichletRule(prior=0.5).decide(tally)
    assert decision.confidence == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 60), st.integers(1, 60))
def test_two_classes_are_the_beta_posterior(first, second):
    """With two classes, a prior of 1 and none unseen, the posterior is the one of BetaRule."""
    tally = tally_of(first, second)
    found, expected = DirichletRule(unseen=0).decide(tally), BetaRule().decide(tally)
    assert found.confidence == pytest.approx(expected.confidence, abs=1e-12)
    assert found.log_evidence == pytest.approx(expected.log_evidence, abs=1e-9)
    assert found.stop == expected.stop


@pytest.mark.parametrize("votes", [1, 3, 64, 900])
def test_one_class_against_the_unseen_is_the_beta_posterior(votes):
    """n votes for one class: P = 1 - 2^-(n + 1), and odds that are right where P rounds to 1."""
    decision = DirichletRule().decide(tally_of(votes))
    assert decision.confidence == pytest.approx(1 - 2.0 ** -(votes + 1), abs=1e-12)
    odds = math.log(2) * (votes + 1) + math.log1p(-(2.0 ** -(votes + 1)))
    assert decision.log_evidence == pytest.approx(odds, rel=1e-9)


def test_a_certain_mode_has_finite_evidence():
    """Without an unseen class a single class is certain; thousands of votes stay finite too."""
    alone = DirichletRule(unseen=0).decide(Tally((0,)))
    assert (alone.kind, alone.confidence) == ("decided", 1.0)
    many = DirichletRule(cap=5000).decide(tally_of(4000, 1))
    assert 700 < many.log_evidence == pytest.approx(alone.log_evidence)
    assert math.isfinite(many.log_evidence)


def test_a_single_vote_convinces_a_small_unseen_class_too_easily():
    """Best-of-infinity's 0.3 claims 93 % after one vote, the default 75 %."""
    assert DirichletRule(unseen=0.3).decide(Tally((0,))).confidence == pytest.approx(
        0.934, abs=1e-3
    )
    assert DirichletRule().decide(Tally((0,))).confidence == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("counts", "prior", "unseen"),
    [
        ((1,), 1, 0.3),
        ((5, 4, 4, 2), 1, 1),
        ((8, 3, 3), 0.4, 0.3),
        ((2,) * 12, 1, 1),
        ((9, 8), 2, 5),
    ],
)
def test_simulated_shares_agree(counts, prior, unseen):
    """Of 200 000 draws from the Dirichlet posterior, as many have the leader on top as claimed."""
    generator = np.random.default_rng(3)
    draws = generator.gamma(
        [votes + prior for votes in counts] + [unseen], size=(200_000, 1 + len(counts))
    )
    claimed = DirichletRule(prior=prior, unseen=unseen).decide(tally_of(*counts)).confidence
    bound = 4.5 * math.sqrt(claimed * (1 - claimed) / 200_000)
    assert (draws.argmax(axis=1) == 0).mean() == pytest.approx(claimed, abs=bound)


@given(VOTES)
def test_more_unseen_answers_make_less_sure(votes):
    """The confidence falls as the unseen class grows, and with a class that is added."""
    found = [DirichletRule(unseen=unseen).decide(Tally(votes)) for unseen in (0, 0.3, 1, 4)]
    confidences = [decision.confidence for decision in found]
    assert confidences == sorted(confidences, reverse=True)
    if found[0].leader is not None:
        after = DirichletRule().decide(Tally((*votes, 6)))
        assert after.confidence <= found[2].confidence


def test_many_questions_with_many_classes_equal_single_ones():
    """Questions with up to 100 classes, ties and unparsed votes: each prefix as on its own."""
    generator = np.random.default_rng(4)
    tops = generator.integers(1, 101, size=1200)
    votes = np.array([generator.integers(UNPARSED, top, size=64) for top in tops])
    for rule in (DirichletRule(), DirichletRule(prior=0.2, unseen=0)):
        decisions = rule.decide_many(Tallies(votes))
        for row, n in zip(
            generator.integers(0, 1200, 200), generator.integers(0, 65, 200), strict=True
        ):
            single = rule.decide(Tally(tuple(votes[row, :n].tolist())))
            assert decisions[row, n].confidence == pytest.approx(single.confidence, abs=1e-12)
            assert decisions.stop[row, n] == single.stop


def test_no_questions_and_no_votes_are_no_trouble():
    """Empty matrices, whole or with carried votes, give empty decisions."""
    assert DirichletRule().decide_many(Tallies(np.empty((0, 5), dtype=int))).stop.shape == (0, 6)
    assert DirichletRule().decide_many(Tallies(np.empty((3, 0), dtype=int))).stop.shape == (3, 1)
    carried = Tallies(np.empty((1, 0), dtype=int), carried=np.array([[2.0]]))
    assert DirichletRule().decide_many(carried).confidence == pytest.approx(1 - 2.0**-3)


CARRIED = st.lists(st.sampled_from([0, 0.25, 1, 2.5, 3]), min_size=1, max_size=4).map(tuple)


@given(st.lists(st.tuples(VOTES, CARRIED), min_size=1, max_size=4))
def test_carried_votes_alone_and_among_many_agree(many):
    """With carried votes each prefix of each question has the confidence it has alone."""
    tallies = [Tally(votes, carried=carried) for votes, carried in many]
    decisions = DirichletRule().decide_many(Tallies.of(tallies))
    for row, (votes, carried) in enumerate(many):
        for n in range(len(votes) + 1):
            single = DirichletRule().decide(Tally(votes[:n], carried=carried))
            assert decisions[row, n].confidence == pytest.approx(single.confidence, abs=1e-9)
            assert decisions[row, n].log_evidence == pytest.approx(single.log_evidence, abs=1e-6)


@given(VOTES, st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_a_carried_whole_vote_counts_as_a_vote(votes, carried):
    """Whole carried votes give the confidence of as many votes of this visit."""
    with_votes = Tally((*votes, *(n for n, more in enumerate(carried) for _ in range(more))))
    found = DirichletRule(cap=99).decide(Tally(votes, carried=tuple(map(float, carried))))
    expected = DirichletRule(cap=99).decide(with_votes).confidence
    assert found.confidence == pytest.approx(expected, abs=1e-9)


@given(VOTES.filter(lambda votes: len(votes) < 12), CARRIED)
def test_look_ahead_is_exact_with_carried_votes(votes, carried):
    """Brute force over every class, as the battery does it for votes of one visit."""
    rule = DirichletRule(confidence=0.9, cap=12)
    tally = Tally(votes, carried=carried)
    runs = [
        more
        for more in range(13 - tally.total)
        for vote in range(UNPARSED, 7)
        if rule.decide(Tally((*votes, *[vote] * more), carried=carried)).stop
    ]
    assert rule.look_ahead(tally) == min(runs)


def test_it_keeps_its_error_where_its_prior_is_true():
    """Two answers with shares uniform on [0, 1], the rule's prior with an unseen rival to spare:
    of 20 000 votes with a look after every rollout at most 5 % end with the wrong one.
    """
    generator = np.random.default_rng(5)
    share = generator.random(20_000)
    tallies = Tallies((generator.random((20_000, 64)) > share[:, None]).astype(int))
    decisions = DirichletRule(confidence=0.95).decide_many(tallies)
    rows, ends = np.arange(20_000), decisions.first_stop
    decided = decisions.decided[rows, ends]
    wrong = tallies.leader[rows, ends] != (share < 0.5)
    assert decided.mean() > 0.8
    assert 0.01 < wrong[decided].mean() <= 0.05


@pytest.mark.slow
def test_random_tallies_agree_with_brute_quadrature():
    """A hundred random tallies and settings, each against an adaptive integral."""
    generator = np.random.default_rng(6)
    for _ in range(100):
        votes = generator.integers(0, generator.integers(1, 40), size=generator.integers(1, 65))
        rule = DirichletRule(prior=generator.uniform(0.1, 3), unseen=generator.uniform(0, 3))
        expected = 1 - brute_quadrature(rule, Counter(votes.tolist()).values())
        found = rule.decide(Tally(tuple(votes.tolist()))).confidence
        assert found == pytest.approx(expected, abs=1e-8)


def test_every_problem_is_reported_at_once():
    """One error names all settings that are out of range."""
    with pytest.raises(SettingsError) as raised:
        DirichletRule(confidence=0.5, prior=0, unseen=-1, floor=0, at_cap="stop")
    names = [problem.split(" = ")[0] for problem in raised.value.problems]
    assert names == ["confidence", "prior", "unseen", "floor", "at_cap"]


@pytest.mark.parametrize(
    "settings", [{"confidence": math.nan}, {"prior": math.nan}, {"unseen": math.inf}]
)
def test_settings_that_are_no_numbers_are_refused(settings):
    """NaN and infinity are no settings."""
    with pytest.raises(SettingsError):
        DirichletRule(**settings)
