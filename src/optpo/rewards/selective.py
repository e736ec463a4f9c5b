"""Selective labels: a positive one only where the vote is clear, negative ones for stray answers."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, segment_mean
from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.rewards.vote_counts import count_votes


@dataclass(frozen=True)
class SelectiveReward:
    """SCRL's reward (2603.19880; from its published code, whose run script sets the thresholds).

    The leader is a positive label if its share p1 is at least `positive_share` and p1 - p2 above
    `margin`. Negative labels are the other answers whose share is below `negative_share` and whose
    rollouts are less sure than average: an answer's entropy is the mean over its rollouts of their
    mean next-token entropy, and it must be no lower than that mean over all the question's rollouts.
    Shares are of all votes, unparsed ones included. The question's verdict is not read.

    `form` "binary": 1 for the positive label, -1 for a negative one, 0 for others. "continuous" (the
    script's): p for the positive label, -(negative_share - p) for a negative one, and for every
    rollout less `entropy_weight` times its answer's entropy above the question's. (A comment in that
    code subtracts positive_share from p; the code does not.) Unparsed rollouts get -1 in both.
    `others` "none" gives the rollouts with neither label no reward instead.

    Raises SettingsError for shares outside 0..1 or a negative weight.
    """

    positive_share: float = 0.375
    margin: float = 0.125
    negative_share: float = 0.125
    form: Literal["binary", "continuous"] = "binary"
    entropy_weight: float = 0.1
    others: Literal["zero", "none"] = "zero"

    needs: ClassVar[frozenset[Need]] = frozenset({"entropy"})

    def __post_init__(self) -> None:
        shares = {
            "positive_share": self.positive_share,
            "margin": self.margin,
            "negative_share": self.negative_share,
        }
        problems = [
            f"{name} is {value}; it must lie between 0 and 1"
            for name, value in shares.items()
            if not 0 <= value <= 1
        ]
        if not 0 <= self.entropy_weight < float("inf"):
            problems.append(f"entropy_weight is {self.entropy_weight}; it must be 0 or more")
        if problems:
            raise SettingsError(problems)

    def __call__(self, batch: RolloutBatch) -> Tensor:
        """Rewards (R,) float32."""
        votes, groups = count_votes(batch), batch.groups
        parsed = votes.classes >= 0
        entropies = segment_mean(
            batch.token_values["entropy"].double(), batch.token_rollouts, batch.rollouts
        )
        average = segment_mean(entropies, groups, batch.group_count)
        of_class = segment_mean(entropies[parsed], votes.classes[parsed], len(votes.votes))
        unsure = of_class - average[votes.class_groups]
        # Counts are compared, not rounded shares: 4 of 32 are not fewer than an eighth.
        totals = votes.totals[votes.class_groups].double()
        first, second = votes.highest(2)[votes.class_groups].double().unbind(1)
        clear = (first >= self.positive_share * totals) & (first - second > self.margin * totals)
        positive = clear & (votes.votes == first)
        # Where all rollouts are equally sure, rounding must not decide.
        negative = ~positive & (votes.votes < self.negative_share * totals) & (unsure >= -1e-12)
        share = votes.votes / totals
        if self.form == "binary":
            rewards = positive.double() - negative.double()
        else:
            rewards = torch.where(positive, share, 0.0)
            rewards = torch.where(negative, share - self.negative_share, rewards)
            rewards = rewards - self.entropy_weight * unsure
        if self.others == "none":
            rewards = torch.where(positive | negative, rewards, torch.nan)
        return torch.where(parsed, votes.of_rollouts(rewards), -1.0).float()
