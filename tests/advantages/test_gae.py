"""Generalised advantage estimation against the recursion of its paper."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.advantages.gae import GaeAdvantage, discounted_sum
from optpo.batch import pack
from optpo.errors import SettingsError
from optpo.rollout import Rollout

lengths_of_segments = st.lists(st.integers(1, 20), min_size=1, max_size=6)


def batch_of(lengths):
    rollouts = [
        Rollout("q", n, 0, (1,), (3,) * length, (-1.0,) * length, "stop")
        for n, length in enumerate(lengths)
    ]
    return pack([rollouts], [0])


def gae_by_loop(rewards, values, lengths, gamma, lam):
    """A_t = delta_t + gamma lam A_{t+1}, from the last token of each rollout to its first."""
    advantages, begin = [], 0
    for length, reward in zip(lengths, rewards, strict=True):
        own, following, backwards = values[begin : begin + length], 0.0, []
        for t in reversed(range(length)):
            next_value = own[t + 1] if t + 1 < length else 0.0
            delta = (reward if t + 1 == length else 0.0) + gamma * next_value - own[t]
            following = delta + gamma * lam * following
            backwards.append(following)
        advantages += backwards[::-1]
        begin += length
    return np.array(advantages)


@given(
    lengths_of_segments,
    st.sampled_from([0.0, 0.9, 0.99, 1.0]),
    st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    st.integers(0, 1000),
)
def test_advantages_equal_the_recursion(lengths, gamma, lam, seed):
    """On rollouts of any lengths the scan by doubling gives the recursion's numbers, and returns
    are advantages plus values."""
    generator = np.random.default_rng(seed)
    values, rewards = generator.normal(size=sum(lengths)), generator.normal(size=len(lengths))
    advantages, returns = GaeAdvantage(gamma, lam, whiten=False)(
        batch_of(lengths), torch.tensor(rewards), torch.tensor(values)
    )
    expected = gae_by_loop(rewards, values, lengths, gamma, lam)
    assert np.allclose(advantages, expected, atol=1e-10)
    assert np.allclose(returns, expected + values, atol=1e-10)


@given(lengths_of_segments, st.floats(0, 1), st.integers(0, 1000))
def test_discounted_sums_equal_a_loop(lengths, discount, seed):
    """Every entry is the sum of its segment's rest, discounted; nothing leaks between segments."""
    values = np.random.default_rng(seed).normal(size=sum(lengths))
    segments = np.repeat(np.arange(len(lengths)), lengths)
    found = discounted_sum(torch.tensor(values), torch.tensor(segments), discount)
    expected = [
        sum(
            discount ** (k - i) * values[k]
            for k in range(i, len(values))
            if segments[k] == segments[i]
        )
        for i in range(len(values))
    ]
    assert np.allclose(found, expected, atol=1e-10)


def test_limits():
    """lam 1 without discount is reward minus value; lam 0 the one-step error; by hand."""
    batch, rewards = batch_of([3]), torch.tensor([1.0])
    values = torch.tensor([0.2, 0.5, 0.4])
    monte_carlo, returns = GaeAdvantage(lam=1, whiten=False)(batch, rewards, values)
    assert torch.allclose(monte_carlo, 1 - values)
    assert torch.allclose(returns, torch.ones(3))
    one_step, _ = GaeAdvantage(lam=0, whiten=False)(batch, rewards, values)
    assert torch.allclose(one_step, torch.tensor([0.3, -0.1, 0.6]))


def test_whitened_advantages_have_mean_0_and_deviation_1():
    """Whitening is over all tokens of the batch, by the unbiased deviation, and leaves returns."""
    batch = batch_of([3, 5, 1])
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(9, generator=generator)
    rewards = torch.randn(3, generator=generator)
    plain, returns = GaeAdvantage(whiten=False)(batch, rewards, values)
    white, white_returns = GaeAdvantage()(batch, rewards, values)
    assert torch.allclose(white, (plain - plain.mean()) / plain.std(), atol=1e-5)
    assert white_returns.equal(returns)
    alone, _ = GaeAdvantage()(batch_of([1]), torch.tensor([2.0]), torch.tensor([0.5]))
    assert alone.tolist() == [1.5]


def test_a_critic_is_needed():
    """Values are asked for by name, and their absence is an error."""
    assert GaeAdvantage().needs_critic
    with pytest.raises(ValueError, match="critic"):
        GaeAdvantage()(batch_of([1]), torch.tensor([1.0]))


def test_settings_out_of_range_are_named():
    """All that is wrong is said at once."""
    with pytest.raises(SettingsError) as caught:
        GaeAdvantage(gamma=1.1, lam=-0.1)
    assert len(caught.value.problems) == 2
