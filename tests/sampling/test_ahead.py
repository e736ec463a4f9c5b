"""The chance that a vote goes on, against random walks."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.sampling.ahead import chance_needed

VOTES = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 20)).map(
    lambda v: (max(v[:2]), min(v[:2]), sum(v))
)


@given(VOTES, st.integers(1, 20))
def test_what_is_needed_for_sure_has_chance_one(votes, ahead):
    """Up to the fewest votes that could end the test; then it falls with each one launched."""
    chances = [chance_needed(ahead, *votes, pending) for pending in range(60)]
    assert chances[:ahead] == [1.0] * ahead
    assert all(0 <= chance <= 1 for chance in chances)
    assert all(b <= a + 1e-9 for a, b in pairwise(chances))


@given(VOTES, st.integers(1, 15), st.integers(1, 50))
def test_a_clearer_lead_needs_less(votes, ahead, pending):
    """One more of the votes for the leader never makes a further rollout likelier to be needed."""
    first, second, total = votes
    after = chance_needed(ahead, first + 1, second, total + 1, pending)
    assert after <= chance_needed(ahead, first, second, total, pending) + 1e-9


@pytest.mark.parametrize(
    ("ahead", "votes", "pending"),
    [(3, (5, 2, 8), 6), (3, (5, 2, 8), 20), (6, (12, 4, 18), 12), (8, (6, 5, 14), 40)],
)
def test_it_is_the_share_of_walks_that_have_not_arrived(ahead, votes, pending):
    """Within .12 of 20,000 walks with the same steps: continuous time stands for whole votes."""
    first, second, total = votes
    up, down = (first + 1) / (total + 3), (second + 1) / (total + 3)
    steps = np.random.default_rng(0).choice(
        [1, -1, 0], p=[up, down, 1 - up - down], size=(20_000, pending)
    )
    walks = (steps.cumsum(axis=1).max(axis=1) < ahead).mean()
    assert chance_needed(ahead, *votes, pending) == pytest.approx(walks, abs=0.12)
