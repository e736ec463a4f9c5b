"""Which rule reaches a target with the fewest votes: choosing, measuring, and what is the least."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from optpo.errors import SettingsError
from optpo.stopping_rules import RULES
from optpo.voting import (
    UNPARSED,
    BetaRule,
    CurtailedRule,
    FixedRule,
    FrontierRule,
    LeadRule,
    OptpoRule,
    PprRule,
    RecordedVotes,
    Tallies,
    Tally,
    least_mean_votes,
    smallest_lead,
)
from optpo.voting.lead import lead_error, lead_votes
from optpo.voting.plan import (
    learn_levels,
    least_votes_for_all_shapes,
    least_votes_for_these_shapes,
    levels_of,
    plan_rules,
    shares_of,
)
from optpo.voting.replay import replay
from optpo.voting.rules import rule_from_json
from optpo.voting.runs import Runs, recorded_runs, simulated_runs


def planned(shapes, rules, error=0.05, cap=64, questions=4000):
    halves = [simulated_runs(shapes, cap=cap, questions=questions, seed=seed) for seed in (0, 1)]
    return plan_rules(*halves, rules, error=error, floor=1, cap=cap)


def given_runs(votes, right):
    """Runs of one question each, whose mode is given."""
    tallies = Tallies(np.array(votes))
    return Runs(tallies, tallies.leader == np.array(right)[:, None], np.arange(len(votes)))


def test_the_cost_of_a_lead_is_the_exact_one():
    """Votes and error of a lead of 4 at shares .6 and .4 lie in the intervals (gambler's ruin)."""
    (found,) = planned([(0.6, 0.4)], {"lead": [LeadRule(by=4)]}, error=0.2, cap=400)
    assert found.votes[1] < lead_votes(0.6, 0.4, by=4) < found.votes[2]
    assert found.error[1] < lead_error(0.6, 0.4, by=4) < found.error[2]
    assert found.undecided[0] == 0


@pytest.mark.parametrize(("shares", "error"), [((0.6, 0.4), 0.05), ((0.5, 0.3), 0.03)])
def test_the_lead_found_is_the_smallest_that_is_enough(shares, error):
    """Searching by simulation ends where the formula does."""
    (found,) = planned([shares], {"lead": levels_of(LeadRule(), 30)}, error=error, cap=300)
    assert found.rule.by == smallest_lead(*shares, error)
    assert found.target == "kept"


def test_the_intervals_hold_the_exact_values_as_often_as_they_say():
    """Votes of a lead and error of a plain vote: about 95 % of 60 intervals hold the exact value."""
    rules = {"lead": [LeadRule(by=3)], "fixed": [FixedRule(votes=9)]}
    votes, wrong = lead_votes(0.7, 0.3, by=3), binom.cdf(4, 9, 0.7)
    held = {"lead": 0, "fixed": 0}
    for seed in range(60):
        runs = simulated_runs([(0.7, 0.3)], cap=80, questions=300, seed=seed)
        found = {
            each.name: each for each in plan_rules(runs, runs, rules, error=0.2, floor=1, cap=80)
        }
        held["lead"] += found["lead"].votes[1] < votes < found["lead"].votes[2]
        held["fixed"] += found["fixed"].error[1] < wrong < found["fixed"].error[2]
    # 51 of 60 or fewer have a chance of 0.4 % where the level is .95.
    assert min(held.values()) > 51
    assert found["fixed"].votes == (9, 9, 9)


@pytest.mark.parametrize("rule", [BetaRule(), OptpoRule(), LeadRule(), PprRule(), FixedRule()])
def test_no_hastier_level_reaches_the_target(rule):
    """The level found does, and the one before it does not, by trying them one by one."""
    shapes, error, cap = [(0.5, 0.2, 0.1), (0.8,)], 0.03, 48
    choosing = simulated_runs(shapes, cap=cap, questions=3000, seed=5)
    levels = levels_of(rule, cap)

    def reaches(level):
        (alone,) = plan_rules(
            choosing, choosing, {"": [replace_cap(level, cap)]}, error=error, floor=1, cap=cap
        )
        return alone.target != "not reached"

    (found,) = plan_rules(choosing, choosing, {"": levels}, error=error, floor=1, cap=cap)
    assert reaches(found.rule)
    place = [replace_cap(level, cap) for level in levels].index(found.rule)
    assert place == 0 or not reaches(levels[place - 1])


def replace_cap(rule, cap):
    return rule if isinstance(rule, FixedRule) else replace(rule, floor=1, cap=cap)


def test_those_that_reach_the_target_come_first_by_votes():
    """A plain vote of too few never reaches it and stands last, however cheap."""
    rules = {
        "few": [FixedRule(votes=1)],
        "curtailed": [CurtailedRule()],
        "beta": levels_of(BetaRule(), 64),
    }
    found = planned([(0.5, 0.2)], rules)
    assert [(each.name, each.target) for each in found] == [
        ("beta", "kept"),
        ("curtailed", "kept"),
        ("few", "not reached"),
    ]
    assert found[0].votes_chosen_on < found[1].votes_chosen_on


def test_a_target_that_other_questions_break_is_missed():
    """What is measured elsewhere is what is told: here every label is wrong there."""
    votes = [[0, 0, 0, 0]] * 200
    easy, hard = given_runs(votes, [0] * 200), given_runs(votes, [1] * 200)
    (found,) = plan_rules(
        easy, hard, {"lead": levels_of(LeadRule(), 4)}, error=0.05, floor=1, cap=4
    )
    assert (found.rule.by, found.target, found.error[0]) == (1, "missed", 1.0)


def test_few_questions_without_an_error_do_not_show_that_errors_are_rare():
    """An error of 1 % takes 189 questions without any to be reached."""
    for count, target in ((188, "not reached"), (189, "kept")):
        runs = given_runs([[0, 0]] * count, [0] * count)
        (found,) = plan_rules(runs, runs, {"": [LeadRule(by=1)]}, error=0.01, floor=1, cap=2)
        assert found.target == target


def test_a_rule_that_never_decides_reaches_nothing():
    """Undecided is no label: there is no error, and no target is reached."""
    runs = given_runs([[0, 1, 2, 3]] * 300, [0] * 300)
    (found,) = plan_rules(
        runs, runs, {"lead": [LeadRule(by=2), LeadRule(by=3)]}, error=0.1, floor=1, cap=4
    )
    assert (found.target, found.error, found.undecided[0]) == ("not reached", None, 1.0)
    assert found.votes[0] == 4


def test_orders_of_one_question_are_one_question():
    """Eight copies of each run change neither figures nor intervals."""
    votes = np.random.default_rng(0).integers(0, 3, (50, 10))
    once = given_runs(votes, [0] * 50)
    tallies = Tallies(np.repeat(votes, 8, axis=0))
    copied = Runs(tallies, tallies.leader == 0, np.repeat(np.arange(50), 8))
    rules = {"lead": [LeadRule(by=2)]}
    (one,), (many,) = (
        plan_rules(runs, runs, rules, error=0.4, floor=1, cap=10) for runs in (once, copied)
    )
    assert many.votes == pytest.approx(one.votes)
    assert many.error == pytest.approx(one.error)
    assert many.undecided == pytest.approx(one.undecided)


def test_simulated_votes_have_the_shares():
    """Each kind is as frequent, has its shares, and what they leave is given once only."""
    runs = simulated_runs([(0.2, 0.5), (0.9,)], cap=50, questions=2000, seed=3)
    votes = runs.tallies.votes
    for kind, shares in enumerate([(0.5, 0.2), (0.9, 0.0)]):
        mine = votes[kind::2]
        assert (mine == 0).mean() == pytest.approx(shares[0], abs=0.01)
        assert (mine == 1).mean() == pytest.approx(shares[1], abs=0.01)
    rest = votes >= 2
    for row, scattered in zip(votes, rest, strict=True):
        assert len(set(row[scattered])) == scattered.sum()


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ([], "of nothing"),
        ([0.5, 0.0], "0.5,0"),
        ([0.8, 0.3], "sum to 1 at most"),
        ([float("nan")], "nan"),
        ([0.4, 0.4], "share the lead"),
    ],
)
def test_shares_that_are_none_are_refused(shares, said):
    """Each wrong shape is told, beside one that is right."""
    with pytest.raises(SettingsError, match=said):
        simulated_runs([[0.5], shares], cap=4)


@pytest.mark.parametrize("error", [0, 0.5, float("nan")])
def test_a_target_out_of_range_is_refused(error):
    """An error is above 0 and below one half."""
    runs = given_runs([[0]], [0])
    with pytest.raises(SettingsError, match="above 0 and below"):
        plan_rules(runs, runs, {"": [LeadRule()]}, error=error, floor=1, cap=1)


def recorded(count, votes, seed):
    draw = np.random.default_rng(seed)
    shares = (0.55, 0.2, 0.15, 0.05, 0.05)
    drawn = draw.choice([0, 1, 2, 3, UNPARSED], (count, votes), p=shares)
    return [
        RecordedVotes(f"q{row}", tuple(each.tolist()), ("",) * 4) for row, each in enumerate(drawn)
    ]


def test_recorded_runs_are_those_of_replay():
    """The same rule on the same orders uses the same votes and is as often right."""
    questions = recorded(20, 30, seed=1)
    (expected,) = replay(questions, [LeadRule(by=3)], cap=24, orders=4, seed=7)
    runs = recorded_runs(questions, cap=24, orders=4, seed=7)
    end = LeadRule(by=3, cap=24).decide_many(runs.tallies).first_stop
    np.testing.assert_array_equal(end.reshape(20, 4), expected.votes)
    right = runs.right[np.arange(80), end].reshape(20, 4)
    np.testing.assert_array_equal(right, expected.agrees)
    np.testing.assert_array_equal(runs.questions.reshape(20, 4)[:, 0], np.arange(20))


def test_shares_are_those_of_all_recorded_votes():
    """Unparsed votes are a share of nobody; a question without an answer has none."""
    question = RecordedVotes("q", (0, 1, 0, UNPARSED), ("7", "8"))
    assert shares_of(question) == [0.5, 0.25]
    assert shares_of(replace(question, votes=(UNPARSED,) * 4, labels=())) == [0.0]


def test_every_shipped_rule_can_be_planned():
    """At all its levels, hasty first; a rule that needs a file is left to those who have one."""
    for name in RULES:
        if name == "frontier":
            continue
        levels = levels_of(rule_from_json({"rule": name}), 24)
        (found,) = planned([(0.7, 0.2)], {name: levels}, error=0.1, cap=24, questions=1000)
        assert found.target == "kept", name
        if len(levels) > 1:
            first, last = (planned_votes(levels[place]) for place in (0, -1))
            assert first < last


def planned_votes(rule):
    (found,) = planned([(0.7, 0.2)], {"": [rule]}, error=0.1, cap=24, questions=300)
    return found.votes[0]


def test_learnt_policies_are_rules_from_hasty_to_patient(tmp_path):
    """Each is a file of its own, and can be planned as any rule."""
    one, other = recorded(120, 40, seed=2), recorded(120, 40, seed=3)
    levels = learn_levels(one, tmp_path, cap=24, seed=0)
    assert all(isinstance(rule, FrontierRule) and rule.cap == 24 for rule in levels)
    costs = [rule.policy.vote_cost for rule in levels]
    assert costs == sorted(costs, reverse=True)
    halves = [recorded_runs(half, cap=24, orders=2, seed=0) for half in (one, other)]
    rules = {"frontier": levels, "fixed": levels_of(FixedRule(), 24)}
    found = {each.name: each for each in plan_rules(*halves, rules, error=0.1, floor=1, cap=24)}
    assert found["frontier"].target == "kept"
    assert found["frontier"].votes[0] < found["fixed"].votes[0]


def test_the_least_votes_are_the_bounds():
    """kl(e, 1 - e) over D* and over (p1 - p2) ln(p1 / p2), by hand for shares .6 and .2."""
    nats = 0.9 * math.log(19)
    divergence = 0.6 * math.log(1.2 / 0.8) + 0.2 * math.log(0.4 / 0.8)
    assert least_votes_for_all_shapes([(0.6, 0.2)], 0.05, 1000) == pytest.approx(nats / divergence)
    assert float(least_mean_votes((0.6, 0.2), 0.05)) == pytest.approx(nats / divergence)
    known = nats / (0.4 * math.log(3))
    assert least_votes_for_these_shapes([(0.6, 0.2)], 0.05, 1000) == pytest.approx(known)


def test_the_least_votes_are_one_at_least_and_the_cap_at_most():
    """A certain answer takes a vote; two equal ones take all there are."""
    shapes = [(1.0,), (0.5, 0.5)]
    assert least_votes_for_these_shapes(shapes, 0.1, 40) == 20.5
    assert least_votes_for_all_shapes(shapes[1:], 0.1, 40) == 40


def test_no_lead_does_with_less_than_the_bound():
    """A fixed lead, near the best for a known shape, stays above the bound at its exact error."""
    for first, second in ((0.6, 0.4), (0.5, 0.2), (0.9, 0.05), (0.3, 0.28)):
        for by in (1, 2, 5, 12):
            error, votes = lead_error(first, second, by), lead_votes(first, second, by)
            least = least_votes_for_these_shapes([(first, second)], error, 10**6)
            assert least <= votes * (1 + 1e-12)


def test_the_same_seed_gives_the_same_plan():
    """Simulated votes are a function of shapes and seed."""
    one, again, other = (simulated_runs([(0.5,)], cap=9, questions=50, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.tallies.votes, again.tallies.votes)
    assert (one.tallies.votes != other.tallies.votes).any()
    assert Tally(tuple(one.tallies.votes[0].tolist())).total == 9
