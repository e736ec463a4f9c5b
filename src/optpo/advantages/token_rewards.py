"""Rewards a token: the rollout's own on its last one, and what its log-probs add to each."""

import torch
from torch import Tensor

from optpo.batch import RolloutBatch


def token_rewards(
    batch: RolloutBatch,
    rewards: Tensor,
    *,
    kl_coefficient: float = 0.0,
    guide_coefficient: float = 0.0,
    guide_clip: float = 0.0,
) -> Tensor:
    """Rewards a completion token, (C,) in the dtype of `rewards` (R,).

    -kl_coefficient (logp - logp_ref) on every token (PPO-max, 2307.04964, section 3), plus
    guide_coefficient (logp_guide - logp_ref) clipped to +-guide_clip (RTO, 2404.18922, equation
    of its token reward; 0: no clip, as derived there, while its code clips at 0.05), plus the
    rollout's reward on its last token. Without a clip the guide's terms of a rollout sum to the
    implicit reward that DPO gives it.

    Needs token_values["reference"] where a coefficient is above 0, ["guide"] where the guide's is.
    """
    dense = torch.zeros(len(batch.logps), dtype=rewards.dtype)
    if kl_coefficient > 0:
        dense = dense - kl_coefficient * log_ratios(batch, rewards.dtype)
    if guide_coefficient > 0:
        guide, reference = batch.token_values["guide"], batch.token_values["reference"]
        terms = guide_coefficient * (guide - reference).to(rewards.dtype)
        dense = dense + (terms.clamp(-guide_clip, guide_clip) if guide_clip > 0 else terms)
    return dense.index_add(0, batch.completion_offsets[1:] - 1, rewards)


def log_ratios(batch: RolloutBatch, dtype: torch.dtype) -> Tensor:
    """logp - logp_ref a completion token (the estimator k1 of the divergence), (C,)."""
    return (batch.logps - batch.token_values["reference"]).to(dtype)
