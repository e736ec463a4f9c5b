"""How token losses become one number: a weight a token, fixed before the batch is cut up."""

from typing import Literal

import torch
from torch import Tensor

Aggregate = Literal[
    "token-mean",
    "sequence-mean-token-mean",
    "sequence-mean-token-sum",
    "constant-length",
    "sum",
]


def token_weights(lengths: Tensor, aggregate: Aggregate, longest: int = 0) -> Tensor:
    """Weights (C,) float32 such that the loss is the sum of weight times token loss.

    `lengths` (R,) completion tokens a rollout. Because the weights know the whole batch, the
    gradient does not depend on how it is cut into micro-batches. "constant-length" divides by the
    rollouts times `longest`, the most tokens a completion may have (Dr.GRPO, 2503.20783; 0: the
    longest of these, which differs from batch to batch); "sum" is for objectives that aggregate
    themselves.
    """
    rollouts, tokens = len(lengths), int(lengths.sum())
    if aggregate == "token-mean":
        return torch.full((tokens,), 1 / tokens)
    if aggregate == "sequence-mean-token-sum":
        return torch.full((tokens,), 1 / rollouts)
    if aggregate == "constant-length":
        return torch.full((tokens,), 1 / (rollouts * (longest or int(lengths.max()))))
    if aggregate == "sum":
        return torch.ones(tokens)
    return torch.repeat_interleave(1 / (rollouts * lengths.float()), lengths)
