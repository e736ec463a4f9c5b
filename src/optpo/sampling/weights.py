"""How much a rollout's vote weighs, in [0, 1]."""

import math
from collections.abc import Callable
from typing import Literal, get_args

from optpo.sampling.engine import Completion
from optpo.voting import StoppingRule

VoteWeight = Literal["equal", "likelihood", "brevity"]
"""What a vote's weight is made from: nothing (every vote counts 1), the rollout's log-probs, or its
length."""

Weigh = Callable[[Completion], float]


def weight_problems(vote_weight: VoteWeight, rule: StoppingRule) -> list[str]:
    """What is wrong with weighing the votes that this rule reads."""
    if vote_weight not in get_args(VoteWeight):
        names = ", ".join(get_args(VoteWeight))
        return [f"vote_weight is {vote_weight!r}; it must be one of {names}"]
    if vote_weight != "equal" and (reason := rule.refuses.get("weights")):
        return [f"vote_weight is {vote_weight!r}, but the allocate part takes no weights: {reason}"]
    return []


def weigh_by(vote_weight: VoteWeight, max_new_tokens: int) -> Weigh | None:
    """The function that weighs a completion; None where every vote counts 1."""
    if vote_weight == "likelihood":
        return likelihood_weight
    if vote_weight == "brevity":
        return lambda completion: brevity_weight(completion, max_new_tokens)
    return None


def likelihood_weight(completion: Completion) -> float:
    """The geometric mean probability of its tokens, exp(mean log-prob).

    Recorded log-probs carry rounding that depends on the sampling batch, about 1e-6 of a weight.
    """
    return min(1.0, math.exp(math.fsum(completion.logps) / len(completion.logps)))


def brevity_weight(completion: Completion, max_new_tokens: int) -> float:
    """1 for a single token, falling evenly to 1 / max_new_tokens for the longest rollout."""
    return 1 - (len(completion.tokens) - 1) / max_new_tokens
