"""Rewards a token against the worked numbers of PPO-max and RTO."""

import torch
from advantage_batches import batch_of, doubles

from optpo.advantages.token_rewards import token_rewards

GUIDE = doubles(-1, -0.8, -2, -0.3)
REFERENCE = doubles(-1.2, -0.7, -2.5, -0.3)
POLICY = doubles(-1.1, -0.9, -2.2, -0.35)


def rto_batch():
    return batch_of([1], [4], logps=POLICY, guide=GUIDE, reference=REFERENCE)


def test_the_rollouts_reward_is_on_its_last_token():
    """Without coefficients nothing else is needed; the dtype is that of the rewards."""
    found = token_rewards(batch_of([2, 1], [2, 1, 3]), doubles(1, 2, 3))
    assert found.tolist() == [0, 1, 2, 0, 0, 3]
    assert found.dtype == torch.float64


def test_divergence_of_ppo_max():
    """-eta (logp - logp_ref) a token, and the clipped score on the last."""
    logps = doubles(-1, -1, -1, -1)
    batch = batch_of([1], [4], logps=logps, reference=logps - doubles(0.02, 0.01, -0.03, 0.05))
    found = token_rewards(batch, doubles(0.8), kl_coefficient=0.05)
    assert torch.allclose(found, doubles(-0.001, -0.0005, 0.0015, 0.7975))


def test_dense_reward_of_rto():
    """The dense term, the divergence and their sums equal the worked numbers."""
    dense = token_rewards(rto_batch(), doubles(0), guide_coefficient=0.05)
    assert torch.allclose(dense, doubles(0.010, -0.005, 0.025, 0))
    total = token_rewards(
        rto_batch(), doubles(0.4), kl_coefficient=0.01, guide_coefficient=0.05, guide_clip=0.05
    )
    assert torch.allclose(total, doubles(0.009, -0.003, 0.022, 0.4005))
    assert torch.allclose(total.flip(0).cumsum(0).flip(0), doubles(0.4285, 0.4195, 0.4225, 0.4005))


def test_the_dense_reward_redistributes_the_implicit_one():
    """Without a clip its sum is b1 / beta times DPO's implicit reward; the clip bounds the term."""
    dense = token_rewards(rto_batch(), doubles(0), guide_coefficient=0.05)
    assert torch.isclose(dense.sum(), 0.05 * (GUIDE.sum() - REFERENCE.sum()))
    clipped = token_rewards(rto_batch(), doubles(0), guide_coefficient=0.05, guide_clip=0.008)
    assert torch.allclose(clipped, doubles(0.008, -0.005, 0.008, 0))


def test_a_guide_that_is_the_reference_says_nothing():
    """Then the reward is PPO's."""
    batch = batch_of([1], [4], logps=POLICY, guide=REFERENCE, reference=REFERENCE)
    plain = token_rewards(batch, doubles(1), kl_coefficient=0.1)
    assert token_rewards(batch, doubles(1), kl_coefficient=0.1, guide_coefficient=9).equal(plain)
