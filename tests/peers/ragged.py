"""Random ragged tokens, flat as ours are and padded as the others' are."""

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from optpo.objectives.aggregate import token_weights
from optpo.objectives.token_batch import TokenBatch


@dataclass(frozen=True)
class Ragged:
    """Rollouts of `lengths` (R,) tokens with a `TokenBatch` of them all, float64."""

    lengths: Tensor
    batch: TokenBatch

    @property
    def mask(self) -> Tensor:
        """Where a padded table (R, longest) holds tokens, float64."""
        places = torch.arange(int(self.lengths.max()))
        return (places < self.lengths[:, None]).double()

    def pad(self, flat: Tensor) -> Tensor:
        """A padded table of values (C,), with numbers in the padding that nothing may read."""
        table = torch.full(self.mask.shape, 0.123, dtype=flat.dtype)
        return table.masked_scatter(self.mask.bool(), flat)

    def ours(self, objective, longest=0, terms=()):
        """Our aggregated loss and what is added to it, and its gradient by the log-probs."""
        logp = self.batch.logp.clone().requires_grad_()
        batch = replace(self.batch, logp=logp)
        losses = sum(part(batch)[0] for part in (objective, *terms))
        weights = token_weights(self.lengths, objective.aggregate, longest)
        loss = (weights * losses).sum()
        return loss.detach(), torch.autograd.grad(loss, logp)[0]

    def theirs(self, loss_of):
        """Another's loss, a function of the padded log-probs, and its gradient, flat."""
        logp = self.pad(self.batch.logp).requires_grad_()
        loss = loss_of(logp)
        (gradient,) = torch.autograd.grad(loss, logp)
        assert not bool((gradient * (1 - self.mask)).any())
        return loss.detach(), gradient[self.mask.bool()]

    def assert_same(self, objective, loss_of, longest=0, value=True, terms=()):
        """Value (unless it says otherwise) and gradient agree to 1e-6."""
        mine, my_slope = self.ours(objective, longest, terms)
        other, other_slope = self.theirs(loss_of)
        if value:
            torch.testing.assert_close(mine, other.double(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(my_slope, other_slope, rtol=1e-6, atol=1e-6)


@st.composite
def ragged(draw, spread=0.4, per_rollout=False):
    """1 to 6 rollouts of 1 to 7 tokens; `per_rollout`: one advantage for all tokens of a rollout."""
    lengths = torch.tensor(draw(st.lists(st.integers(1, 7), min_size=1, max_size=6)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    count = int(lengths.sum())
    rollouts = torch.repeat_interleave(torch.arange(len(lengths)), lengths)

    def normal(size=count):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    logp_old = -normal().abs() - 1e-3
    # Log-probs of tokens: at most 0.
    logp = (logp_old + spread * normal()).clamp(max=-1e-3)
    return Ragged(
        lengths,
        TokenBatch(
            logp,
            logp_old,
            normal(len(lengths))[rollouts] if per_rollout else normal(),
            logp_ref=(logp_old + spread * normal()).clamp(max=-1e-3),
            rollouts=rollouts,
        ),
    )
