"""Group-relative advantages against worked numbers and plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.advantages.centred import CentredAdvantage
from optpo.batch import pack
from optpo.errors import SettingsError
from optpo.rollout import Rollout

GRPO = CentredAdvantage()
DR_GRPO = CentredAdvantage(scale="none")
RLOO = CentredAdvantage(centre="leave-one-out", scale="none")

# The dossier's reference set, section 1 (rewards and lengths; values from verl's own functions).
ONE_GROUP = [1, 0, 0, 1, 1, 0, 0, 0]
LENGTHS = [4, 8, 6, 4, 5, 9, 10, 2]
TWO_GROUPS = [[1, 0, 0, 0], [1, 1, 1, 0]]


def batch_of(sizes, lengths=None):
    lengths = iter(lengths or [1 + n % 4 for n in range(sum(sizes))])
    groups = []
    for group, size in enumerate(sizes):
        some = [next(lengths) for _ in range(size)]
        groups.append(
            [Rollout(f"q{group}", n, 0, (1,), (3,) * length, (-1.0,) * length, "stop")
             for n, length in enumerate(some)]
        )  # fmt: skip
    return pack(groups, [0] * len(sizes))


@pytest.mark.parametrize(
    ("advantage", "right", "wrong"),
    [(GRPO, 1.2076, -0.7246), (DR_GRPO, 0.625, -0.375), (RLOO, 0.7143, -0.4286)],
)
def test_one_group_of_the_reference_set(advantage, right, wrong):
    """On 3 right rollouts of 8: the published values of GRPO, Dr.GRPO and RLOO; lengths are naught."""
    batch, rewards = batch_of([8], LENGTHS), torch.tensor(ONE_GROUP, dtype=torch.float64)
    expected = torch.tensor([right if reward else wrong for reward in ONE_GROUP])
    assert torch.allclose(advantage.of_rollouts(batch, rewards).float(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("advantage", "expected"),
    [
        (GRPO, [1.5, -0.5, -0.5, -0.5, 0.5, 0.5, 0.5, -1.5]),
        (RLOO, [1, -1 / 3, -1 / 3, -1 / 3, 1 / 3, 1 / 3, 1 / 3, -1]),
    ],
)
def test_two_groups_of_the_reference_set(advantage, expected):
    """Each group is measured against itself alone: the published values on two groups of four."""
    rewards = torch.tensor(
        [reward for group in TWO_GROUPS for reward in group], dtype=torch.float64
    )
    found = advantage.of_rollouts(batch_of([4, 4], [2, 4, 6, 4, 3, 5, 2, 6]), rewards)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=1e-5)


ragged_rewards = st.lists(
    st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=6), min_size=1, max_size=5
)


@given(
    ragged_rewards,
    st.sampled_from(["mean", "leave-one-out"]),
    st.sampled_from(["std", "none"]),
)
def test_any_group_sizes_equal_a_loop(groups, centre, scale):
    """For groups of any size the advantages are what a loop over rollouts computes."""
    found = CentredAdvantage(centre, scale).of_rollouts(
        batch_of([len(group) for group in groups]),
        torch.tensor([reward for group in groups for reward in group], dtype=torch.float64),
    )
    expected = []
    for group in groups:
        for place, reward in enumerate(group):
            others = group[:place] + group[place + 1 :]
            if not others:
                expected.append(0.0)
                continue
            advantage = reward - np.mean(group if centre == "mean" else others)
            if scale == "std":
                advantage /= np.std(group, ddof=1) + 1e-6
            expected.append(advantage)
    assert np.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("advantage", [GRPO, DR_GRPO, RLOO, CentredAdvantage("leave-one-out")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_to_compare_is_zero(advantage, dtype):
    """A group of one, and a group whose rewards are all equal, have advantage 0."""
    rewards = torch.tensor([1, 0, 0, 0, 1, 1], dtype=dtype)
    found = advantage.of_rollouts(batch_of([1, 3, 2]), rewards)
    assert found.dtype == dtype
    assert found.tolist() == [0] * 6


@given(ragged_rewards, st.floats(-3, 3), st.floats(0.5, 4))
def test_shifting_and_scaling_rewards(groups, shift, factor):
    """A constant added to all rewards changes nothing; a factor scales the unscaled advantage."""
    batch = batch_of([len(group) for group in groups])
    rewards = torch.tensor([reward for group in groups for reward in group], dtype=torch.float64)
    plain = DR_GRPO.of_rollouts(batch, rewards)
    assert torch.allclose(DR_GRPO.of_rollouts(batch, rewards * factor + shift), plain * factor)


def test_every_token_gets_its_rollouts_advantage():
    """Advantages a token repeat the rollout's, end to end; there are no returns, and no critic."""
    batch = batch_of([2, 2], [3, 1, 2, 2])
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0])
    advantages, returns = DR_GRPO(batch, rewards)
    assert returns is None
    assert not DR_GRPO.needs_critic
    assert advantages.tolist() == [0.5, 0.5, 0.5, -0.5, -0.5, -0.5, 0.5, 0.5]


@pytest.mark.parametrize("epsilon", [0, -1e-6])
def test_epsilon_must_be_positive(epsilon):
    """Without a positive epsilon equal rewards would divide nothing by nothing."""
    with pytest.raises(SettingsError, match="epsilon"):
        CentredAdvantage(epsilon=epsilon)
