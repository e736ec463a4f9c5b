"""What cancelled rollouts had cost: true in the sum, and never beyond what a rollout can have."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.sampling.cancel_costs import CancelCosts


def test_a_rollout_is_charged_for_its_age():
    """At the pace of those that came back; nothing while none has, and no more than the longest."""
    costs = CancelCosts()
    assert costs.estimate(0, 5.0) == 0
    costs.ended(tokens=30, seconds=3.0)
    costs.ended(tokens=10, seconds=1.0)
    assert costs.estimate(1, 2.0) == 20
    assert costs.estimate(2, 60.0) == 30


def test_an_error_is_made_up_for_by_the_next():
    """Too little at first is charged later, as far as one rollout can bear; so is too much."""
    costs = CancelCosts()
    costs.ended(tokens=30, seconds=3.0)
    assert costs.estimate(0, 1.0) == 10
    costs.counted(0, 25)
    assert costs.estimate(1, 1.0) == 25
    costs.counted(1, 0)
    assert [costs.estimate(2, 0.6), costs.estimate(3, 0.6)] == [0, 2]


@given(st.integers(0, 10**6))
def test_the_sum_is_true(seed):
    """Whatever the pace, the sum of what was told is that of the true numbers, but for the last."""
    draw, costs = random.Random(seed), CancelCosts()
    costs.ended(tokens=100, seconds=draw.uniform(1, 10))
    told = true = 0
    for handle in range(200):
        told += costs.estimate(handle, draw.uniform(0, 8))
        tokens = draw.randrange(20, 80)
        true += tokens
        costs.counted(handle, tokens)
    assert told == pytest.approx(true, abs=200)
