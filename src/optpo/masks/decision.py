"""The token by which a policy decides whether to think is left out."""

from dataclasses import dataclass

from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.errors import SettingsError
from optpo.selection.decision_mask import decision_mask


@dataclass(frozen=True)
class DecisionMask:
    """All tokens but those right after a `think_token` (AdaCoT, 2505.11896, selective loss masking).

    Where the data would push the decision to always or never think, the decision itself is not
    taught; all that follows it is.
    """

    think_token: int

    def __post_init__(self) -> None:
        if self.think_token < 0:
            raise SettingsError([f"think_token is {self.think_token}; a token is 0 or more"])

    def __call__(self, batch: RolloutBatch) -> Tensor:
        """Whether the policy learns from a token, (C,) bool."""
        return ~decision_mask(batch, self.think_token)
