"""What an objective sees of a batch."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenBatch:
    """What an objective sees: whole rollouts, one entry a completion token, (C,) float32 unless said.

    `logp` carries the gradient; `logp_old` is the behaviour policy's, `logp_ref` the reference's
    (none where no part asks for it); `values` (with gradient), `values_old` and `returns` exist where
    a critic does, for the loss that trains it. `rollouts` (C,) int64 says which rollout a token
    belongs to, in order from 0 (none: all are of one), `groups` (R,) int64 which question a rollout
    belongs to (none: all to one).
    `entropies` are those of the policy when the step began, `tokens` (C,) int64 what was sampled, and
    `logits` (C, V), with gradient, what it was sampled from: there where the objective asks for them.
    `head_tokens` (C, K) int64 are the likeliest tokens of the behaviour policy, `head_logps` (C, K) its
    log-probs of them (none: it is the policy itself).
    """

    logp: Tensor
    logp_old: Tensor
    advantages: Tensor
    logp_ref: Tensor | None = None
    values: Tensor | None = None
    values_old: Tensor | None = None
    returns: Tensor | None = None
    rollouts: Tensor | None = None
    groups: Tensor | None = None
    entropies: Tensor | None = None
    tokens: Tensor | None = None
    logits: Tensor | None = None
    head_tokens: Tensor | None = None
    head_logps: Tensor | None = None

    @property
    def token_rollouts(self) -> Tensor:
        """The rollout each token belongs to, (C,) int64."""
        if self.rollouts is not None:
            return self.rollouts
        return torch.zeros(len(self.logp), dtype=torch.int64, device=self.logp.device)

    @property
    def rollout_count(self) -> int:
        """Number of rollouts, R."""
        return int(self.token_rollouts[-1]) + 1 if len(self.logp) else 0

    @property
    def rollout_groups(self) -> Tensor:
        """The question each rollout belongs to, (R,) int64."""
        if self.groups is not None:
            return self.groups
        return torch.zeros(self.rollout_count, dtype=torch.int64, device=self.logp.device)
