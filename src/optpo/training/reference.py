"""Models that stay as they are: the policy as it was before training, and a guide."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.errors import ModelError
from optpo.training.distributed import ALONE, Processes
from optpo.training.loading import load_policy
from optpo.training.policy import Policy
from optpo.training.settings import LoraSettings, ModelSettings, RunSettings


def reference_logps(
    settings: RunSettings, policy: Policy, processes: Processes = ALONE
) -> Callable[[RolloutBatch], Tensor] | None:
    """A function that gives the reference's log-probs (C,); none where no part asks for them.

    An adapted model is its own reference with the adapters off; otherwise the model is loaded again.
    """
    if "reference" not in settings.needs:
        return None
    if settings.model.lora.rank > 0:
        adapted: Any = policy.model

        def without_adapter(batch: RolloutBatch) -> Tensor:
            with adapted.disable_adapter():
                return policy.score_all(batch, processes)[0]

        return without_adapter
    return _scores_of(settings.model, settings, policy, processes)


def guide_logps(
    settings: RunSettings, policy: Policy, processes: Processes = ALONE
) -> Callable[[RolloutBatch], Tensor] | None:
    """A function that gives the log-probs (C,) of `model.guide`; none where no part asks for them.

    Raises ModelError where the guide has other tokens than the policy.
    """
    if "guide" not in settings.needs:
        return None
    guide = replace(settings.model, name=settings.model.guide)
    return _scores_of(guide, settings, policy, processes)


def _scores_of(
    model: ModelSettings, settings: RunSettings, policy: Policy, processes: Processes
) -> Callable[[RolloutBatch], Tensor]:
    plain = replace(model, lora=LoraSettings())
    loaded = load_policy(plain, settings.sample.temperature, policy.pass_tokens)
    if loaded.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ModelError(f"{model.name} has other tokens than the model that is trained")
    return lambda batch: loaded.score_all(batch, processes)[0]
