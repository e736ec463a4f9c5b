"""How much a rollout's vote weighs, in [0, 1]."""

import math
from collections.abc import Callable
from typing import Literal, get_args

from optpo.errors import EngineError
from optpo.rollout import Rollout
from optpo.voting import StoppingRule

VoteWeight = Literal["equal", "likelihood", "brevity"]
"""What a vote's weight is made from: nothing (every vote counts 1), the rollout's log-probs, or its
length."""

Weigh = Callable[[Rollout], float]


def weight_problems(vote_weight: VoteWeight, rule: StoppingRule) -> list[str]:
    """What is wrong with weighing the votes that this rule reads."""
    if vote_weight not in get_args(VoteWeight):
        names = ", ".join(get_args(VoteWeight))
        return [f"vote_weight is {vote_weight!r}; it must be one of {names}"]
    if vote_weight != "equal" and (reason := rule.refuses.get("weights")):
        return [f"vote_weight is {vote_weight!r}, but the allocate part takes no weights: {reason}"]
    return []


def weigh_by(vote_weight: VoteWeight, max_new_tokens: int) -> Weigh | None:
    """The function that weighs a rollout; None where every vote counts 1."""
    if vote_weight == "likelihood":
        return likelihood_weight
    if vote_weight == "brevity":
        return lambda rollout: brevity_weight(rollout, max_new_tokens)
    return None


def likelihood_weight(rollout: Rollout) -> float:
    """The geometric mean probability of its tokens, exp(mean log-prob).

    Recorded log-probs carry rounding that depends on the sampling batch, about 1e-6 of a weight.
    Raises EngineError for a rollout that came without them.
    """
    if not rollout.logps:
        raise EngineError(
            f"rollout {rollout.index} of question {rollout.prompt_id!r} came back without a log-prob "
            "for each token, so vote_weight 'likelihood' cannot weigh it; 'equal' and 'brevity' need "
            "none"
        )
    return min(1.0, math.exp(math.fsum(rollout.logps) / len(rollout.logps)))


def brevity_weight(rollout: Rollout, max_new_tokens: int) -> float:
    """1 for a single token, falling evenly to 1 / max_new_tokens for the longest rollout."""
    return 1 - (len(rollout.tokens) - 1) / max_new_tokens
