"""The token by which a policy decides whether to think is left out."""

from dataclasses import dataclass

import torch
from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.errors import SettingsError


@dataclass(frozen=True)
class DecisionMask:
    """All tokens but those right after a `think_token` (AdaCoT, 2505.11896, selective loss masking).

    Where the data would push the decision to always or never think, the decision itself is not
    taught; all that follows it is.
    """

    think_token: int

    def __post_init__(self) -> None:
        if self.think_token < 0:
            raise SettingsError([f"think_token is {self.think_token}; a token is 0 or more"])

    def __call__(self, batch: RolloutBatch) -> Tensor:
        """Whether the policy learns from a token, (C,) bool."""
        return ~decision_mask(batch, self.think_token)


def decision_mask(batch: RolloutBatch, think_token: int) -> Tensor:
    """Where a completion token comes right after `think_token`, (C,) bool.

    The think token may also be the last of the prompt: then the first completion token is a decision.
    """
    after = torch.zeros_like(batch.tokens, dtype=torch.bool)
    after[1:] = batch.tokens[:-1] == think_token
    return after[batch.is_completion]
