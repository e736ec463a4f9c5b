"""How a step's rollouts move the policy."""

from dataclasses import dataclass
from typing import Literal

from optpo.errors import SettingsError


@dataclass(frozen=True)
class UpdateSettings:
    """How the gradient is made and applied.

    A step passes `epochs` times over its rollouts, each time in `minibatches` optimiser steps; fewer
    times where the mean of |ratio - 1| over its tokens has come to exceed `most_deviation` (0: never;
    ESPO, 2202.00079). In the first `critic_warmup` steps only the critic learns.
    `pass_tokens` bounds the tokens of one forward pass: memory, not results in exact arithmetic.
    `warmup` optimiser steps raise the learning rate from 0; `decay` cosine lowers it towards 0 at
    the last.

    `sharding` says what each of several processes keeps: "none" is all weights, gradients and
    moments; "full" its part of them, and one whole copy of the weights to sample from. Both take the
    same steps but for rounding; one process keeps all in any case.
    """

    learning_rate: float = 1e-6
    value_learning_rate: float = 1e-3
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    epochs: int = 1
    minibatches: int = 1
    most_deviation: float = 0.0
    critic_warmup: int = 0
    pass_tokens: int = 2048
    warmup: int = 0
    decay: Literal["none", "cosine"] = "none"
    sharding: Literal["none", "full"] = "none"

    def __post_init__(self) -> None:
        checks = {
            f"learning_rate is {self.learning_rate}; it must be above 0": self.learning_rate > 0,
            f"value_learning_rate is {self.value_learning_rate}; it must be above 0": (
                self.value_learning_rate > 0
            ),
            f"weight_decay is {self.weight_decay}; it must be 0 or more": self.weight_decay >= 0,
            f"gradient_clip is {self.gradient_clip}; it must be above 0": self.gradient_clip > 0,
            f"epochs is {self.epochs}; it must be 1 or more": self.epochs >= 1,
            f"minibatches is {self.minibatches}; it must be 1 or more": self.minibatches >= 1,
            f"most_deviation is {self.most_deviation}; it must be 0 (off) or more": (
                self.most_deviation >= 0
            ),
            f"critic_warmup is {self.critic_warmup}; it must be 0 or more": self.critic_warmup >= 0,
            f"pass_tokens is {self.pass_tokens}; it must be 1 or more": self.pass_tokens >= 1,
            f"warmup is {self.warmup}; it must be 0 or more": self.warmup >= 0,
            f"sharding is {self.sharding!r}; it must be 'none' or 'full'": (
                self.sharding in ("none", "full")
            ),
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)
