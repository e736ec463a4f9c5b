"""A budget for a question set: what a vote is worth, and where the votes go."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, betabinom

from optpo.errors import SettingsError
from optpo.voting import NO_VOTE, UNPARSED, Tallies, Tally
from optpo.voting.budget import (
    HORIZON,
    VoteStream,
    expected_cost,
    spend,
    spend_in_turn,
    value_of_next_vote,
)

VOTES = st.lists(st.integers(UNPARSED, 3), max_size=10).map(tuple)
COUNTS = st.integers(0, 40)


def tallies_of(many):
    return Tallies.of([Tally(votes) for votes in many])


def error(one, other):
    """P(the label is the wrong one of two answers), by scipy's distribution."""
    return beta.cdf(0.5, max(one, other) + 1, min(one, other) + 1)


def rate(one, other, k):
    """What k further votes are expected to gain, a vote, by summing over all their outcomes."""
    outcomes = betabinom(k, one + 1, other + 1)
    later = sum(outcomes.pmf(j) * error(one + j, other + k - j) for j in range(k + 1))
    return (error(one, other) - later) / k


@pytest.mark.parametrize(("one", "other"), [(0, 0), (1, 0), (3, 0), (1, 1), (4, 3), (7, 2), (9, 9)])
def test_the_value_is_the_best_rate_over_horizons(one, other):
    """The table equals the expectation summed over all outcomes of all horizons."""
    expected = max(rate(one, other, k) for k in range(1, HORIZON + 1))
    found = value_of_next_vote(one, other, one + other, cap=500)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_values_by_hand():
    """The first vote lifts 1/2 to E[max(theta, 1 - theta)] = 3/4; behind 1:0 one vote is nothing,
    and two are worth 1/2 P(both against) - ... = 1/16, 1/32 each."""
    assert float(value_of_next_vote(0, 0, 0)) == pytest.approx(1 / 4)
    # e(1:0) = 1/4. After two votes: 3:0 (prob 1/2, e 1/16), 2:1 (1/3, e 5/16), 1:2 (1/6, e 5/16).
    later = 1 / 2 * 1 / 16 + 1 / 3 * 5 / 16 + 1 / 6 * 5 / 16
    assert float(value_of_next_vote(1, 0, 1)) == pytest.approx((1 / 4 - later) / 2)


@given(COUNTS, COUNTS, st.integers(0, 30))
def test_values_are_rates_that_other_votes_dilute(one, other, lost):
    """No value is negative or above that of an untouched question; votes for a third answer, or
    for none, lower it."""
    first, second = max(one, other), min(one, other)
    value = value_of_next_vote(first, second, first + second, cap=200)
    diluted = value_of_next_vote(first, second, first + second + lost, cap=200)
    assert 0 <= diluted <= value <= 0.25
    assert float(diluted) == pytest.approx(
        value * (first + second + 1) / (first + second + lost + 1)
    )


@given(st.integers(1, 15), st.integers(0, 15))
def test_a_tie_is_worth_most(votes, lead):
    """Of all questions with as many votes for two answers, the tied one comes first, and the value
    falls with the lead."""
    values = value_of_next_vote(
        votes + np.arange(lead + 1), votes - np.minimum(votes, np.arange(lead + 1)), 2 * votes
    )
    assert (np.diff(values[: votes + 1]) < 0).all()


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
def test_a_label_that_cannot_change_is_worth_nothing(cap, one, other, lost):
    """0 where the votes left cannot bring the runner-up above the leader, and nowhere else."""
    first, second = max(one, other), min(one, other)
    total = first + second + lost
    settled = first - second >= cap - total
    assert (value_of_next_vote(first, second, total, cap) == 0) == settled


def test_a_lead_beyond_the_horizon_is_worth_nothing():
    """Behind a lead of 64 there is exactly nothing to gain, however many votes are left."""
    values = value_of_next_vote(np.array([HORIZON - 1, HORIZON, 300]), 0, 0, cap=1000)
    assert values[0] > 0
    assert (values[1:] == 0).all()


def test_very_many_votes_count_by_their_lead():
    """Beyond 256 votes for an answer the lead is what counts, and no cap is too large; scores that
    carried votes make are rounded."""
    assert value_of_next_vote(402.2, 400.9, 0, cap=10**9) == value_of_next_vote(256, 255, 0)
    assert float(value_of_next_vote(300, 290, 590, cap=10**9)) == pytest.approx(
        rate(300, 290, HORIZON), rel=0.1
    )


def greedy(many, budget, cap, costs):
    """Give every single vote to the question where it is worth most, one after the other."""
    taken, left = [0] * len(many), budget
    firsts = [cost[0] for votes, cost in zip(many, costs, strict=True) if votes]
    while True:
        values = []
        for votes, cost, n in zip(many, costs, taken, strict=True):
            tally = Tally(votes[:n])
            value = value_of_next_vote(tally.leader_votes, tally.runner_up_votes, n, cap)
            each = expected_cost(sum(cost[:n]), n, np.mean(firsts or [1]))
            values.append(float(value) / each if n < len(votes) else 0.0)
        best = int(np.argmax(values)) if values else -1
        if best < 0 or values[best] <= 0 or costs[best][taken[best]] > left:
            return taken
        left -= costs[best][taken[best]]
        taken[best] += 1


@given(st.lists(VOTES, max_size=6), st.integers(0, 30), st.integers(1, 10))
def test_each_vote_goes_where_it_is_worth_most(many, budget, cap):
    """The sorted replay equals choosing the best question before every single vote."""
    found = spend(tallies_of(many), budget, cap)
    assert found.tolist() == greedy(many, budget, cap, [[1] * len(votes) for votes in many])


@given(st.lists(VOTES, max_size=5), st.integers(0, 90), st.data())
def test_each_token_goes_where_it_is_worth_most(many, budget, data):
    """The same with costs, where the value is that of a token: mean of the votes so far and one."""
    costs = [
        data.draw(st.lists(st.integers(1, 9), min_size=len(votes), max_size=len(votes)))
        for votes in many
    ]
    matrix = np.ones(tallies_of(many).votes.shape)
    for row, cost in enumerate(costs):
        matrix[row, : len(cost)] = cost
    found = spend(tallies_of(many), budget, 64, matrix)
    assert found.tolist() == greedy(many, budget, 64, costs)


def simulated(seed, questions=300, votes=64):
    """Votes of questions of all kinds, and the mode of each, which is class 0."""
    rng = np.random.default_rng(seed)
    mode = rng.uniform(0.3, 1.0, questions)
    rival = rng.uniform(0, 1, questions) * np.minimum(0.9 * mode, 1 - mode)
    draws = rng.uniform(size=(questions, votes))
    third = rng.integers(2, 12, (questions, votes))
    by_class = np.where(draws < (mode + rival)[:, None], 1, third)
    return Tallies(np.where(draws < mode[:, None], 0, by_class))


def right(tallies, taken):
    return (tallies.leader[np.arange(len(tallies)), taken] == 0).mean()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("each", [3, 8])
def test_a_budget_buys_more_right_labels_than_equal_shares(seed, each):
    """On simulated questions the budget, and its stream, beat as many votes for every question."""
    tallies = simulated(seed)
    equal = right(tallies, np.full(len(tallies), each))
    offline = spend(tallies, each * len(tallies))
    in_turn = spend_in_turn(tallies, each * len(tallies))
    assert offline.sum() == each * len(tallies)
    assert right(tallies, offline) > equal + 0.02
    assert right(tallies, in_turn) > equal + 0.015
    assert in_turn.sum() > 0.97 * each * len(tallies)


@given(st.lists(VOTES, max_size=8), st.integers(0, 60))
def test_a_stream_never_overruns_and_leaves_nobody_out(many, budget):
    """The votes taken are within the budget; who has votes gets one, the first ones if too few."""
    taken = spend_in_turn(tallies_of(many), budget)
    assert taken.sum() <= budget
    assert all(n <= len(votes) for n, votes in zip(taken, many, strict=True))
    for place, votes in enumerate(many):
        assert taken[place] > 0 or not votes or place >= budget


@given(st.lists(VOTES.filter(len), min_size=1, max_size=8), st.integers(1, 60))
def test_a_stream_vote_by_vote_is_the_replay(many, budget):
    """Asking price and most before every vote takes the same votes as the replay of the set."""
    stream, taken = VoteStream(budget, len(many)), []
    for votes in many:
        n = 0
        while n < min(len(votes), stream.most):
            tally = Tally(votes[:n])
            value = value_of_next_vote(tally.leader_votes, tally.runner_up_votes, n)
            if n and value <= stream.price:
                break
            n += 1
        taken.append(n)
        stream = stream.after(n)
    assert taken == spend_in_turn(tallies_of(many), budget).tolist()


def test_the_price_follows_what_is_left():
    """Fewer votes left, or questions that need more than expected, raise the price."""
    stream = VoteStream(votes=500, questions=100)
    assert VoteStream(votes=300, questions=100).price > stream.price
    hungry = VoteStream(votes=500, questions=100, taken=400, expected=200.0)
    modest = VoteStream(votes=500, questions=100, taken=100, expected=200.0)
    assert hungry.price > stream.price > modest.price
    assert VoteStream(votes=6400, questions=100).price == 0
    assert VoteStream(votes=0, questions=3).most == 0


def test_the_model_expects_what_it_draws():
    """Questions drawn from the model's own prior use what the stream expects: its budget."""
    rng = np.random.default_rng(5)
    share = rng.uniform(size=(2000, 1))
    tallies = Tallies((rng.uniform(size=(2000, 64)) < share).astype(int))
    stream = VoteStream(votes=12000, questions=2000)
    price = stream.price
    first, second = tallies.leader_votes[:, :-1], tallies.runner_up_votes[:, :-1]
    values = value_of_next_vote(first, second, tallies.total[:, :-1])
    taken = np.where((values <= price).any(axis=1), (values <= price).argmax(axis=1), 64)
    assert taken.mean() == pytest.approx(6, rel=0.1)


def test_no_votes_no_spending():
    """Questions without recorded votes, and no questions at all, get nothing."""
    empty = Tallies(np.full((2, 3), NO_VOTE))
    assert spend(empty, 9).tolist() == spend_in_turn(empty, 9).tolist() == [0, 0]
    assert spend(tallies_of([]), 9).tolist() == spend_in_turn(tallies_of([]), 9).tolist() == []


@pytest.mark.parametrize("settings", [{"votes": -1}, {"questions": 1.5}, {"cap": 0}])
def test_a_stream_refuses_what_is_no_budget(settings):
    """The setting that is out of range is named."""
    with pytest.raises(SettingsError, match=rf"{next(iter(settings))} = .*must be"):
        VoteStream(**{"votes": 9, "questions": 3} | settings)


def test_a_stream_without_questions_has_no_more_votes_than_are_left():
    """At its end a stream offers what is left and not one more."""
    assert VoteStream(votes=10, questions=0).most == 10
    assert VoteStream(votes=0, questions=0).most == 0
