"""Every answer is a label, weighted by its share of the vote."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, segment_sum
from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.rewards.vote_counts import count_votes


@dataclass(frozen=True)
class ShareWeightReward:
    """RESTRAIN's use of the whole vote (2510.02172), second-hand: only its outline was read.

    From the outline: each answer of a question is taken for its label in turn, and the losses are
    added with weights that grow with the answer's share; where no answer has a consensus all rollouts
    are penalised; questions are weighted by how much they agree. Ours are the forms below, all of them
    settings: the paper's weight functions were not obtained.

    - A rollout's reward is the weight of its answer, share^power, over the sum of these powers in the
      group. That is the mix of labels exactly, for advantages that are linear in rewards (scale none,
      leave-one-out); dividing by the group's deviation would be done label by label in the paper.
    - Where the first share is below `consensus`, every rollout has -`penalty` instead. A constant for
      the whole group: centring on the group removes it, so it acts only with another baseline.
    - `question_power` multiplies all that by the first share to that power; 0 weighs all alike, and a
      scale of std undoes it.

    Unparsed rollouts get 0, or the penalty. Power infinity would be a majority reward.

    Raises SettingsError for a consensus outside 0..1 or negative settings.
    """

    power: float = 1.0
    consensus: float = 0.0
    penalty: float = 1.0
    question_power: float = 0.0

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        amounts = {
            "power": self.power,
            "penalty": self.penalty,
            "question_power": self.question_power,
        }
        problems = [
            f"{name} is {value}; it must be 0 or more"
            for name, value in amounts.items()
            if not 0 <= value < float("inf")
        ]
        if not 0 <= self.consensus <= 1:
            problems.append(f"consensus is {self.consensus}; it must lie between 0 and 1")
        if problems:
            raise SettingsError(problems)

    def __call__(self, batch: RolloutBatch) -> Tensor:
        """Rewards (R,) float32."""
        votes, groups = count_votes(batch), batch.groups
        shares = votes.votes.double() / votes.totals[votes.class_groups]
        powers = shares.pow(self.power)
        sums = segment_sum(powers, votes.class_groups, batch.group_count)
        rewards = votes.of_rollouts(powers / sums[votes.class_groups])
        first = votes.highest(1)[:, 0]
        agreed = (first >= self.consensus * votes.totals)[groups]
        rewards = torch.where(agreed, rewards, -self.penalty)
        importance = (first.double() / votes.totals).pow(self.question_power)
        return (rewards * importance[groups]).float()
