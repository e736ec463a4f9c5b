"""Generalised advantage estimation against the recursion of its paper."""

import numpy as np
import pytest
import torch
from advantage_batches import batch_of, doubles
from hypothesis import given
from hypothesis import strategies as st

from optpo.advantages.gae import GaeAdvantage, discounted_sum, generalised_advantages
from optpo.errors import SettingsError

lengths_of_segments = st.lists(st.integers(1, 20), min_size=1, max_size=6)


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
        batch_of([len(lengths)], lengths, value=torch.tensor(values)), torch.tensor(rewards)
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
    values, rewards = torch.tensor([0.2, 0.5, 0.4]), torch.tensor([1.0])
    batch = batch_of([1], [3], value=values)
    monte_carlo, returns = GaeAdvantage(lam=1, whiten=False)(batch, rewards)
    assert torch.allclose(monte_carlo, 1 - values)
    assert torch.allclose(returns, torch.ones(3))
    one_step, _ = GaeAdvantage(lam=0, whiten=False)(batch, rewards)
    assert torch.allclose(one_step, torch.tensor([0.3, -0.1, 0.6]))


def test_whitened_advantages_have_mean_0_and_deviation_1():
    """Whitening is over all tokens of the batch, by the unbiased deviation, and leaves returns."""
    generator = torch.Generator().manual_seed(0)
    batch = batch_of([3], [3, 5, 1], value=torch.randn(9, generator=generator))
    rewards = torch.randn(3, generator=generator)
    plain, returns = GaeAdvantage(whiten=False)(batch, rewards)
    white, white_returns = GaeAdvantage()(batch, rewards)
    assert torch.allclose(white, (plain - plain.mean()) / plain.std(), atol=1e-5)
    assert white_returns.equal(returns)
    alone, _ = GaeAdvantage()(batch_of([1], [1], value=torch.tensor([0.5])), torch.tensor([2.0]))
    assert alone.tolist() == [1.5]


def test_equal_advantages_whiten_to_nothing():
    """No rounding error is taken for a signal."""
    batch = batch_of([7], [1] * 7, value=torch.full((7,), 0.3))
    found, _ = GaeAdvantage()(batch, torch.ones(7))
    assert found.tolist() == [0] * 7


def test_needs():
    """A critic always, and what the rewards a token are made of."""
    assert GaeAdvantage().needs == {"critic"}
    assert GaeAdvantage(kl_coefficient=0.1).needs == {"critic", "reference"}
    assert GaeAdvantage(guide_coefficient=0.1).needs == {"critic", "reference", "guide"}


def test_settings_out_of_range_are_named():
    """All that is wrong is said at once."""
    with pytest.raises(SettingsError) as caught:
        GaeAdvantage(gamma=1.1, lam=-0.1, kl_coefficient=-1, guide_clip=-1, action_token=-1)
    assert len(caught.value.problems) == 5


CUT_VALUES = doubles(0.30, 0.40, 0.35, 0.55, 0.50)


@pytest.mark.parametrize(
    ("lam", "expected"),
    [
        (0.95, [0.1901, 0.0949, 0.1525, -0.05, 0]),
        (1.0, [0.2, 0.1, 0.15, -0.05, 0]),
        (0.0, [0.1, -0.05, 0.2, -0.05, 0]),
    ],
)
def test_an_unfinished_rollout_holds_its_last_value(lam, expected):
    """EGAE of T-PPO: its worked numbers, for the rollout that was cut and for no other."""
    values = torch.cat([CUT_VALUES, CUT_VALUES])
    batch = batch_of([2], [5, 5], unfinished=[0], value=values)
    advantage = GaeAdvantage(lam=lam, whiten=False, cut="hold")
    found, returns = advantage(batch, doubles(torch.nan, 1))
    assert torch.allclose(found[:5], doubles(*expected), atol=1e-4)
    finished = batch_of([1], [5], value=CUT_VALUES)
    plain, plain_returns = GaeAdvantage(lam=lam, whiten=False)(finished, doubles(1))
    assert found[5:].equal(plain)
    assert returns[:5].isnan().all()
    assert returns[5:].equal(plain_returns)


def test_other_ways_to_cut():
    """A cut taken for an end, a next value that is known, and a finished rollout."""
    batch = batch_of([1], [5], unfinished=[0], value=CUT_VALUES)
    ended, returns = GaeAdvantage(whiten=False)(batch, doubles(0))
    assert torch.allclose(ended, doubles(-0.2171, -0.3338, -0.2987, -0.525, -0.5), atol=1e-4)
    assert not returns.isnan().any()
    finished, _ = GaeAdvantage(whiten=False)(batch, doubles(1))
    assert torch.allclose(finished, doubles(0.5974, 0.5236, 0.6038, 0.425, 0.5), atol=1e-4)
    known = generalised_advantages(
        torch.zeros(5, dtype=torch.float64), CUT_VALUES, torch.zeros(5, dtype=torch.int64),
        torch.ones(5, dtype=torch.float64), 0.95, final_values=doubles(0.8),
    )  # fmt: skip
    assert torch.allclose(known, doubles(0.4345, 0.3521, 0.4232, 0.235, 0.3), atol=1e-4)


def test_a_constant_critic_tells_nothing_before_the_end():
    """Where all values are equal the advantages of an unfinished rollout vanish."""
    batch = batch_of([1], [6], unfinished=[0], value=torch.full((6,), 0.4))
    found, _ = GaeAdvantage(whiten=False, cut="hold")(batch, torch.zeros(1))
    assert found.tolist() == [0] * 6


@pytest.mark.parametrize(
    ("inside", "lam", "advantages", "returns"),
    [
        (1.0, 0.95, [0.5693, 0.5466, 0.4175, 0.385, 0.3], None),
        (0.95, 0.95, [0.4491, 0.4616, 0.3730, 0.3358, 0.3], None),
        (1.0, 1.0, None, [0.95, 0.95, 0.95, 1, 1]),
        (0.95, 1.0, None, [0.8145, 0.8574, 0.9025, 0.95, 1]),
    ],
)
def test_discounts_a_token(inside, lam, advantages, returns):
    """POAD discounts between actions alone, its naive rival inside them too: published numbers."""
    values = doubles(0.3, 0.35, 0.5, 0.6, 0.7)
    found = generalised_advantages(
        doubles(0, 0, 0, 0, 1), values, torch.zeros(5, dtype=torch.int64),
        doubles(inside, inside, 0.95, inside, 0.95), lam,
    )  # fmt: skip
    if advantages:
        assert torch.allclose(found, doubles(*advantages), atol=1e-4)
    if returns:
        assert torch.allclose(found + values, doubles(*returns), atol=1e-4)


def test_actions_end_at_a_token():
    """With action_token the discounts are POAD's; every token an action, or no discount: GAE."""
    values = doubles(0.3, 0.35, 0.5, 0.6, 0.7)
    batch = batch_of([1], tokens=[[5, 5, 9, 5, 5]], value=values)
    found, _ = GaeAdvantage(0.95, whiten=False, action_token=9)(batch, doubles(1))
    assert torch.allclose(found, doubles(0.5693, 0.5466, 0.4175, 0.385, 0.3), atol=1e-4)
    single = batch_of([1], tokens=[[9, 9, 9, 9, 9]], value=values)
    plain, _ = GaeAdvantage(0.95, whiten=False)(single, doubles(1))
    assert GaeAdvantage(0.95, whiten=False, action_token=9)(single, doubles(1))[0].equal(plain)
    undiscounted = GaeAdvantage(whiten=False)(batch, doubles(1))[0]
    assert GaeAdvantage(whiten=False, action_token=9)(batch, doubles(1))[0].equal(undiscounted)


def test_monte_carlo_returns():
    """The critic may be taught the discounted rewards themselves; advantages do not change."""
    batch = batch_of([2], [2, 3], value=torch.rand(5), reference=torch.full((5,), -1.5))
    settings = {"gamma": 0.9, "whiten": False, "kl_coefficient": 0.2}
    advantages, returns = GaeAdvantage(returns="monte-carlo", **settings)(batch, doubles(1, 0))
    assert torch.allclose(returns, doubles(0.71, 0.9, -0.271, -0.19, -0.1), atol=1e-6)
    assert advantages.equal(GaeAdvantage(**settings)(batch, doubles(1, 0))[0])


def test_rewards_of_ppo_max():
    """A clipped score .8 and divergence terms: the worked advantages."""
    logps, ratios = doubles(-1, -1, -1, -1), doubles(0.02, 0.01, -0.03, 0.05)
    batch = batch_of(
        [1], [4], logps=logps, reference=logps - ratios, value=doubles(0.1, 0.2, 0.4, 0.5)
    )
    found, _ = GaeAdvantage(whiten=False, kl_coefficient=0.05)(batch, doubles(0.8))
    assert torch.allclose(found, doubles(0.6352, 0.5644, 0.3841, 0.2975), atol=1e-4)


def test_rewards_of_rto():
    """A guide's log-ratios as dense reward: the worked advantages."""
    batch = batch_of(
        [1], [4], logps=doubles(-1.1, -0.9, -2.2, -0.35), guide=doubles(-1, -0.8, -2, -0.3),
        reference=doubles(-1.2, -0.7, -2.5, -0.3), value=torch.full((4,), 0.3),
    )  # fmt: skip
    advantage = GaeAdvantage(
        whiten=False, kl_coefficient=0.01, guide_coefficient=0.05, guide_clip=0.05
    )
    found, _ = advantage(batch, doubles(0.4))
    assert torch.allclose(found, doubles(0.1122, 0.1086, 0.1175, 0.1005), atol=1e-4)
