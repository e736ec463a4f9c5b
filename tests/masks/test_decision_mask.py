"""The decision to think, left out of the loss."""

import torch

from optpo.batch import pack
from optpo.masks.decision import decision_mask
from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.token_batch import TokenBatch
from optpo.rollout import Rollout

THINK = 7


def batch_of(rollouts):
    return pack(
        [
            [Rollout("q", 0, 0, prompt, tokens, (-1.0,) * len(tokens), "stop")]
            for prompt, tokens in rollouts
        ],
        [0] * len(rollouts),
    )


def test_decisions_follow_the_think_token():
    """The token after it, also after one that ends the prompt, and never across rollouts."""
    batch = batch_of(
        [
            ((1, 2), (THINK, 3, 4)),
            ((1, THINK), (5, 6)),  # the prompt ends in it: the first token decides
            ((1, THINK, 2), (5, THINK)),  # within the prompt, and at the very end
            ((1,), (8, THINK, THINK, 9)),
        ]
    )
    expected = [*(0, 1, 0), *(1, 0), *(0, 0), *(0, 0, 1, 1)]
    assert decision_mask(batch, THINK).long().tolist() == expected


def test_a_masked_decision_has_no_gradient():
    """Advantages masked at the decision: exactly 0 gradient there, that of PPO everywhere else."""
    batch = batch_of([((1,), (THINK, 3, 4)), ((1,), (5, 6))])
    gradients = []
    for keep in (torch.ones(5, dtype=torch.bool), ~decision_mask(batch, THINK)):
        logp = batch.logps.clone().requires_grad_()
        advantages = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0]) * keep
        losses, _ = ClippedObjective()(TokenBatch(logp, batch.logps, advantages))
        losses.sum().backward()
        gradients.append(logp.grad)
    plain, masked = gradients
    assert masked[1] == 0 != plain[1]
    assert masked[[0, 2, 3, 4]].equal(plain[[0, 2, 3, 4]])
