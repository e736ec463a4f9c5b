"""The policy as it was before adaptation, for objectives that hold the policy near it."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.training.distributed import ALONE, Processes
from optpo.training.loading import load_policy
from optpo.training.policy import Policy
from optpo.training.settings import RunSettings


def reference_logps(
    settings: RunSettings, policy: Policy, processes: Processes = ALONE
) -> Callable[[RolloutBatch], Tensor] | None:
    """A function that gives the reference's log-probs (C,); none where the objective asks for none.

    An adapted model is its own reference with the adapters off; otherwise the model is loaded again.
    """
    if not settings.objective.needs_reference:
        return None
    if settings.model.lora.rank > 0:
        adapted: Any = policy.model

        def without_adapter(batch: RolloutBatch) -> Tensor:
            with adapted.disable_adapter():
                return policy.score_all(batch, processes)[0]

        return without_adapter
    first = load_policy(settings.model, settings.sample.temperature, policy.pass_tokens)
    return lambda batch: first.score_all(batch, processes)[0]
