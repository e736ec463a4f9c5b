"""Which rollouts are trained on: all with a reward, those that can be compared, or the good ones."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, segment_spread, segment_sum
from optpo.errors import SettingsError
from optpo.needs import Need


@dataclass(frozen=True)
class DecidedSelection:
    """The first `limit` rollouts (0: all) of every question that has rewards, and different ones.

    That is a decided question where the reward is the majority's, and any other where a verifier
    gives it (DAPO's dynamic sampling, 2503.14476, without its refill). The limit takes the first by
    index, so that the choice does not depend on what was drawn. A group whose kept rewards are all
    equal has no group-relative advantage: it costs no update.

    `by` "score" asks for different scores of the verifier, as DAPO does, so that what shaping makes of
    equal scores (a price on length) does not bring a question back; a rollout that has a reward but no
    score, as where votes reward, is still judged by its reward.
    """

    limit: int = 0
    by: Literal["reward", "score"] = "reward"

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        _check(self.limit)

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Keep mask (R,) bool."""
        keep = first_of_group(batch, self.limit) & ~rewards.isnan()
        compared = rewards
        if self.by == "score":
            scores = batch.scores.to(rewards.dtype)
            compared = torch.where(scores.isnan(), rewards, scores)
        spread = segment_spread(compared[keep], batch.groups[keep], batch.group_count)
        return keep & (spread > 0)[batch.groups]


@dataclass(frozen=True)
class AgreeingSelection:
    """The first `limit` rollouts (0: all) of every question whose reward is above 0.

    By votes those are the rollouts that voted for their question's decided label, by a verifier those
    that were scored right.
    """

    limit: int = 0

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        _check(self.limit)

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Keep mask (R,) bool."""
        return first_of_group(batch, self.limit) & (rewards > 0)


@dataclass(frozen=True)
class AnySelection:
    """The first `limit` rollouts (0: all) of every question, where they have a reward.

    For advantages whose baseline is not the group's: with those a group of one, and one whose
    rewards are all equal, teaches something.
    """

    limit: int = 0

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        _check(self.limit)

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Keep mask (R,) bool."""
        return first_of_group(batch, self.limit) & ~rewards.isnan()


def _check(limit: int) -> None:
    if limit < 0:
        raise SettingsError([f"limit is {limit}; it must be 0 (all rollouts) or more"])


def first_of_group(batch: RolloutBatch, limit: int) -> Tensor:
    """The first `limit` rollouts of each group in index order (0: all), (R,) bool."""
    if limit == 0:
        return torch.ones(batch.rollouts, dtype=torch.bool)
    sizes = segment_sum(torch.ones(batch.rollouts), batch.groups, batch.group_count).long()
    place = torch.arange(batch.rollouts) - (sizes.cumsum(0) - sizes)[batch.groups]
    return place < limit
