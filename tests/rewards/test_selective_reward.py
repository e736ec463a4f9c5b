"""Selective positive and negative labels."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import SettingsError
from optpo.rewards.selective import SelectiveReward
from tests.rewards.batches import batch_of


def with_entropies(votes, entropies, lengths=None):
    """A batch whose rollouts' tokens all have the rollout's entropy."""
    batch = batch_of(votes, lengths=lengths)
    by_token = torch.tensor(entropies)[batch.token_rollouts]
    return replace(batch, token_values={"entropy": by_token})


def by_loop(part, votes, entropies):
    """The published code's account, a question at a time."""
    rewards, begin = [], 0
    for group in votes:
        own = entropies[begin : begin + len(group)]
        begin += len(group)
        total, mean = len(group), sum(own) / len(group)
        counts = {vote: group.count(vote) for vote in group if vote >= 0}
        ranked = [*sorted(counts.values(), reverse=True), 0]
        label = None
        clear = counts and ranked[0] >= part.positive_share * total
        if clear and ranked[0] - ranked[1] > part.margin * total:
            label = max(counts, key=counts.get)
        for vote in group:
            if vote < 0:
                rewards.append(-1.0)
                continue
            share = counts[vote] / total
            some = [value for other, value in zip(group, own, strict=True) if other == vote]
            unsure = sum(some) / len(some) - mean
            negative = (
                vote != label and counts[vote] < part.negative_share * total and unsure >= -1e-12
            )
            if part.form == "binary":
                reward = float(vote == label) - negative
            else:
                reward = share if vote == label else -(part.negative_share - share) * negative
                reward -= part.entropy_weight * unsure
            if part.others == "none" and vote != label and not negative:
                reward = math.nan
            rewards.append(reward)
    return rewards


entropy = st.sampled_from([0.25, 0.5, 1.0, 2.0])
groups = st.lists(
    st.lists(st.tuples(st.integers(-1, 4), entropy), min_size=1, max_size=12),
    min_size=1,
    max_size=4,
)


@given(groups, st.sampled_from(["binary", "continuous"]), st.sampled_from(["zero", "none"]))
def test_any_group_sizes_equal_a_loop(groups, form, others):
    """For groups of any size the rewards are those of the published code's loop over answers."""
    votes = [[vote for vote, _ in group] for group in groups]
    entropies = [value for group in groups for _, value in group]
    part = SelectiveReward(form=form, others=others)
    found = part(with_entropies(votes, entropies)).tolist()
    assert found == pytest.approx(by_loop(part, votes, entropies), abs=1e-6, nan_ok=True)


def test_a_worked_vote():
    """Of 16 votes 6 : 3 name a label; one stray answer is unsure and negative, one is sure."""
    votes = [0] * 6 + [1] * 3 + [2] + [3] + [4, 4, 5, 5] + [-1]
    entropies = [1.0] * 9 + [2.0, 0.5] + [1.0] * 5
    rewards = SelectiveReward()(with_entropies([votes], entropies)).tolist()
    assert rewards == [1.0] * 6 + [0.0] * 3 + [-1.0, 0.0] + [0.0] * 4 + [-1.0]


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        ([0] * 3 + [1, 1] + [2, 3, 4], False),  # 3 - 2 of 8 is the margin, not above it
        ([0] * 3 + [1] + [2, 3, 4, 5], True),  # .375 is enough
        ([0] * 2 + [1, 2, 3, 4, 5, 6], False),
    ],
)
def test_the_thresholds_are_met_exactly(votes, label):
    """A share of 3 in 8 is enough for a positive label, a margin of 1 in 8 is not."""
    rewards = SelectiveReward()(with_entropies([votes], [1.0] * 8)).tolist()
    assert (max(rewards) == 1.0) is label


def test_an_eighth_is_no_stray_answer():
    """A share of exactly 1 in 8 is not below it: no negative label, however unsure."""
    rewards = SelectiveReward()(with_entropies([[0] * 7 + [1]], [1.0] * 7 + [9.0])).tolist()
    assert rewards == [1.0] * 7 + [0.0]


def test_entropies_are_means_over_rollouts_not_tokens():
    """A long rollout weighs no more than a short one in its answer's entropy."""
    votes, entropies = [[0] * 8 + [1]], [1.0] * 7 + [2.8, 1.2]
    # Over rollouts the mean is 1.222: the stray answer is surer. Over tokens it would be 1.053.
    rewards = SelectiveReward()(with_entropies(votes, entropies, [5] * 7 + [1, 1]))
    assert rewards[-1] == 0


def test_settings_out_of_range_are_all_named():
    """Every problem is told at once; entropies are asked for."""
    with pytest.raises(SettingsError, match=r"(?s)margin is 2.*entropy_weight is -1"):
        SelectiveReward(margin=2, entropy_weight=-1)
    assert SelectiveReward().needs == {"entropy"}
