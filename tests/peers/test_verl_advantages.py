"""Our advantages against verl's own estimators."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from optpo.advantages.centred import CentredAdvantage
from optpo.advantages.gae import GaeAdvantage
from tests.peers.groups import grouped

core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")


def assert_same(case, advantage, name, *, unlike_alone=False, **arguments):
    """Ours of every token is verl's; `unlike_alone`: but for the rollouts of groups of one."""
    mine, _ = advantage(case.batch, case.rewards)
    theirs, _ = core_algos.get_adv_estimator_fn(name)(
        token_level_rewards=case.token_rewards, response_mask=case.mask, **arguments
    )
    theirs = case.flat(theirs)
    if unlike_alone:
        peers = (case.batch.groups.bincount() > 1)[case.batch.groups][case.batch.token_rollouts]
        mine, theirs = mine[peers], theirs[peers]
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)


@given(grouped(), st.booleans())
def test_grpo_and_dr_grpo(case, by_deviation):
    """Groups of any size; of a group of one verl takes the reward itself."""
    advantage = CentredAdvantage(scale="std" if by_deviation else "none", singleton="reward")
    arguments = {"index": case.index, "norm_adv_by_std_in_grpo": by_deviation}
    # verl calls the singleton's deviation 1 and adds its epsilon to that as well.
    assert_same(case, advantage, "grpo", unlike_alone=by_deviation, **arguments)


@given(grouped(), st.booleans())
def test_vectorised_grpo(case, by_deviation):
    """verl's other implementation of the same."""
    advantage = CentredAdvantage(scale="std" if by_deviation else "none", singleton="reward")
    arguments = {"index": case.index, "norm_adv_by_std_in_grpo": by_deviation}
    assert_same(case, advantage, "grpo_vectorized", unlike_alone=by_deviation, **arguments)


@given(grouped())
def test_rloo(case):
    """Leave one out: of a group of one verl takes the reward, and its vectorised form 0."""
    arguments = {"index": case.index}
    settings = {"centre": "leave-one-out", "scale": "none"}
    assert_same(case, CentredAdvantage(**settings, singleton="reward"), "rloo", **arguments)
    assert_same(case, CentredAdvantage(**settings), "rloo_vectorized", **arguments)


@given(grouped())
def test_opo(case):
    """A baseline weighed by lengths."""
    advantage = CentredAdvantage(centre="token-mean", scale="none", singleton="reward")
    assert_same(case, advantage, "opo", index=case.index)


@given(grouped(), st.sampled_from([1.0, 0.9]))
def test_reinforce_plus_plus(case, gamma):
    """Returns whitened over all tokens of the batch."""
    advantage = CentredAdvantage(centre="none", scale="batch-tokens", gamma=gamma, epsilon=1e-8)
    assume(gamma < 1 or len(set(case.rewards.tolist())) > 1)
    assert_same(case, advantage, "reinforce_plus_plus", config=SimpleNamespace(gamma=gamma))


@given(grouped())
def test_reinforce_plus_plus_with_a_baseline(case):
    """Relative to the group's mean, then whitened over all tokens of the batch. Where all are equal
    verl divides the rounding of their mean by the root of 1e-8; ours are exactly 0."""
    of_tokens = case.rewards[case.batch.token_rollouts]
    assume(bool((of_tokens != of_tokens[0]).any()))
    advantage = CentredAdvantage(
        centre="mean", scale="batch-tokens", epsilon=1e-8, singleton="reward"
    )
    assert_same(case, advantage, "reinforce_plus_plus_baseline", index=case.index)


@given(grouped())
def test_remax(case):
    """Relative to the greedy rollout of the same question."""
    greedy = case.batch.question_values["greedy"][case.batch.groups]
    advantage = CentredAdvantage(centre="greedy", scale="none")
    assert_same(case, advantage, "remax", reward_baselines=greedy)


@given(grouped(), st.sampled_from([1.0, 0.9]), st.sampled_from([1.0, 0.95, 0.0]))
def test_gae(case, gamma, lam):
    """Advantages, whitened over the batch's tokens, and returns."""
    values = case.batch.token_values["value"]
    mine, returns = GaeAdvantage(gamma=gamma, lam=lam)(case.batch, case.rewards)
    # In verl's table what lies behind the end must not be read as a value.
    theirs, their_returns = core_algos.get_adv_estimator_fn("gae")(
        case.token_rewards, case.pad(values), case.mask, gamma, lam
    )
    torch.testing.assert_close(mine, case.flat(theirs), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(returns, case.flat(their_returns), rtol=1e-6, atol=1e-6)
