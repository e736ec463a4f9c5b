"""How undecided a policy was at each token, beside its other tokens (HAPO, 2509.16591)."""

import torch
from torch import Tensor

LEAST_ENTROPY = 1e-8
"""Below this, in nats, a token counts as decided: its logarithm would dwarf all others."""


def entropy_scale(entropies: Tensor, quantile: float) -> Tensor:
    """Logarithms of the least of the entropies (C,), of that at the quantile, and of the most, (3,)."""
    logarithms = entropies.clamp(min=LEAST_ENTROPY).log().sort().values
    # torch.quantile refuses more than 2^24 tokens; the entry at the quantile's floor is what it gives.
    return logarithms[[0, int(quantile * (len(logarithms) - 1)), -1]]


def entropy_places(entropies: Tensor, scale: Tensor) -> Tensor:
    """Log-entropies from the quantile's on, -1 at the least of the scale (..., 3), 1 at the most.

    The deviation that the paper divides by falls out of that. A side without any spread is 0, and
    what lies beyond the scale is -1 or 1.
    """
    least, pivot, most = scale.unbind(-1)
    apart = entropies.clamp(min=LEAST_ENTROPY).log() - pivot
    tiny = torch.finfo(apart.dtype).tiny
    farthest = torch.where(apart > 0, most - pivot, pivot - least).clamp(min=tiny)
    return (apart / farthest).clamp(-1, 1)
