"""What holds for every shape, whatever it shapes by."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.recipes.registry import part_class, parts
from tests.shapes.rewarded import with_lengths

NO_DEFAULT = {"trigger": {"think_token": 3}}

every_shape = pytest.mark.parametrize("name", parts()["shape"])


def shaped(name, lengths, rewards):
    """A batch with all that a shape may ask for."""
    count = len(lengths)
    values = {
        "shortest": torch.tensor([4.0, float("inf")] * count)[:count],
        "rewards seen": torch.full((count,), 9.0),
        "mean reward": torch.full((count,), 0.5),
        "deviation of rewards": torch.full((count,), 0.5),
    }
    return part_class("shape", name)(**NO_DEFAULT.get(name, {}))(
        with_lengths(lengths, values, longest=12), rewards
    )


groups = st.lists(
    st.lists(
        st.tuples(st.integers(1, 12), st.sampled_from([0.0, 1.0, float("nan")])),
        min_size=1,
        max_size=5,
    ),
    min_size=1,
    max_size=4,
)


@every_shape
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(groups=groups)
def test_rewards_keep_shape_and_dtype(name, dtype, groups):
    """One a rollout, in groups of any size; none where there was none, a number everywhere else."""
    rewards = torch.tensor([reward for group in groups for _, reward in group], dtype=dtype)
    before = rewards.clone()
    found = shaped(name, [[length for length, _ in group] for group in groups], rewards)
    assert found.dtype == dtype
    assert found.isnan().equal(rewards.isnan())
    assert rewards.nan_to_num(9).equal(before.nan_to_num(9))


@every_shape
@given(length=st.integers(1, 12), size=st.integers(1, 6))
def test_equal_rollouts_are_shaped_equally(name, length, size):
    """Same length and reward, same shaped reward, but for what the rollout's index means."""
    found = shaped(name, [[length] * size], torch.ones(size))
    if name != "budget":
        assert found.equal(found[:1].expand(size))
