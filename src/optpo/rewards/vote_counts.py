"""Votes by answer class within each group, counted for all groups at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, segment_sum


@dataclass(frozen=True)
class VoteCounts:
    """How the votes of a batch fell; an unparsed vote is counted, but for no class.

    Shapes: R rollouts, G groups, K pairs of a group and an answer class that occurs in it.
    `classes` (R,) int64, the pair a rollout voted for, -1 unparsed; `votes` (K,) int64, the counted
    votes of each pair; `class_groups` (K,) int64; `totals` (G,) int64, all counted votes of a group,
    unparsed ones too.
    """

    classes: Tensor
    votes: Tensor
    class_groups: Tensor
    totals: Tensor

    def own(self) -> Tensor:
        """The votes for each rollout's own answer, (R,) int64; 0 for an unparsed one."""
        return self.of_rollouts(self.votes)

    def of_rollouts(self, values: Tensor) -> Tensor:
        """The value (K,) of each rollout's class, (R,); 0 for an unparsed one."""
        padded = torch.cat([values, values.new_zeros(1)])
        return padded[self.classes]

    def highest(self, places: int) -> Tensor:
        """The votes of each group's largest classes, most first, (G, places) int64; 0 for none."""
        order = self.votes.argsort(descending=True, stable=True)
        order = order[self.class_groups[order].argsort(stable=True)]
        groups = self.class_groups[order]
        sizes = segment_sum(torch.ones_like(groups), groups, len(self.totals))
        place = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[groups]
        among = place < places
        highest = torch.zeros((len(self.totals), places), dtype=torch.int64)
        highest[groups[among], place[among]] = self.votes[order[among]]
        return highest


def count_votes(batch: RolloutBatch, counted: Tensor | None = None) -> VoteCounts:
    """Count the votes of a batch, or only those where `counted` (R,) bool is true."""
    some = torch.ones_like(batch.votes) if counted is None else counted.long()
    parsed = batch.votes >= 0
    width = int(batch.votes.max().clamp(min=0)) + 1
    pairs, places = torch.unique((batch.groups * width + batch.votes)[parsed], return_inverse=True)
    classes = torch.full_like(batch.votes, -1)
    classes[parsed] = places
    return VoteCounts(
        classes=classes,
        votes=segment_sum(some[parsed], places, len(pairs)),
        class_groups=pairs // width,
        totals=segment_sum(some, batch.groups, batch.group_count),
    )
