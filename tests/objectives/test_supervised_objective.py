"""Supervised learning on kept rollouts."""

import torch

from optpo.objectives.supervised import SupervisedObjective
from optpo.objectives.token_batch import TokenBatch


def test_the_loss_is_the_negative_log_prob():
    """Loss and gradient of a token are -logp and -1, whatever advantages and old log-probs say."""
    logp = torch.tensor([-0.5, -2.0, -0.1], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([3.0, -9.0, 0.0], dtype=torch.float64)
    objective = SupervisedObjective()
    losses, metrics = objective(TokenBatch(logp, other, other))
    assert losses.tolist() == [0.5, 2.0, 0.1]
    assert metrics == {}
    assert objective.needs == frozenset()
    assert torch.autograd.gradcheck(lambda some: objective(TokenBatch(some, other, other))[0], logp)
