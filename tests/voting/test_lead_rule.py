"""The fixed-lead rule: what it is the other name of, and its exact error and cost."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import DataError, SettingsError
from optpo.voting import (
    UNPARSED,
    LeadRule,
    OptpoRule,
    Tallies,
    Tally,
    lead_error,
    lead_votes,
    smallest_lead,
)

# Shares of the two answers, lead, P(wrong) and mean votes: the dossier's numbers (1.2).
DOSSIER = [(0.6, 0.4, 3, 0.229, 8.1), (0.5, 0.3, 5, 0.072, 21.4), (0.35, 0.30, 5, 0.316, 36.7)]


@given(
    st.lists(st.integers(UNPARSED, 5), max_size=30).map(tuple),
    st.floats(0.05, 0.95),
    st.integers(2, 12),
    st.floats(0.001, 0.4),
)
def test_optpo_with_equal_error_mass_stops_exactly_with_it(votes, excess, candidates, error):
    """After every vote of any stream OptPO's runner-up form and the lead it names agree."""
    p0 = 1 / candidates + excess * (1 - 1 / candidates)
    optpo = OptpoRule(p0, candidates, error, floor=3, cap=25)
    lead = LeadRule(by=optpo.lead, floor=3, cap=25)
    tallies = Tallies.of([Tally(votes)])
    np.testing.assert_array_equal(lead.decide_many(tallies).stop, optpo.decide_many(tallies).stop)
    assert lead.look_ahead(Tally(votes)) == optpo.look_ahead(Tally(votes))


def test_it_stops_at_the_lead_and_not_before():
    """Three ahead is enough, two is not, whatever the number of votes and of unparsed ones."""
    assert not LeadRule(by=3).decide(Tally((0, 0))).stop
    assert LeadRule(by=3).decide(Tally((0, 0, 0))).kind == "decided"
    assert not LeadRule(by=3).decide(Tally((1, 0, 0, UNPARSED, 0, 2))).stop
    assert LeadRule(by=3).decide(Tally((1, 0, 0, UNPARSED, 0, 0))).kind == "decided"


@pytest.mark.parametrize(("first", "second", "by", "wrong", "votes"), DOSSIER)
def test_error_and_votes_are_the_dossiers(first, second, by, wrong, votes):
    """The closed forms give the numbers that were worked out for the dossier."""
    assert lead_error(first, second, by) == pytest.approx(wrong, abs=5e-4)
    assert lead_votes(first, second, by) == pytest.approx(votes, abs=0.05)


@pytest.mark.parametrize(
    ("first", "second"),
    [(0.6, 0.4), (0.5, 0.3), (0.5, 0.5), (0.2, 0.2), (0.3, 0.2999), (0.9, 0.0), (0.01, 0.009)],
)
@pytest.mark.parametrize("by", [1, 2, 7])
def test_error_and_votes_solve_the_walk_between_the_two_leads(first, second, by):
    """The chain over the leads -by ... by, solved as linear equations, says the same."""
    leads = np.arange(-by + 1, by)
    stays = np.eye(len(leads)) * (1 - first - second)
    moves = first * np.eye(len(leads), k=1) + second * np.eye(len(leads), k=-1)
    step = np.eye(len(leads)) - stays - moves
    wrong_at_once = np.where(leads == -by + 1, second, 0.0)
    start = by - 1
    wrong = np.linalg.solve(step, wrong_at_once)[start]
    votes = np.linalg.solve(step, np.ones(len(leads)))[start]
    assert lead_error(first, second, by) == pytest.approx(wrong, rel=1e-9, abs=1e-12)
    assert lead_votes(first, second, by) == pytest.approx(votes, rel=1e-9)


@given(st.floats(0.01, 0.5), st.integers(1, 40))
def test_shares_that_nearly_agree_take_nearly_the_votes_of_equal_ones(share, by):
    """The limit p1 -> p2 is reached smoothly: by^2 / (p1 + p2) votes, and wrong half the time."""
    nearly = share * (1 - 1e-12)
    assert lead_votes(share, nearly, by) == pytest.approx(by * by / (2 * share), rel=1e-9)
    assert lead_error(share, nearly, by) == pytest.approx(0.5, rel=1e-9)


def test_a_single_answer_is_never_wrong():
    """Without a second answer the error is 0, and each vote for the first raises the lead."""
    assert lead_error(0.5, 0.0, by=4) == pytest.approx(0, abs=1e-300)
    assert lead_votes(0.5, 0.0, by=4) == pytest.approx(8)
    assert smallest_lead(0.5, 0.0, error=1e-9) == 1


def test_simulated_votes_err_and_cost_as_planned():
    """20 000 seeded streams, a fifth of their votes unparsed, agree with both formulas."""
    runs, cap, (first, second) = 20_000, 200, (0.45, 0.35)
    drawn = np.random.default_rng(3).choice([0, 1, UNPARSED], (runs, cap), p=[first, second, 0.2])
    tallies = Tallies(drawn)
    decisions = LeadRule(by=4, cap=cap).decide_many(tallies)
    votes = decisions.first_stop
    wrong = (tallies.leader[np.arange(runs), votes] == 1).mean()
    expected = lead_error(first, second, by=4)
    assert wrong == pytest.approx(expected, abs=4 * math.sqrt(expected / runs))
    mean, spread = lead_votes(first, second, by=4), votes.std() / math.sqrt(runs)
    assert votes.mean() == pytest.approx(mean, abs=4 * spread)


@given(st.floats(0.01, 0.6), st.floats(0.0, 0.99), st.floats(1e-6, 0.49))
def test_the_smallest_lead_is_enough_and_one_vote_less_is_not(first, ratio, error):
    """The planned lead keeps the error and no smaller one does."""
    second = min(first * ratio, 1 - first)
    by = smallest_lead(first, second, error)
    assert lead_error(first, second, by) <= error * (1 + 1e-6)
    assert by == 1 or lead_error(first, second, by - 1) > error * (1 - 1e-6)


@pytest.mark.parametrize(
    ("p0", "candidates", "error"), [(0.5, 4, 0.05), (0.7, 2, 0.01), (0.2, 10, 0.1), (0.5, 4, 0.1)]
)
def test_the_smallest_lead_for_optpos_own_shares_is_optpos(p0, candidates, error):
    """Planned for the leader and one rival of OptPO's model, it is the lead that OptPO uses."""
    rival = (1 - p0) / (candidates - 1)
    assert smallest_lead(p0, rival, error) == OptpoRule(p0, candidates, error).lead


@pytest.mark.parametrize(
    ("first", "second", "by"), [(0.4, 0.6, 3), (0.7, 0.4, 3), (0, 0, 3), (0.5, -0.1, 3), (1, 0, 0)]
)
def test_what_is_no_pair_of_shares_or_no_lead_is_refused(first, second, by):
    """The likelier answer's share comes first, and a lead is a vote or more."""
    for planned in (lead_error, lead_votes):
        with pytest.raises(DataError, match=r"shares must be|a lead is"):
            planned(first, second, by)


@pytest.mark.parametrize(("first", "second", "error"), [(0.3, 0.3, 0.1), (0.6, 0.4, 0.5)])
def test_no_lead_is_planned_where_none_is_enough_or_needed(first, second, error):
    """Equal answers cannot be told apart, and an error of a half takes no votes."""
    with pytest.raises(DataError, match=r"no lead|below 0\.5"):
        smallest_lead(first, second, error)


def test_every_problem_of_the_settings_is_reported_at_once():
    """One error names all settings that are out of range."""
    with pytest.raises(SettingsError) as raised:
        LeadRule(by=0, floor=0, cap=2.5, at_cap="stay")
    names = [problem.split(" = ")[0] for problem in raised.value.problems]
    assert sorted(names) == ["at_cap", "by", "cap", "floor"]
