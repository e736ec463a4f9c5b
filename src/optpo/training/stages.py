"""What a part must offer to fill a stage; that of the prompts stands beside them."""

from typing import Protocol

from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.needs import Need
from optpo.objectives.aggregate import Aggregate
from optpo.objectives.token_batch import TokenBatch


class Reward(Protocol):
    """What a rollout is worth."""

    @property
    def needs(self) -> frozenset[Need]:
        """What it asks for beside the votes."""
        ...

    def __call__(self, batch: RolloutBatch) -> Tensor:
        """Rewards (R,) float32; not a number where there is none."""
        ...


class Shape(Protocol):
    """What is made of a reward by how long a rollout is, or by what came before it."""

    @property
    def needs(self) -> frozenset[Need]:
        """What it asks for beside the rewards."""
        ...

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Rewards (R,) float32; not a number where there was none."""
        ...


class Selection(Protocol):
    """Which rollouts are trained on."""

    @property
    def needs(self) -> frozenset[Need]:
        """What it asks for beside the rewards."""
        ...

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Keep mask (R,) bool."""
        ...


class Advantage(Protocol):
    """How much better than expected each token's rollout was."""

    @property
    def needs(self) -> frozenset[Need]:
        """What it asks for beside the rewards."""
        ...

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> tuple[Tensor, Tensor | None]:
        """Advantages, and the critic's targets where there is one, (C,) each."""
        ...


class Mask(Protocol):
    """Which tokens teach the policy; the others get advantage 0."""

    def __call__(self, batch: RolloutBatch) -> Tensor:
        """Whether each completion token does, (C,) bool."""
        ...


class Loss(Protocol):
    """A loss a token: an objective's, or one that may be added to any objective's."""

    @property
    def needs(self) -> frozenset[Need]:
        """What it asks for beside ratio and advantages."""
        ...

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses and token metrics, (C,) each."""
        ...


class Objective(Loss, Protocol):
    """A loss a token, and how token losses are weighted."""

    @property
    def aggregate(self) -> Aggregate:
        """How token losses become one number."""
        ...
