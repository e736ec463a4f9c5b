"""The majority reward."""

import torch

from optpo.batch import pack
from optpo.rewards.majority import MajorityReward
from optpo.rollout import Rollout


def test_agreement_with_the_label_is_worth_1():
    """Agreeing rollouts get 1, others and unparsed ones 0; an undecided question has no reward,
    also where its rollouts are unparsed as the missing label is."""
    votes, labels = [[0, 1, 0, -1], [1], [-1, 0], [-1]], [0, 1, -1, 2]
    groups = [
        [Rollout("q", n, 0, (1,), (3,), (-1.0,), "stop", vote=vote) for n, vote in enumerate(some)]
        for some in votes
    ]
    rewards = MajorityReward()(pack(groups, labels))
    assert rewards.dtype == torch.float32
    expected = torch.tensor([1, 0, 1, 0, 1, torch.nan, torch.nan, 0])
    assert rewards.nan_to_num(9).equal(expected.nan_to_num(9))
