"""What decides a vote against a server: no more than voting needs, and no torch."""

from dataclasses import dataclass, field

from optpo.data import DataSettings
from optpo.errors import SettingsError
from optpo.sampling.endpoint import Endpoint
from optpo.sampling.engine import SampleSettings
from optpo.sampling.scheduler import Schedule, schedule_problems
from optpo.sampling.weights import VoteWeight, weight_problems
from optpo.voting import OptpoRule, StoppingRule


@dataclass(frozen=True)
class VoteSettings:
    """The settings of `RunSettings` that a vote has a use for, and the server that samples.

    `allocate`, `vote_weight` and `schedule` are as they are there.
    """

    endpoint: Endpoint
    recipe: str = "optpo"
    seed: int = 0
    data: DataSettings = field(default_factory=DataSettings)
    allocate: StoppingRule = field(default_factory=OptpoRule)
    vote_weight: VoteWeight = "equal"
    schedule: Schedule = "waves"
    sample: SampleSettings = field(default_factory=SampleSettings)

    def __post_init__(self) -> None:
        problems = weight_problems(self.vote_weight, self.allocate)
        problems += schedule_problems(self.schedule)
        if problems:
            raise SettingsError(problems)
