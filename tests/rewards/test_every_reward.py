"""What holds for every reward, whatever it rewards."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.batch import RolloutBatch
from optpo.recipes.registry import part_class, parts
from tests.rewards.batches import batch_of

every_reward = pytest.mark.parametrize("name", parts()["reward"])

votes_and_labels = st.lists(
    st.tuples(st.lists(st.integers(-1, 3), min_size=1, max_size=6), st.integers(-1, 3)),
    min_size=1,
    max_size=4,
)


def full_batch(groups):
    """All that a reward may ask for, the same for a rollout whatever batch it is in."""
    votes = [some for some, _ in groups]
    sizes = [1 + (place * 7 + vote) % 3 for some in votes for place, vote in enumerate(some)]
    batch = batch_of(votes, [label for _, label in groups], sizes)
    by_rollout = 0.5 + 0.25 * (batch.indices % 3)
    return replace(
        batch,
        scores=(batch.indices % 2).float(),
        token_values={"entropy": by_rollout[batch.token_rollouts]},
    )


@every_reward
@given(groups=votes_and_labels)
def test_a_group_is_rewarded_by_itself(name, groups):
    """One float32 a rollout, the same in a batch of one group as among others."""
    reward = part_class("reward", name)()
    together = reward(full_batch(groups))
    assert together.dtype == torch.float32
    apart = torch.cat([reward(full_batch([group])) for group in groups])
    assert torch.allclose(together, apart, equal_nan=True)


@every_reward
@given(groups=votes_and_labels, names=st.permutations(range(4)))
def test_answers_names_do_not_matter(name, groups, names):
    """Numbering the answer classes otherwise changes no reward."""
    reward = part_class("reward", name)()
    batch = full_batch(groups)
    renamed = torch.tensor([*names, -1])
    other: RolloutBatch = replace(batch, votes=renamed[batch.votes], labels=renamed[batch.labels])
    assert torch.allclose(reward(batch), reward(other), equal_nan=True)


@every_reward
def test_rewards_leave_the_batch_alone(name):
    """Votes and labels are as before; what is needed is named."""
    batch = full_batch([([0, 0, 1, -1], 0), ([1], -1)])
    votes, labels = batch.votes.clone(), batch.labels.clone()
    reward = part_class("reward", name)()
    reward(batch)
    assert batch.votes.equal(votes)
    assert batch.labels.equal(labels)
    assert isinstance(reward.needs, frozenset)
