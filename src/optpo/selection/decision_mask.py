"""The tokens at which a rollout decides whether to think."""

import torch
from torch import Tensor

from optpo.batch import RolloutBatch


def decision_mask(batch: RolloutBatch, think_token: int) -> Tensor:
    """Where a completion token comes right after `think_token`, (C,) bool.

    AdaCoT's selective loss masking (2505.11896) gives these tokens no policy loss, so that data
    which always thinks, or never, does not push the decision. The think token may also be the last
    of the prompt: then the first completion token is a decision.
    """
    after = torch.zeros_like(batch.tokens, dtype=torch.bool)
    after[1:] = batch.tokens[:-1] == think_token
    begins = batch.offsets[:-1]
    place = torch.arange(len(batch.tokens)) - torch.repeat_interleave(begins, batch.offsets.diff())
    completion = place >= torch.repeat_interleave(batch.prompt_lengths, batch.offsets.diff())
    return after[completion]
