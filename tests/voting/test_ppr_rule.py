"""PPR-1v1: its closed form, its exact error, and how it spends the error when K is not known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betainc
from scipy.stats import beta

from optpo.errors import SettingsError
from optpo.voting import UNPARSED, PprRule, Tally
from optpo.voting.ppr import log_prior_posterior_ratio

# Runs of equal votes, so that many of the tallies are ones a rule is sure of.
RUNS = st.lists(st.tuples(st.integers(UNPARSED, 5), st.integers(1, 12)), max_size=8)
VOTES = RUNS.map(lambda runs: tuple(vote for vote, times in runs for _ in range(times)))


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_ratio_is_the_inverse_density_at_a_tie(first, second):
    """R(v1, v2) is one over the density of Beta(v1 + 1, v2 + 1) at 1/2, as scipy has it."""
    expected = -beta.logpdf(0.5, first + 1, second + 1)
    assert log_prior_posterior_ratio(first, second) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("rule", "votes"),
    [
        (PprRule(0.05, candidates=2), 8),  # 2^v / (v + 1) >= 20: 16 after 7, 28.4 after 8
        (PprRule(0.05, candidates=4), 10),  # >= 60: 51.2 after 9, 93.1 after 10
        (PprRule(0.05), 10),  # 2^(v - 1) / v >= 40: 28.4 after 9, 51.2 after 10
        (PprRule(0.1), 9),  # >= 20: 16 after 8, 28.4 after 9
        (PprRule(0.01), 13),  # >= 200: 170.7 after 12, 315.1 after 13
    ],
)
def test_equal_votes_end_it_when_worked_by_hand(rule, votes):
    """The ratio of votes that all agree is 2^v / (v + 1)."""
    assert rule.look_ahead(Tally()) == votes
    assert rule.decide(Tally((3,) * votes)).kind == "decided"
    assert not rule.decide(Tally((3,) * (votes - 1))).stop


@given(VOTES, st.integers(2, 9), st.sampled_from([0.3, 0.1, 0.02]))
def test_the_leader_must_beat_every_rival(votes, candidates, error):
    """With K known it is sure exactly when the density at 1/2 is small enough against each rival."""
    tally = Tally(votes)
    counts = sorted(tally.counts.values(), reverse=True)
    rivals = [*counts[1:], *[0] * (candidates - len(counts))]
    level = error / (max(candidates, len(counts)) - 1)
    beaten = [beta.pdf(0.5, counts[0] + 1, rival + 1) <= level for rival in rivals if counts]
    decision = PprRule(error, candidates, cap=100).decide(tally)
    assert decision.stop == (bool(counts) and all(beaten))


@given(VOTES, st.sampled_from([0.3, 0.1, 0.02]))
def test_with_k_unknown_the_kth_answer_has_a_share_of_the_error(votes, error):
    """The k-th answer must beat each rival, an unseen one too, at error / (k (k + 1)), and its
    first vote does not count.
    """
    sure = False
    named = []
    for vote in votes:
        if vote != UNPARSED and vote not in named:
            named.append(vote)
    for k, label in enumerate(named, start=1):
        own = votes.count(label)
        rivals = [0, *(votes.count(other) for other in named if other != label)]
        level = error / (k * (k + 1))
        sure |= all(own - 1 > rival and beta.pdf(0.5, own, rival + 1) <= level for rival in rivals)
    assert PprRule(error, cap=100).decide(Tally(votes)).stop == sure


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_rival_with_fewer_votes_is_easier_to_beat(first, second):
    """While behind the leader, a vote for the rival lowers the ratio: the runner-up decides."""
    first, second = max(first, second) + 1, min(first, second)
    assert log_prior_posterior_ratio(first, second + 1) <= log_prior_posterior_ratio(first, second)


@given(st.integers(0, 200), st.integers(0, 200))
def test_the_ratio_is_bounded_by_the_one_sided_mixture(first, second):
    """What the proof rests on: R <= U = 2 R P(theta > 1/2) where v1 >= v2."""
    first, second = max(first, second), min(first, second)
    assert 2 * betainc(second + 1, first + 1, 0.5) >= 1 - 1e-12


@pytest.mark.parametrize("share", [0.5, 0.49, 0.4, 0.1])
@pytest.mark.parametrize("error", [0.2, 0.1, 0.05, 0.01])
def test_the_exact_error_between_two_answers_is_at_most_the_level(share, error):
    """Following every pair (v1, v2) for 300 votes, the wrong label is decided with probability at
    most `error`; with equal answers with more than a tenth of that.
    """
    votes = np.arange(301)
    ratio = log_prior_posterior_ratio(votes[:, None], votes[None, :])
    wrong = (ratio >= -math.log(error)) & (votes[:, None] > votes)
    right = (ratio >= -math.log(error)) & (votes[:, None] < votes)
    mass = np.zeros_like(ratio)
    mass[0, 0], decided = 1.0, 0.0
    for _ in range(300):
        after = np.zeros_like(mass)
        after[1:] += mass[:-1] * share
        after[:, 1:] += mass[:, :-1] * (1 - share)
        decided += after[wrong].sum()
        mass = np.where(wrong | right, 0.0, after)
    assert 0 < decided <= error
    assert decided > error / 10 or share < 0.5


@given(VOTES, st.sampled_from([None, 2, 4]))
def test_the_confidence_is_the_level_at_which_it_would_stop(votes, candidates):
    """A rule of an error just above 1 - confidence is sure, one just below it is not."""
    decision = PprRule(0.2, candidates, cap=100).decide(Tally(votes))
    assert decision.log_evidence == pytest.approx(-math.log1p(-decision.confidence), abs=1e-6)
    error = math.exp(-decision.log_evidence)
    if error < 0.49:
        assert PprRule(error * 1.001, candidates, cap=100).decide(Tally(votes)).stop
        assert not PprRule(error * 0.999, candidates, cap=100).decide(Tally(votes)).stop


def test_more_answers_than_candidates_are_all_reckoned_with():
    """With three answers seen, two candidates are three."""
    votes = (0,) * 12 + (1, 2)
    two, three = (PprRule(0.01, candidates=k).decide(Tally(votes)) for k in (2, 3))
    assert two == three
    assert PprRule(0.01, candidates=4).decide(Tally(votes)).confidence < three.confidence


def test_every_problem_is_reported_at_once():
    """One error names all settings that are out of range, with their values."""
    with pytest.raises(SettingsError) as raised:
        PprRule(error=0.5, candidates=1, floor=0, cap=2.5, at_cap="stop")
    names = [problem.split(" = ")[0] for problem in raised.value.problems]
    assert sorted(names) == ["at_cap", "candidates", "cap", "error", "floor"]


@pytest.mark.parametrize("settings", [{"error": math.nan}, {"error": 0}, {"candidates": 2.0}])
def test_settings_out_of_range_are_refused(settings):
    """NaN, zero and fractions of an answer are no settings."""
    with pytest.raises(SettingsError):
        PprRule(**settings)
