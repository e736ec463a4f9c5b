"""From the rollouts of a step to what they are worth."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, pack, segment_spread, segment_sum
from optpo.rollout import Rollout
from optpo.training.stages import Reward
from optpo.training.visits import Visit

Entropies = Callable[[RolloutBatch], Tensor]
"""Measures the entropy at every completion token, (C,)."""


class Judged(NamedTuple):
    """A step's rollouts end to end, with the reward of each, (R,): not a number where it has none."""

    batch: RolloutBatch
    rewards: Tensor

    @property
    def informative(self) -> Tensor:
        """Questions whose rewards differ, (G,) bool."""
        return self._spread > 0

    @property
    def uniform(self) -> Tensor:
        """Questions with several rewards that are all the same, (G,) bool."""
        batch, given = self.batch, ~self.rewards.isnan()
        counts = segment_sum(given.long(), batch.groups, batch.group_count)
        return (counts > 1) & (self._spread == 0)

    @property
    def _spread(self) -> Tensor:
        batch, given = self.batch, ~self.rewards.isnan()
        return segment_spread(self.rewards[given], batch.groups[given], batch.group_count)


def judge(
    reward: Reward,
    visits: Sequence[Visit],
    entropies: Entropies | None = None,
    goes_on: Tensor | None = None,
) -> Judged:
    """Reward the rollouts of these visits by their votes, scores and, where asked, entropies.

    Where rollouts take several steps, those that go on at the next (R,) bool are the unfinished ones and
    have no reward yet: one that was cut at its limit has ended. Else the ones cut are unfinished.
    """
    groups = [visit.ballot.rollouts for visit in visits]
    scores = [
        score for visit in visits for score in visit.scores or (None,) * len(visit.ballot.rollouts)
    ]
    batch, rewards = _rewarded(reward, visits, groups, scores, entropies)
    if goes_on is None:
        return Judged(batch, rewards)
    return Judged(replace(batch, unfinished=goes_on), rewards.masked_fill(goes_on, torch.nan))


def judge_greedy(
    reward: Reward, visits: Sequence[Visit], entropies: Entropies | None = None
) -> Tensor:
    """Rewards of the greedy rollout of each visit, which did not vote, (G,) float32."""
    groups = [
        [replace(visit.greedy, vote=visit.ballot.classes.classify(visit.greedy.answer))]
        for visit in visits
        if visit.greedy is not None
    ]
    scores = [visit.greedy_score for visit in visits]
    return _rewarded(reward, visits, groups, scores, entropies)[1]


def _rewarded(
    reward: Reward,
    visits: Sequence[Visit],
    groups: Sequence[Sequence[Rollout]],
    scores: Sequence[float | None],
    entropies: Entropies | None,
) -> tuple[RolloutBatch, Tensor]:
    batch = pack(groups, [visit.ballot.label_class for visit in visits])
    given = [torch.nan if score is None else score for score in scores]
    batch = replace(batch, scores=torch.tensor(given, dtype=torch.float32))
    if entropies is not None:
        batch = replace(batch, token_values={"entropy": entropies(batch)})
    return batch, reward(batch)
