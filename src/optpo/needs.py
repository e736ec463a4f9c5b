"""What a part may ask for beside the rollouts and their rewards."""

from typing import Literal, get_args

Need = Literal[
    "score",
    "greedy",
    "needed",
    "critic",
    "reference",
    "guide",
    "entropy",
    "logits",
    "heads",
    "minibatch",
    "tracked",
    "shortest",
    "quantiles",
    "moments",
    "entropies",
]
"""Each says where the part then finds it.

score: `RolloutBatch.scores`, what a verifier gave. greedy: `question_values["greedy"]`, the score of
the greedy rollout. needed: `question_values["needed"]`, 1 or 0 as the question's column of that name
says, or not a number. critic: `token_values["value"]`, and a value head that is trained. reference and
guide: `token_values["reference"]` and ["guide"], log-probs under the policy before training and
under `model.guide`. entropy: `token_values["entropy"]` of the policy's next-token distribution, in
nats, when the step began. logits: `TokenBatch.logits`. heads: `TokenBatch.head_tokens` and
`head_logps`, as many a token as the objective's `top` says. minibatch: the objective sees all tokens
of an optimiser step at once. tracked, shortest, quantiles and moments: `question_values` that a
memory part keeps (see `optpo.memory`). entropies: what it keeps for `entropy_temperature`, and
`question_values["first mean entropy"]` from the second step on.
"""

MEMORIES: tuple[Need, ...] = ("tracked", "shortest", "quantiles", "moments", "entropies")
"""Needs that a memory part of the same name meets."""

FROM_THE_RUN = frozenset(get_args(Need)) - {*MEMORIES}
"""Needs that every run can meet; any other, those of other packages too, is a memory part's."""
