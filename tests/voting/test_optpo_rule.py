"""The published and derived numbers of OptPO's test (dossier 1.2), and of the plain vote."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import SettingsError
from optpo.voting import UNPARSED, FixedRule, OptpoRule, Tallies, Tally

LEADS = {
    (0.5, 4): (2, 3, 5),
    (0.4, 4): (4, 5, 7),
    (0.6, 2): (6, 8, 12),
    (0.7, 4): (2, 2, 3),
    (0.3, 10): (2, 3, 4),
    (0.2, 10): (3, 4, 6),
    (0.7, 2): (3, 4, 6),
}


@pytest.mark.parametrize(
    ("p0", "candidates", "error", "lead"),
    [
        (*model, error, lead)
        for model, leads in LEADS.items()
        for error, lead in zip((0.1, 0.05, 0.01), leads, strict=True)
    ],
)
def test_the_lead_is_the_one_of_the_table(p0, candidates, error, lead):
    """The test stops at the tabulated lead and not one vote sooner."""
    rule = OptpoRule(p0, candidates, error, floor=1, cap=64)
    assert rule.lead == lead
    assert rule.decide(Tally((0,) * lead)).kind == "decided"
    assert not rule.decide(Tally((0,) * (lead - 1))).stop


@given(
    st.lists(st.integers(UNPARSED, 5), max_size=30).map(tuple),
    st.sampled_from([*LEADS]),
    st.sampled_from([0.1, 0.05, 0.01]),
)
def test_the_runner_up_test_is_a_fixed_lead_rule(votes, model, error):
    """On any tally it stops exactly when the lead in votes, or the cap, is reached."""
    rule = OptpoRule(*model, error, floor=4, cap=25)
    tally = Tally(votes)
    lead = tally.leader_votes - tally.runner_up_votes
    stops = len(votes) >= 25 or (len(votes) >= 4 and lead >= rule.lead)
    assert rule.decide(tally).stop == stops


def test_the_evidence_is_the_ratio_of_posteriors():
    """With p0 = .5 and m = 4, rho is 3: a lead of 2 has odds of 9 and a posterior of .9."""
    decision = OptpoRule(0.5, 4, 0.05).decide(Tally((0, 0, 0, 1)))
    assert decision.log_evidence == pytest.approx(2 * math.log(3))
    assert decision.confidence == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("votes", "posterior"),
    [
        ((0,), 3 / (3 + 3)),
        ((0, 0, 0, 1), 27 / (27 + 3 + 2)),
        ((0, 1), 3 / (3 + 3 + 2)),
        ((0, 1, 2, 3), 3 / 12),
        ((0, 0, 1, 2, 3, 4), 9 / (9 + 4 * 3)),  # five classes seen: five hypotheses, not four
    ],
)
def test_the_posterior_is_the_one_of_the_formula(votes, posterior):
    """With rho = 3 and m = 4, P(H_L | D) = 3^vL / (sum of 3^vc over seen classes + unseen)."""
    decision = OptpoRule(0.5, 4, statistic="posterior").decide(Tally(votes))
    assert decision.confidence == pytest.approx(posterior)
    assert decision.log_evidence == pytest.approx(math.log(posterior / (1 - posterior)))


@given(st.lists(st.integers(UNPARSED, 4), max_size=20).map(tuple))
def test_the_posterior_form_is_never_the_quicker_one(votes):
    """Where the full posterior stops, the test against the runner-up alone has stopped too."""
    sooner = OptpoRule(floor=1).decide(Tally(votes))
    later = OptpoRule(floor=1, statistic="posterior").decide(Tally(votes))
    assert sooner.stop or not later.stop
    assert sooner.confidence >= later.confidence - 1e-12


def sure_of_two(rule):
    """Whether the rule is sure with v1 and v2 votes (row, column) short of the cap, and of whom."""
    votes = np.tril(np.ones((rule.cap + 1, rule.cap), dtype=int), -1)
    tallies = Tallies(1 - votes)  # row a: a votes for class 0, all others for class 1
    decided = replace(rule, floor=1).decide_many(tallies).decided
    sure = np.zeros((rule.cap + 2, rule.cap + 2), dtype=bool)
    ahead = np.full_like(sure, -1, dtype=int)
    for first in range(rule.cap + 1):
        seconds = np.arange(rule.cap - first)
        sure[first, seconds] = decided[first, first + seconds]
        ahead[first, seconds] = tallies.leader[first, first + seconds]
    return sure, ahead


def exact_result(rule, first, second):
    """Follow every state (v1, v2) of a vote in which all other rollouts are unparsed.

    Returns P(label 0), P(label 1), P(undecided) and the mean number of votes.
    """
    sure, ahead = sure_of_two(rule)
    mass = np.zeros_like(sure, dtype=float)
    mass[0, 0] = 1.0
    label, undecided, votes = [0.0, 0.0], 0.0, 0.0
    for total in range(rule.cap + 1):
        decided = sure & (total >= rule.floor)
        stop = decided | (total >= rule.cap)
        for answer in (0, 1):
            label[answer] += mass[decided & (ahead == answer)].sum()
        undecided += mass[stop & ~decided].sum()
        votes += total * mass[stop].sum()
        mass[stop] = 0.0
        after = mass * (1 - first - second)
        after[1:] += mass[:-1] * first
        after[:, 1:] += mass[:, :-1] * second
        mass = after
    return label[0], label[1], undecided, votes


@pytest.mark.parametrize(
    ("shares", "error", "wrong", "votes"),
    [
        ((0.6, 0.4), 0.05, 0.229, 8.1),
        ((0.5, 0.3), 0.01, 0.072, 21.4),
        ((0.35, 0.30), 0.01, 0.316, 36.7),
    ],
)
def test_the_real_error_is_the_gamblers_ruin(shares, error, wrong, votes):
    """Dynamic programming over all tallies gives the closed form, and the dossier's numbers."""
    rule = OptpoRule(error=error, floor=1, cap=420)
    first, second = shares
    closed_form = 1 / (1 + (first / second) ** rule.lead)
    label, other, undecided, mean = exact_result(rule, first, second)
    assert label + other + undecided == pytest.approx(1)
    assert other == pytest.approx(closed_form, abs=1e-5)
    assert mean == pytest.approx(rule.lead * (1 - 2 * closed_form) / (first - second), rel=1e-4)
    assert other == pytest.approx(wrong, abs=6e-4)
    assert mean == pytest.approx(votes, abs=0.06)


@pytest.mark.parametrize("statistic", ["runner-up", "posterior"])
def test_simulated_votes_agree_with_the_exact_result(statistic):
    """20 000 seeded votes end as often in each way as the exact sum over tallies says."""
    rule = OptpoRule(floor=4, cap=30, statistic=statistic)
    label, other, undecided, mean = exact_result(rule, 0.5, 0.3)
    decided, leaders, totals = simulate(rule, [0.5, 0.3], runs=20_000)
    for observed, exact in (
        (decided & (leaders == 0), label),
        (decided & (leaders == 1), other),
        (~decided, undecided),
    ):
        assert observed.mean() == pytest.approx(exact, abs=4.5 * math.sqrt(exact / 20_000))
    assert totals.mean() == pytest.approx(mean, abs=4.5 * totals.std() / math.sqrt(20_000))


def test_at_its_own_model_the_posterior_form_keeps_its_error():
    """With votes drawn as assumed, no more than `error` of labels are wrong; the other form errs
    more often than that, because rivals add up.
    """
    own_model = [1 / 2, 1 / 6, 1 / 6, 1 / 6]
    wrong = {}
    for statistic in ("runner-up", "posterior"):
        rule = OptpoRule(floor=1, statistic=statistic)
        decided, leaders, _ = simulate(rule, own_model, runs=20_000)
        wrong[statistic] = (leaders[decided] != 0).mean()
    assert 0.02 < wrong["posterior"] <= 0.05
    assert wrong["runner-up"] == pytest.approx(0.065, abs=0.008)


def simulate(rule, shares, runs):
    """Draw votes, the missing share unparsed, and return decided, leader and votes of every run."""
    generator = np.random.default_rng(1)
    shares = np.array([*shares, 1 - sum(shares)])
    drawn = generator.choice(len(shares), size=(runs, rule.cap), p=shares.clip(0) / shares.sum())
    tallies = Tallies(np.where(drawn == len(shares) - 1, UNPARSED, drawn))
    decisions = rule.decide_many(tallies)
    totals = decisions.first_stop
    rows = np.arange(runs)
    return decisions.decided[rows, totals], tallies.leader[rows, totals], totals


@pytest.mark.parametrize(("p0", "candidates"), [(0.25, 4), (0.2, 4), (0.1, 10), (0.5, 2)])
def test_a_model_whose_votes_are_no_evidence_is_refused(p0, candidates):
    """p0 at or below 1/candidates is refused, with the reason."""
    with pytest.raises(SettingsError, match="no evidence"):
        OptpoRule(p0=p0, candidates=candidates)


def test_every_problem_is_reported_at_once():
    """One error names all settings that are out of range, with their values."""
    with pytest.raises(SettingsError) as raised:
        OptpoRule(p0=1.5, candidates=1, error=0.5, floor=0, cap=2.5, statistic="mean")
    names = [problem.split(" = ")[0] for problem in raised.value.problems]
    assert sorted(names) == ["candidates", "cap", "error", "floor", "p0", "statistic"]


@pytest.mark.parametrize(
    "settings",
    [{"p0": math.nan}, {"error": math.nan}, {"error": 0}, {"floor": 9, "cap": 8}, {"cap": True}],
)
def test_settings_out_of_range_are_refused(settings):
    """NaN, zero, a floor above the cap and truth values are no settings."""
    with pytest.raises(SettingsError):
        OptpoRule(**settings)


@pytest.mark.parametrize(
    ("first", "second", "confidence"),
    [(0, 0, 0.0), (1, 0, 3 / 4), (2, 1, 11 / 16), (3, 3, 1 / 2), (6, 0, 1 - 2**-7)],
)
def test_the_plain_vote_claims_the_beta_posterior(first, second, confidence):
    """P(theta > 1/2) under Beta(v1 + 1, v2 + 1), worked by hand: 3/4, 11/16, 1/2, 1 - 2^-7."""
    tally = Tally((0,) * first + (1,) * second)
    assert FixedRule(6).decide(tally).confidence == pytest.approx(confidence)


def test_the_plain_vote_stays_finite_for_very_many_votes():
    """Thousands of equal votes give a confidence of 1 and finite evidence."""
    decision = FixedRule(5000).decide(Tally((0,) * 5000))
    assert decision.kind == "decided"
    assert decision.confidence == 1
    assert math.isfinite(decision.log_evidence)


def test_the_plain_vote_refuses_an_impossible_number():
    """Zero votes cannot be cast."""
    with pytest.raises(SettingsError, match="votes = 0"):
        FixedRule(0)
