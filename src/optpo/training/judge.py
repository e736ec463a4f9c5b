"""From the rollouts of a step to what they are worth."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, pack, segment_spread, segment_sum
from optpo.data import Scorer
from optpo.rollout import Rollout
from optpo.sampling.ballot import Ballot
from optpo.training.stages import Reward


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
    scorer: Scorer | None,
    ballots: Sequence[Ballot],
    entropies: Callable[[RolloutBatch], Tensor] | None = None,
    goes_on: Tensor | None = None,
) -> Judged:
    """Score the rollouts where a verifier is asked for, measure entropies where asked, and reward.

    Rollouts that go on at the next step (R,) bool are the unfinished ones, and have no reward yet.
    """
    batch = pack([ballot.rollouts for ballot in ballots], [b.label_class for b in ballots])
    batch = _measured(batch, entropies)
    rollouts = [rollout for ballot in ballots for rollout in ballot.rollouts]
    if goes_on is None or not goes_on.any():
        return Judged(*_rewarded(batch, reward, scorer, rollouts))
    batch = replace(batch, unfinished=goes_on)
    ended = [rollout for rollout, more in zip(rollouts, goes_on.tolist(), strict=True) if not more]
    if scorer is not None and ended:
        scores = torch.full((len(rollouts),), torch.nan)
        scores[~goes_on] = _scores(scorer, ended)
        batch = replace(batch, scores=scores)
    return Judged(batch, reward(batch).masked_fill(goes_on, torch.nan))


def judge_apart(
    reward: Reward,
    scorer: Scorer | None,
    ballots: Sequence[Ballot],
    apart: Sequence[Rollout],
    entropies: Callable[[RolloutBatch], Tensor] | None = None,
) -> Tensor:
    """Rewards of one more rollout a question, which did not vote, (G,) float32."""
    counted = [
        replace(rollout, vote=ballot.classes.classify(rollout.answer))
        for ballot, rollout in zip(ballots, apart, strict=True)
    ]
    batch = pack([[rollout] for rollout in counted], [b.label_class for b in ballots])
    return _rewarded(_measured(batch, entropies), reward, scorer, counted)[1]


def _measured(
    batch: RolloutBatch, entropies: Callable[[RolloutBatch], Tensor] | None
) -> RolloutBatch:
    if entropies is None:
        return batch
    return replace(batch, token_values={"entropy": entropies(batch)})


def _rewarded(
    batch: RolloutBatch, reward: Reward, scorer: Scorer | None, rollouts: Sequence[Rollout]
) -> tuple[RolloutBatch, Tensor]:
    if scorer is not None:
        batch = replace(batch, scores=_scores(scorer, rollouts))
    return batch, reward(batch)


def _scores(scorer: Scorer, rollouts: Sequence[Rollout]) -> Tensor:
    scores = scorer.score(rollouts)
    return torch.tensor(
        [torch.nan if score is None else score for score in scores], dtype=torch.float32
    )
