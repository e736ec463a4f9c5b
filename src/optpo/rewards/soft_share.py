"""A soft reward: how many of the other rollouts gave the same answer."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.rewards.vote_counts import count_votes
from optpo.selection.decided import first_of_group


@dataclass(frozen=True)
class SoftShareReward:
    """The share of the other votes that agree with a rollout: an estimate of its answer's probability.

    A vote that stops when it is sure stops on a lucky run, so that the leader's share at the stop is
    too high. `correction` says which votes are counted (derived here):

    - "floor": the first `floor` of a question. They are drawn whatever they say, so for the rollouts
      among them the mean reward of answer c is exactly its probability p_c, under any stopping rule
      that has this floor or a higher one. A later rollout exists only because the first votes did
      not settle the question: its reward is too low for a leading answer, and stays so.
    - "last": all but the last vote of a decided question. Exact for the first k - 1 rollouts under a
      rule that decides when an answer has k votes, 3 or more, whatever its cap: the last vote had to
      be the leader's, and those before may have come in any order (Haldane 1945; Girshick,
      Mosteller and Savage 1946). Under other rules it removes a part: with a lead of 3 and
      shares of .6 and .4 the leader's .650 becomes .634; on recorded AIME votes of 11 models the
      leading answer's mean excess went from .051 to .025 (lead 3) and .042 to .027 (Beta .95).
    - "none": all votes.

    A rollout's own vote does not count for itself: it would add (1 - p_c) / n. Unparsed votes are
    votes, but agree with nothing, not with each other either. Without another counted vote there is no
    reward. `undecided` "soft" rewards the rollouts of questions without a label all the same, "none"
    leaves them without reward.

    Raises SettingsError for a floor below 2, under which a rollout has no other vote.
    """

    correction: Literal["floor", "last", "none"] = "last"
    floor: int = 8
    undecided: Literal["soft", "none"] = "soft"

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        if self.floor < 2:
            raise SettingsError([f"floor is {self.floor}; it must be 2 votes or more"])

    def __call__(self, batch: RolloutBatch) -> Tensor:
        """Rewards (R,) float32 in [0, 1]."""
        counted = self._counted(batch)
        votes = count_votes(batch, counted)
        own = counted.long()
        others = (votes.totals[batch.groups] - own).double()
        agreeing = torch.where(batch.votes >= 0, votes.own() - own, 0)
        shares = torch.where(others > 0, agreeing / others, torch.nan)
        if self.undecided == "none":
            shares = torch.where(batch.labels[batch.groups] >= 0, shares, torch.nan)
        return shares.float()

    def _counted(self, batch: RolloutBatch) -> Tensor:
        if self.correction == "floor":
            return first_of_group(batch, self.floor)
        counted = torch.ones(batch.rollouts, dtype=torch.bool)
        if self.correction == "last":
            last = torch.ones_like(counted)
            last[:-1] = batch.groups[1:] != batch.groups[:-1]
            counted = ~(last & (batch.labels >= 0)[batch.groups])
        return counted
