"""Random groups of rollouts with rewards, flat and padded."""

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from optpo.batch import RolloutBatch


@dataclass(frozen=True)
class Grouped:
    """A ragged batch and its rewards (R,) float64."""

    batch: RolloutBatch
    rewards: Tensor

    @property
    def mask(self) -> Tensor:
        """Where a padded table (R, longest) holds tokens, float64."""
        places = torch.arange(int(self.batch.lengths.max()))
        return (places < self.batch.lengths[:, None]).double()

    @property
    def token_rewards(self) -> Tensor:
        """A padded table with each reward on its rollout's last token."""
        return torch.zeros_like(self.mask).scatter(
            1, self.batch.lengths[:, None] - 1, self.rewards[:, None]
        )

    @property
    def index(self) -> np.ndarray:
        """The group of each rollout."""
        return self.batch.groups.numpy()

    def pad(self, flat: Tensor) -> Tensor:
        """A padded table of values (C,), 0 in the padding."""
        return torch.zeros_like(self.mask).masked_scatter(self.mask.bool(), flat)

    def flat(self, table: Tensor) -> Tensor:
        """Back from a padded table to (C,)."""
        return table[self.mask.bool()]


@st.composite
def grouped(draw, smallest=1, equal=False, binary=None):
    """1 to 4 groups of `smallest` to 5 rollouts (`equal`: of one size) of 1 to 6 tokens.

    Rewards are 0 and 1 or anything (`binary` none: as drawn).
    """
    size = st.integers(smallest, 5)
    sizes = draw(st.lists(size, min_size=1, max_size=4))
    if equal:
        sizes = [sizes[0]] * len(sizes)
    count = sum(sizes)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    lengths = torch.randint(1, 7, (count,), generator=generator)
    # One rollout of several tokens: of a single token there is no deviation.
    lengths[0] = 6
    rewards = torch.randn(count, generator=generator, dtype=torch.float64)
    if draw(st.booleans()) if binary is None else binary:
        rewards = (rewards > 0).double()
    return Grouped(batch_of(sizes, lengths.tolist(), generator), rewards)


def batch_of(sizes, lengths, generator=None):
    """Groups of these sizes, their rollouts of these lengths; the rest is drawn."""
    generator = generator or torch.Generator().manual_seed(0)
    count, tokens = sum(sizes), sum(lengths)
    lengths = torch.tensor(lengths)
    spans, zero = lengths + 2, torch.zeros(count, dtype=torch.int64)

    def normal(size):
        return torch.randn(size, generator=generator, dtype=torch.float64)

    return RolloutBatch(
        tokens=torch.randint(3, 90, (int(spans.sum()),), generator=generator),
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), spans.cumsum(0)]),
        prompt_lengths=zero + 2,
        groups=torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
        votes=zero,
        labels=torch.zeros(len(sizes), dtype=torch.int64),
        logps=-normal(tokens).abs(),
        versions=zero,
        indices=zero,
        unfinished=zero.bool(),
        scores=torch.full((count,), torch.nan),
        question_values={"greedy": normal(len(sizes))},
        token_values={"value": normal(tokens)},
    )
