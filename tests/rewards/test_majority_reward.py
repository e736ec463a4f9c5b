"""The majority reward."""

import pytest
import torch

from optpo.errors import SettingsError
from optpo.rewards.majority import MajorityReward
from optpo.rewards.verified import VerifiedReward
from tests.rewards.batches import batch_of

VOTES, LABELS = [[0, 1, 0, -1], [1], [-1, 0], [-1]], [0, 1, -1, 2]


def test_agreement_with_the_label_is_worth_1():
    """Agreeing rollouts get 1, others and unparsed ones 0; an undecided question has no reward,
    also where its rollouts are unparsed as the missing label is."""
    rewards = MajorityReward()(batch_of(VOTES, LABELS))
    assert rewards.dtype == torch.float32
    expected = torch.tensor([1, 0, 1, 0, 1, torch.nan, torch.nan, 0])
    assert rewards.nan_to_num(9).equal(expected.nan_to_num(9))


def test_the_minority_pays_and_so_do_unparsed_answers():
    """With a penalty every rollout that does not agree pays it; an undecided question none."""
    rewards = MajorityReward(minority_penalty=0.5)(batch_of(VOTES, LABELS))
    expected = torch.tensor([1, -0.5, 1, -0.5, 1, torch.nan, torch.nan, -0.5])
    assert rewards.nan_to_num(9).equal(expected.nan_to_num(9))


def test_a_negative_penalty_is_refused():
    """A reward for the minority is no penalty."""
    with pytest.raises(SettingsError, match="minority_penalty is -1"):
        MajorityReward(-1)


def test_a_verified_reward_is_the_score():
    """What the verifier gave, also where it gave nothing; it says that it needs scores."""
    batch = batch_of([[0, 0], [1]])
    assert VerifiedReward()(batch).isnan().all()
    batch.scores[1] = 0.25
    assert VerifiedReward()(batch).nan_to_num(9).tolist() == [9, 0.25, 9]
    assert VerifiedReward().needs == {"score"}
    assert MajorityReward().needs == frozenset()
