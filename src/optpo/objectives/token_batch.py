"""What an objective sees of a batch."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TokenBatch:
    """What an objective sees, all (C,) float32: one entry a completion token.

    `logp` carries the gradient; `logp_old` is the behaviour policy's, `logp_ref` the reference's
    (none where no KL is asked for); `values` (with gradient), `values_old` and `returns` exist
    where a critic does.
    """

    logp: Tensor
    logp_old: Tensor
    advantages: Tensor
    logp_ref: Tensor | None = None
    values: Tensor | None = None
    values_old: Tensor | None = None
    returns: Tensor | None = None
