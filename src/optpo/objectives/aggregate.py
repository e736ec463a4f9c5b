"""How token losses become one number: a weight a token, fixed before the batch is cut up."""

from typing import Literal

import torch
from torch import Tensor

Aggregate = Literal["token-mean", "sequence-mean-token-mean", "sequence-mean-token-sum"]


def token_weights(lengths: Tensor, aggregate: Aggregate) -> Tensor:
    """Weights (C,) float32 such that the loss is the sum of weight times token loss.

    `lengths` (R,) completion tokens a rollout. Because the weights know the whole batch, the
    gradient does not depend on how it is cut into micro-batches.
    """
    rollouts, tokens = len(lengths), int(lengths.sum())
    if aggregate == "token-mean":
        return torch.full((tokens,), 1 / tokens)
    if aggregate == "sequence-mean-token-sum":
        return torch.full((tokens,), 1 / rollouts)
    return torch.repeat_interleave(1 / (rollouts * lengths.float()), lengths)
