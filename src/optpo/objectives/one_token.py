"""Supervised learning as reinforcement learning of one token at a time."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.objectives.aggregate import Aggregate
from optpo.objectives.token_batch import TokenBatch


@dataclass(frozen=True)
class OneTokenObjective:
    """-R(a) log pi(a) of tokens a drawn where a text has x: R = 1 for a = x, else `beta` (2509.26313).

    The draws are from softmax(z / `temperature`) of the policy's logits z. `draws` says how many a
    place (256 in the paper); 0 takes the expectation instead, at the same cost and without variance.
    At temperature 1 and beta 0 that is -sg(pi(x)) log pi(x). Advantages play no part. What is drawn at
    a place follows from `seed`, the place and the tokens of its rollout so far, however a batch is cut.
    """

    draws: int = 0
    temperature: float = 1.3
    beta: float = -0.1
    seed: int = 0
    aggregate: Aggregate = "token-mean"

    needs: ClassVar[frozenset[Need]] = frozenset({"logits"})

    def __post_init__(self) -> None:
        checks = {
            f"draws is {self.draws}; it must be 0 (the expectation) or more": self.draws >= 0,
            f"temperature is {self.temperature}; it must be above 0": self.temperature > 0,
            f"beta is {self.beta}; it must be at most 1": self.beta <= 1,
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses (C,) and token metrics (C,) by name.

        Raises ValueError without logits and tokens.
        """
        if batch.logits is None or batch.tokens is None:
            raise ValueError("drawing tokens needs the logits, and the tokens that were sampled")
        logp = batch.logits.log_softmax(-1)
        drawn_from = (batch.logits.detach() / self.temperature).softmax(-1)
        target = batch.tokens[:, None]
        target_logp = logp.gather(1, target)[:, 0]
        if self.draws == 0:
            hit = drawn_from.gather(1, target)[:, 0]
            of_target = hit * target_logp
            losses = -of_target - self.beta * ((drawn_from * logp).sum(-1) - of_target)
        else:
            uniform = uniforms(batch.tokens, batch.token_rollouts, self.draws, self.seed)
            # A last entry below 1 by rounding would let a draw fall outside of the vocabulary.
            ends = drawn_from.cumsum(-1)
            drawn = torch.searchsorted(ends, uniform.to(ends) * ends[:, -1:], right=True)
            drawn = drawn.clamp(max=ends.shape[1] - 1)
            right = drawn == target
            rewards = torch.where(right, 1.0, self.beta).to(logp)
            losses = -(rewards * logp.gather(1, drawn)).mean(-1)
            hit = right.to(logp).mean(-1)
        return losses, {"hit_share": hit.detach()}


def uniforms(tokens: Tensor, rollouts: Tensor, draws: int, seed: int) -> Tensor:
    """Numbers in [0, 1) for each of (C,) tokens, (C, draws) float64: a hash of the seed, the token's
    place, its rollout's tokens until there, and which draw it is.
    """
    count = torch.arange(len(tokens), device=tokens.device)
    begins = torch.ones_like(rollouts, dtype=torch.bool)
    begins[1:] = rollouts[1:] != rollouts[:-1]
    first = torch.where(begins, count, 0).cummax(0).values
    place = count - first
    letters = _mixed(tokens + (place << 32) + seed * 0x632BE59BD9B4E019 % 2**63)
    sums = letters.cumsum(0)
    prefix = sums - sums[first] + letters[first]
    numbers = _mixed(
        prefix[:, None] + torch.arange(draws, device=tokens.device) * 0x1E3779B97F4A7C15
    )
    return ((numbers >> 11) & (2**53 - 1)).double() / 2**53


def _mixed(numbers: Tensor) -> Tensor:
    """The finaliser of splitmix64 on int64 (any shape): every bit depends on every bit."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        numbers = (numbers ^ ((numbers >> shift) & (2 ** (64 - shift) - 1))) * factor
    return numbers ^ ((numbers >> 31) & (2**33 - 1))
