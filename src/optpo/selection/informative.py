"""Which rollouts are trained on: all that have a reward."""

from dataclasses import dataclass

from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.selection.decided import first_of_group


@dataclass(frozen=True)
class AnySelection:
    """The first `limit` rollouts (0: all) of every question, where they have a reward.

    For advantages whose baseline is not the group's: with those a group of one, and one whose
    rewards are all equal, teaches something. DAPO's dynamic sampling, which drops the latter
    (2503.14476), is `DecidedSelection`.

    Raises SettingsError for a limit below 0.
    """

    limit: int = 0

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise SettingsError([f"limit is {self.limit}; it must be 0 (all rollouts) or more"])

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing beside the rewards."""
        return frozenset()

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Keep mask (R,) bool."""
        return first_of_group(batch, self.limit) & ~rewards.isnan()
