"""The change that a rollout's vote makes."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.rewards.leave_one_out import LeaveOneOutReward
from tests.rewards.batches import batch_of

ragged_votes = st.lists(
    st.lists(st.integers(-1, 4), min_size=1, max_size=9), min_size=1, max_size=5
)


def snr(votes):
    first, second = [*sorted(Counter(v for v in votes if v >= 0).values())[::-1], 0, 0][:2]
    return (first - second) ** 2 / (len(votes) * (first + second)) if first else 0.0


def minus_entropy(votes):
    counts = [*Counter(v for v in votes if v >= 0).values(), *[1] * votes.count(-1)]
    return sum(count / len(votes) * math.log(count / len(votes)) for count in counts)


@pytest.mark.parametrize(("name", "statistic"), [("snr", snr), ("entropy", minus_entropy)])
@given(votes=ragged_votes)
def test_any_group_sizes_equal_a_loop(name, statistic, votes):
    """For groups of any size the rewards are the statistic with a vote less that without it."""
    found = LeaveOneOutReward(name)(batch_of(votes)).tolist()
    expected = [
        statistic(group) - statistic(group[:place] + group[place + 1 :])
        if len(group) > 1
        else math.nan
        for group in votes
        for place in range(len(group))
    ]
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_a_worked_vote():
    """Votes 3 : 1. SNR is 4/16; without a leader's vote 1/9, without the other 3/3."""
    rewards = LeaveOneOutReward()(batch_of([[0, 0, 0, 1]])).tolist()
    assert rewards == pytest.approx([0.25 - 1 / 9] * 3 + [0.25 - 1])


@pytest.mark.parametrize("statistic", ["snr", "entropy"])
def test_the_leader_gains_and_silence_pays(statistic):
    """A vote for the leader is worth more than one against it, and never to answer the least."""
    rewards = LeaveOneOutReward(statistic)(batch_of([[0, 0, 0, 1, 1, -1, -1]])).tolist()
    assert rewards[0] > 0 > rewards[5]
    assert rewards[0] > rewards[3]
    assert LeaveOneOutReward(statistic).needs == frozenset()
