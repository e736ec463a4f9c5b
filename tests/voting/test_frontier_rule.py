"""The stopping policy learnt from recorded votes: its fit, its file, its rule and its curve."""

import json
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optpo.errors import DataError, SettingsError
from optpo.voting import (
    UNPARSED,
    BetaRule,
    FrontierPolicy,
    FrontierRule,
    LeadRule,
    RecordedVotes,
    Tallies,
    Tally,
    fit_frontier,
    frontier_curve,
    votes_at_agreement,
)
from optpo.voting.frontier_curve import split_by_id
from optpo.voting.frontier_fit import VoteChain, best_policy, learn_chain, never_falling
from optpo.voting.replay import replay

MIXTURE = (3.0, 1.0, 0.6, 0.4, 0.3, 0.2)


def simulated(count, votes, seed, unparsed=0.05):
    """(count, votes) of questions whose shares come from one Dirichlet; class 0 has most."""
    rng = np.random.default_rng(seed)
    shares = np.sort(rng.dirichlet(MIXTURE, count))[:, ::-1]
    drawn = (rng.random((count, votes, 1)) > shares.cumsum(axis=1)[:, None, :-1]).sum(axis=2)
    return np.where(rng.random(drawn.shape) < unparsed, UNPARSED, drawn)


def recorded(votes, ids=None):
    return [
        RecordedVotes(
            f"q{number if ids is None else ids[number]}", tuple(row), ("",) * 6, model=f"{number}"
        )
        for number, row in enumerate(votes.tolist())
    ]


CHAIN = learn_chain(Tallies(simulated(300, 24, seed=1)), cap=16, seed=1)
RECORDED = st.integers(0, 2**32 - 1).map(lambda seed: Tallies(simulated(9, 8, seed, unparsed=0.2)))
COST = st.sampled_from([1e-6, 1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.5])


# A vote on two answers, some unparsed: nine questions in ten are easy, one is hard.
KINDS = [(0.9, (0.85, 0.1, 0.05)), (0.1, (0.45, 0.35, 0.2))]
CAP = 5


def every_run():
    """Each sequence of votes and its probability; class 0 is the right label."""
    for votes in product((0, 1, UNPARSED), repeat=CAP):
        yield (
            votes,
            sum(weight * np.prod([shares[vote] for vote in votes]) for weight, shares in KINDS),
        )


def state_after(votes):
    tally = Tally(votes)
    return tally.total, tally.leader_votes, tally.runner_up_votes


def exact_chain():
    counts = np.zeros((5, CAP + 1, CAP + 1, CAP // 2 + 1))
    for votes, probability in every_run():
        for n in range(CAP + 1):
            state = state_after(votes[:n])
            counts[0][state] += probability
            counts[1][state] += probability * (Tally(votes[:n]).leader == 0)
            if n < CAP:
                after = state_after(votes[: n + 1])
                counts[2][state] += probability
                counts[3][state] += probability * (after[1] > state[1])
                counts[4][state] += probability * (after[2] > state[2])
    visits, right, steps, leads, follows = np.where(counts > 0, counts, 1e-300)
    return VoteChain(1, right / visits, leads / steps, follows / steps)


@pytest.mark.parametrize("vote_cost", [0.001, 0.01, 0.02, 0.04])
def test_with_exact_statistics_no_policy_costs_less(vote_cost):
    """Of all 8192 ways to stop before the cap where one leads, the fit's costs least."""
    states = [
        (n, v1, v2) for n in range(CAP) for v2 in range(n) for v1 in range(v2 + 1, n - v2 + 1)
    ]
    policies = (np.arange(2 ** len(states))[:, None] >> np.arange(len(states))) % 2 == 1
    costs = np.zeros(len(policies))
    for votes, probability in every_run():
        ends = [n * vote_cost + (Tally(votes[:n]).leader != 0) for n in range(CAP + 1)]
        cost = np.full(len(policies), ends[CAP])
        for n in range(CAP - 1, -1, -1):
            if (state := state_after(votes[:n])) in states:
                cost = np.where(policies[:, states.index(state)], ends[n], cost)
        costs += probability * cost
    policy = best_policy(exact_chain(), vote_cost)
    chosen = [bool(policy.stops(*state)) for state in states]
    assert costs[(policies == chosen).all(axis=1)] == pytest.approx(costs.min(), rel=1e-12)
    assert costs.min() < 0.999 * min(costs[0], costs[-1])


def test_the_chain_is_that_of_all_orders():
    """With so many copies of a question that nothing is assumed, every order of it is counted."""
    votes = (0, 0, 1, UNPARSED, 2)
    chain = learn_chain(Tallies(np.array([votes] * 20_000)), cap=4, orders=8)
    orders = list(permutations(votes))
    for state in {state_after(order[:n]) for order in orders for n in range(4)}:
        n = state[0]
        there = [order for order in orders if state_after(order[:n]) == state]
        after = [state_after(order[: n + 1]) for order in there]
        right = np.mean([Tally(order[:n]).leader == 0 for order in there])
        assert chain.right[state] == pytest.approx(right, abs=0.02)
        leads = np.mean([then[1] > state[1] for then in after])
        assert chain.leader[state] == pytest.approx(leads, abs=0.02)
        follows = np.mean([then[2] > state[2] for then in after])
        assert chain.runner_up[state] == pytest.approx(follows, abs=0.02)


def test_a_tie_among_all_votes_counts_for_either():
    """Where two answers have most of all recorded votes, both are right."""
    chain = learn_chain(Tallies(np.array([[0, 0, 1, 1]] * 5_000)), cap=3, orders=8)
    assert chain.right[1, 1, 0] > 0.99
    assert chain.right[3, 2, 1] > 0.99


def test_states_that_nobody_saw_are_as_the_beta_rule_has_them():
    """Far from the recorded votes the confidence is BetaRule's posterior."""
    chain = learn_chain(Tallies(np.array([[0] * 12] * 3)), cap=12)
    assert chain.right[11, 7, 4] == pytest.approx(
        BetaRule().decide(Tally((0,) * 7 + (1,) * 4)).confidence
    )


@settings(max_examples=20)
@given(RECORDED, st.integers(1, 8))
def test_with_zero_cost_it_runs_to_the_cap(tallies, cap):
    """A vote that costs nothing is always cast, whatever was recorded."""
    policy = fit_frontier(tallies, vote_cost=0, cap=cap, orders=4)
    assert (policy.stop_at == cap + 1).all()


@settings(max_examples=20)
@given(RECORDED)
def test_with_a_huge_cost_it_stops_at_the_first_leader(tallies):
    """A vote that costs more than a wrong label is cast only while nobody leads."""
    policy = fit_frontier(tallies, vote_cost=1, cap=6, orders=4)
    n, second = np.indices(policy.stop_at.shape)
    reached = 2 * second + 1 <= n
    assert (policy.stop_at == second + 1)[reached].all()


@settings(max_examples=20)
@given(RECORDED, COST, COST)
def test_more_cost_never_means_more_votes(tallies, one, other):
    """Whatever stops at a price stops at a higher one, state by state."""
    chain = learn_chain(tallies, cap=8, orders=4)
    cheap, dear = (best_policy(chain, cost) for cost in sorted((one, other)))
    assert (dear.stop_at <= cheap.stop_at).all()


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_never_falling_puts_values_in_order_and_leaves_ordered_ones(seed):
    """More for the leader, less for the runner-up and a vote for the leader never lower a value."""
    n, first, second = np.indices((7, 7, 4))
    states = (second <= first) & (first + second <= n)
    ordered = never_falling(np.random.default_rng(seed).normal(size=n.shape), states)
    kept = np.where(states, ordered, np.nan)
    for after, before in (
        (kept[:, 1:], kept[:, :-1]),
        (kept[..., :-1], kept[..., 1:]),
        (kept[1:, 1:], kept[:-1, :-1]),
    ):
        both = ~np.isnan(after) & ~np.isnan(before)
        assert (after[both] >= before[both]).all()
    np.testing.assert_array_equal(never_falling(ordered, states), ordered)


@pytest.fixture
def policy_file(tmp_path):
    path = tmp_path / "policy.json"
    best_policy(CHAIN, 0.004).save(path)
    return path


def test_a_policy_survives_its_file(policy_file, tmp_path):
    """What is read back is the same, and is written the same again."""
    policy, again = best_policy(CHAIN, 0.004), FrontierPolicy.load(policy_file)
    assert (again.vote_cost, again.cap, again.questions) == (0.004, 16, 300)
    np.testing.assert_array_equal(again.stop_at, policy.stop_at)
    np.testing.assert_array_equal(again.log_odds, policy.log_odds)
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == policy_file.read_bytes()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(RECORDED, COST)
def test_every_fit_has_the_order_that_is_checked_when_it_is_read(tmp_path, tallies, cost):
    """Whatever was recorded, what is saved can be read."""
    policy = fit_frontier(tallies, vote_cost=cost, cap=8, orders=3)
    policy.save(tmp_path / "policy.json")
    np.testing.assert_array_equal(
        FrontierPolicy.load(tmp_path / "policy.json").stop_at, policy.stop_at
    )


def test_a_policy_file_has_a_line_for_each_number_of_votes(policy_file):
    """A person can read it: five lines of head, then a line each n in two tables."""
    lines = policy_file.read_text().splitlines()
    assert lines[:6] == [
        "{",
        '"format": "optpo frontier policy",',
        '"version": 1,',
        '"vote_cost": 0.004,',
        '"cap": 16,',
        '"questions": 300,',
    ]
    assert len(lines) == 6 + 1 + 16 + 2 + 17 + 2


def put(*path):
    """A change of a policy's JSON: the last argument goes where the others point."""
    *keys, last, value = path

    def change(policy):
        for key in keys:
            policy = policy[key]
        policy[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("format", "other"), 'with "format": "optpo frontier policy"'),
        (put("version", 2), "version is 2; this optpo reads version 1"),
        (put("vote_cost", -1), "vote_cost is -1; it must be a number, 0 or more"),
        (put("vote_cost", None), "vote_cost is None"),
        (put("cap", True), "cap is True; it must be a whole number"),
        (put("cap", 10**12), "stop_at must have 1000000000000 rows"),
        (put("questions", 0), "questions is 0"),
        (lambda policy: policy["stop_at"].pop(), "stop_at must have 16 rows"),
        (put("stop_at", 3, [3]), "stop_at[3] must have 2 entries"),
        (put("stop_at", 3, 0, 1.5), "stop_at[3] holds 1.5; it must hold leader votes, 1 to 16"),
        (put("stop_at", 3, 0, 10**30), "stop_at[3] holds 1000"),
        (put("stop_at", 9, 2, 2), "stop_at[9][2]: must be above the runner-up's votes"),
        (put("stop_at", 12, 0, 12), "stop_at[12][0]: must not fall as the runner-up has more"),
        (put("stop_at", 12, [None] * 7), "a vote for the leader must not undo the stop"),
        (put("log_odds", 4, []), "log_odds[4] must have 5 entries"),
        (put("log_odds", 4, 3, [1.0]), "log_odds[4][3] must have 2 entries"),
        (put("log_odds", 4, 3, 0, "high"), "log_odds[4][3] holds 'high'; it must hold numbers"),
        (put("log_odds", 4, 3, 0, float("nan")), "log_odds[4][3] holds nan"),
        (put("log_odds", 8, 8, 0, -3.0), "a leader vote more must not lower it"),
        (put("log_odds", 8, 4, 4, 99.0), "a runner-up vote more must not raise it"),
    ],
)
def test_a_damaged_policy_is_refused_with_the_place(policy_file, change, said):
    """Whatever is wrong in a file is named with where, by the policy and by the rule."""
    value = json.loads(policy_file.read_text())
    change(value)
    policy_file.write_text(json.dumps(value))
    with pytest.raises(DataError) as damaged:
        FrontierPolicy.load(policy_file)
    assert str(damaged.value).startswith(f"{policy_file}: ")
    assert said in str(damaged.value)
    with pytest.raises(SettingsError) as refused:
        FrontierRule(str(policy_file), cap=16)
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["", "[1, 2", "[]", '"policy"', "\x80", "[" * 100_000])
def test_a_file_that_is_no_policy_is_refused(tmp_path, text):
    """Empty, cut short or something else: a DataError that names the file."""
    path = tmp_path / "policy.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"policy\.json(: this is no policy| is not JSON)"):
        FrontierPolicy.load(path)


def test_wrong_settings_are_all_told_together(tmp_path):
    """A missing file does not hide what else is wrong."""
    with pytest.raises(SettingsError) as refused:
        FrontierRule(str(tmp_path / "gone.json"), least_confidence=1.0, floor=0)
    assert len(refused.value.problems) == 3
    assert "gone.json cannot be read: No such file" in str(refused.value)


def test_a_cap_above_the_fitted_one_is_refused_with_the_reason(policy_file):
    """A smaller cap is fine, a larger one has no table."""
    assert FrontierRule(str(policy_file), cap=5).decide(Tally((0, 1, 2, 0, UNPARSED))).stop
    with pytest.raises(
        SettingsError, match="cap = 17: must not be above 16, up to which the policy"
    ):
        FrontierRule(str(policy_file), cap=17)


def test_rules_are_equal_by_their_settings_and_keep_what_they_read(policy_file):
    """A rule that has read its file goes on without it."""
    rule = FrontierRule(str(policy_file), cap=16)
    assert rule == FrontierRule(str(policy_file), cap=16)
    assert hash(rule) == hash(FrontierRule(str(policy_file), cap=16))
    assert rule != replace(rule, floor=2)
    before = rule.decide(Tally((0, 0, 1)))
    policy_file.unlink()
    assert rule.decide(Tally((0, 0, 1))) == before


def test_with_too_little_confidence_it_asks_on_and_abstains(tmp_path):
    """Diffuse votes: the policy gives up soon; a rule that wants confidence hardly ever decides."""
    rng = np.random.default_rng(0)
    diffuse = Tallies(rng.integers(0, 40, (200, 40)))
    fit_frontier(diffuse, vote_cost=0.5, cap=12).save(tmp_path / "policy.json")
    hasty = FrontierRule(str(tmp_path / "policy.json"), least_confidence=0, cap=12)
    fresh = Tallies(rng.integers(0, 40, (200, 12)))
    assert hasty.decide_many(fresh).first_stop.mean() < 3
    decisions = replace(hasty, least_confidence=0.5).decide_many(fresh)
    assert (decisions.first_stop == 12).mean() > 0.9
    assert decisions.decided[:, -1].mean() < 0.1


def test_on_fresh_questions_it_is_no_worse_than_any_lead_or_beta_rule(tmp_path):
    """At equal agreement, on questions of the same kind that it has not seen; 2 % is the noise."""
    fresh = recorded(simulated(3000, 60, seed=3))
    chain = learn_chain(Tallies(simulated(1000, 60, seed=2)), cap=40, seed=2)
    learnt = []
    for number, cost in enumerate(np.geomspace(0.05, 1e-4, 16)):
        best_policy(chain, float(cost)).save(tmp_path / f"{number}.json")
        learnt.append(FrontierRule(str(tmp_path / f"{number}.json"), least_confidence=0, cap=40))
    sweeps = {
        "frontier": learnt,
        "lead": [LeadRule(by=by) for by in range(1, 12)],
        "beta": [BetaRule(confidence=1 - 0.5 ** (1 + step / 3)) for step in range(1, 24)],
    }
    points = {
        name: [
            (outcome.votes.mean(), outcome.agrees.mean())
            for outcome in replay(fresh, rules, cap=40, orders=2)
        ]
        for name, rules in sweeps.items()
    }
    for at in (0.85, 0.9, 0.93, 0.95):
        votes = {
            name: votes_at_agreement(*zip(*curve, strict=True), at)
            for name, curve in points.items()
        }
        assert votes["frontier"] <= 1.02 * min(votes["lead"], votes["beta"])


def test_the_confidence_is_how_often_the_label_is_right(tmp_path):
    """On fresh questions, label by label: mean confidence and agreement differ by 2 % at most."""
    fit_frontier(Tallies(simulated(1500, 60, seed=4)), vote_cost=0.005, cap=24).save(tmp_path / "p")
    rule = FrontierRule(str(tmp_path / "p"), least_confidence=0, cap=24)
    (found,) = replay(recorded(simulated(3000, 60, seed=5)), [rule], cap=24, orders=2)
    assert found.decided.mean() > 0.95
    assert found.confidence.mean() == pytest.approx(found.agrees.mean(), abs=0.02)
    unsure = found.confidence < 0.9
    assert found.confidence[unsure].mean() == pytest.approx(found.agrees[unsure].mean(), abs=0.04)


def test_the_same_seed_gives_the_same_policy():
    """A fit is a function of votes, settings and seed; another seed orders the votes anew."""
    tallies = Tallies(simulated(40, 20, seed=6))
    one, again, other = (fit_frontier(tallies, vote_cost=0.01, cap=10, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.log_odds, again.log_odds)
    assert (one.log_odds != other.log_odds).any()


@pytest.mark.parametrize(
    ("tallies", "change", "said"),
    [
        (Tallies(np.zeros((0, 8))), {}, "no recorded votes"),
        (Tallies(np.zeros((3, 8))), {"cap": 9}, "not above the 8 votes of the shortest question"),
        (Tallies.of([Tally((0,) * 8), Tally((0,) * 3)]), {}, "not above the 3 votes"),
        (Tallies(np.zeros((3, 8))), {"cap": 0}, "cap = 0"),
        (Tallies(np.zeros((3, 8))), {"orders": 0}, "orders = 0"),
        (Tallies(np.zeros((3, 8))), {"vote_cost": -0.1}, "vote_cost = -0.1"),
        (Tallies(np.zeros((3, 8))), {"vote_cost": float("nan")}, "vote_cost = nan"),
        (Tallies(np.zeros((3, 8)), weights=np.ones((3, 8))), {}, "learnt from whole votes"),
        (Tallies(np.zeros((3, 8)), carried=np.ones((3, 2))), {}, "learnt from whole votes"),
    ],
)
def test_a_fit_that_cannot_be_is_refused(tallies, change, said):
    """Too few votes, values out of range, weighted or carried votes."""
    with pytest.raises(SettingsError, match=said):
        fit_frontier(tallies, **{"vote_cost": 0.01, "cap": 4, "orders": 1, **change})


def test_the_curve_is_that_of_rules_fitted_on_the_other_half(tmp_path):
    """Fitting, saving and replaying by hand gives the same votes and the same agreement."""
    questions = recorded(simulated(60, 20, seed=7), ids=[number // 3 for number in range(60)])
    (point,) = frontier_curve(questions, costs=[0.01], cap=12, orders=3, seed=5)
    one, other = split_by_id(questions, seed=5)
    votes, agrees = [], []
    for fitted, applied in ((one, other), (other, one)):
        tallies = Tallies.of([Tally(question.votes) for question in fitted])
        fit_frontier(tallies, vote_cost=0.01, cap=12, seed=5).save(tmp_path / "policy.json")
        rule = FrontierRule(str(tmp_path / "policy.json"), least_confidence=0, cap=12)
        (found,) = replay(applied, [rule], cap=12, orders=3, seed=5)
        votes.append(found.votes)
        agrees.append(found.agrees)
    assert point.mean_votes == pytest.approx(np.concatenate(votes).mean())
    assert point.agreement == pytest.approx(np.concatenate(agrees).mean())


def test_halves_share_no_question():
    """Votes of several models on one question stay together; the halves differ by one id at most."""
    questions = recorded(simulated(21, 8, seed=8), ids=[number % 7 for number in range(21)])
    one, other = split_by_id(questions, seed=0)
    ids = [{question.id for question in half} for half in (one, other)]
    assert not ids[0] & ids[1]
    assert sorted(map(len, ids)) == [3, 4]
    assert len(one) + len(other) == 21


def test_a_single_question_has_no_other_half():
    """Several models on one question are not enough."""
    with pytest.raises(SettingsError, match="two ids or more, found 1"):
        frontier_curve(recorded(simulated(4, 8, seed=9), ids=[0] * 4))


def test_the_curve_falls_with_the_cost_and_ends_in_the_full_vote():
    """From hasty to patient: more votes at every step, at last all of them."""
    questions = recorded(simulated(80, 16, seed=10))
    points = frontier_curve(questions, costs=[1.0, 0.05, 0.01, 0.002, 0.0], cap=12, orders=4)
    votes = [point.mean_votes for point in points]
    assert votes == sorted(votes)
    assert votes[0] < 2
    assert votes[-1] == 12
    assert points[-1].agreement > points[0].agreement


@given(
    st.lists(st.tuples(st.floats(1, 64), st.floats(0, 1)), min_size=1, max_size=6),
    st.floats(0, 1),
)
def test_votes_at_an_agreement_are_those_of_the_cheapest_mixture(points, at):
    """An independent linear programme over all mixtures of the settings agrees."""
    from scipy.optimize import linprog

    votes, agreement = (np.array(column) for column in zip(*points, strict=True))
    found = votes_at_agreement(votes.tolist(), agreement.tolist(), at)
    if at > agreement.max():
        assert np.isnan(found)
        return
    cheapest = linprog(votes, A_ub=[-agreement], b_ub=[-at], A_eq=[np.ones(len(votes))], b_eq=[1])
    assert found == pytest.approx(cheapest.fun, abs=1e-4)
