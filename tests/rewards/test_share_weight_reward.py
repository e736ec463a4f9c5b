"""Every answer as a label, by its share."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import SettingsError
from optpo.rewards.share_weights import ShareWeightReward
from tests.rewards.batches import batch_of

ragged_votes = st.lists(
    st.lists(st.integers(-1, 3), min_size=1, max_size=8), min_size=1, max_size=4
)


@given(ragged_votes, st.sampled_from([0.0, 1.0, 2.0]))
def test_it_is_the_mix_of_all_labels(votes, power):
    """Centred on its group, the reward is the weighted sum of what each answer as label would give."""
    found = ShareWeightReward(power)(batch_of(votes)).tolist()
    for group in votes:
        own, found = found[: len(group)], found[len(group) :]
        answers = sorted({vote for vote in group if vote >= 0})
        powers = {answer: (group.count(answer) / len(group)) ** power for answer in answers}
        expected = [0.0] * len(group)
        for answer in answers:
            agrees = [float(vote == answer) for vote in group]
            mean, weight = sum(agrees) / len(group), powers[answer] / sum(powers.values())
            for place, one in enumerate(agrees):
                expected[place] += weight * (one - mean)
        centred = [reward - sum(own) / len(group) for reward in own]
        assert centred == pytest.approx(expected, abs=1e-6)


def test_without_consensus_all_pay():
    """A first share below the consensus is a penalty for every rollout; one equal to it is not."""
    votes = [[0, 0, 1, 2], [0, 1, 2, -1]]
    rewards = ShareWeightReward(consensus=0.5, penalty=2.0)(batch_of(votes))
    assert rewards.tolist() == [0.5, 0.5, 0.25, 0.25, -2, -2, -2, -2]


def test_questions_weigh_by_their_first_share():
    """The question's weight multiplies rewards and penalties."""
    votes = [[0, 0, 1, 2], [0, 1, 2, -1]]
    part = ShareWeightReward(consensus=0.5, penalty=2.0, question_power=1.0)
    expected = torch.tensor([0.25, 0.25, 0.125, 0.125, -0.5, -0.5, -0.5, -0.5])
    assert part(batch_of(votes)).equal(expected)


def test_a_large_power_is_the_majority_reward():
    """The higher the power, the nearer to 1 for the leader and 0 for the rest."""
    rewards = ShareWeightReward(power=200.0)(batch_of([[0, 0, 1, -1]]))
    assert rewards.tolist() == pytest.approx([1, 1, 0, 0], abs=1e-6)


def test_settings_out_of_range_are_all_named():
    """Every problem is told at once."""
    with pytest.raises(SettingsError, match=r"(?s)power is -1.*consensus is 3"):
        ShareWeightReward(power=-1, consensus=3)
