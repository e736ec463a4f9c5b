"""What docs/equivalences.md says of conventions that differ, on the smallest case that shows each."""

import math

import pytest
import torch

from optpo.advantages.centred import CentredAdvantage
from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.token_batch import TokenBatch
from tests.peers.groups import Grouped, batch_of
from tests.peers.ragged import Ragged
from tests.peers.test_trl_advantages import grpo_trainer, their_advantages
from tests.peers.test_trl_losses import LONGEST, grpo
from tests.peers.test_verl_losses import core_algos, loss_of


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def one_token(ratio, advantage):
    """A rollout of one token."""
    logp = double(-30.0)
    return Ragged(
        torch.tensor([1]), TokenBatch(logp, logp - math.log(ratio), double(advantage), logp)
    )


def test_only_verl_clips_doubly_unless_told():
    """A = -1 at w = 5: 3 in verl, 5 in TRL and here."""
    case = one_token(5.0, -1.0)
    assert float(case.theirs(loss_of("vanilla", case, "token-mean"))[0]) == pytest.approx(3)
    assert float(case.theirs(grpo(case, loss_type="grpo"))[0]) == pytest.approx(5)
    assert float(case.ours(ClippedObjective())[0]) == pytest.approx(5)


def test_only_verl_holds_log_ratios():
    """At a log-ratio of 25 its gradient is gone; TRL's and ours are what the formula says."""
    case = one_token(math.exp(25), -1.0)
    held, slope = case.theirs(loss_of("vanilla", case, "token-mean", clip_ratio_c=1e30))
    assert float(held) == pytest.approx(math.exp(20))
    assert float(slope) == 0
    for _, free in (case.theirs(grpo(case, loss_type="grpo")), case.ours(ClippedObjective())):
        assert float(free) == pytest.approx(math.exp(25))


def test_groups_of_one():
    """verl gives a rollout without peers its reward, ours 0."""
    case = Grouped(batch_of([1], [2]), double(0.7))
    theirs, _ = core_algos.get_adv_estimator_fn("grpo")(case.token_rewards, case.mask, case.index)
    assert torch.allclose(theirs, double(0.7, 0.7))
    assert CentredAdvantage()(case.batch, case.rewards)[0].tolist() == [0.0, 0.0]


def test_equal_rewards():
    """Ours are exactly 0 where the rounding of a mean is divided by 1e-4 in verl's whitening."""
    case = Grouped(batch_of([3], [2, 2, 2]), double(0.1, 0.1, 0.1))
    mine, _ = CentredAdvantage(scale="batch-tokens")(case.batch, case.rewards)
    assert mine.tolist() == [0.0] * 6
    theirs, _ = core_algos.get_adv_estimator_fn("reinforce_plus_plus_baseline")(
        case.token_rewards, case.mask, case.index
    )
    assert 0 < float(theirs.abs().max()) < 1e-10


def test_what_batch_scale_divides_by():
    """TRL: the deviation of all raw rewards. Ours: that of what is centred by then."""
    case = Grouped(batch_of([2, 2], [1] * 4), double(0, 1, 10, 11))
    with pytest.MonkeyPatch.context() as patch:
        theirs = their_advantages(grpo_trainer, "GRPOTrainer", case, patch, scale_rewards="batch")
    spread = float(case.rewards.std())
    assert torch.allclose(theirs, double(-0.5, 0.5, -0.5, 0.5) / (spread + 1e-4))
    mine = CentredAdvantage(scale="batch").of_rollouts(case.batch, case.rewards)
    assert torch.allclose(mine, double(-1, 1, -1, 1) * math.sqrt(0.75), atol=1e-5)


def test_the_longest_completion():
    """TRL divides by what it allows, verl by the width of its table unless told."""
    case = one_token(1.0, -1.0)
    assert float(case.theirs(grpo(case, loss_type="dr_grpo"))[0]) == pytest.approx(1 / LONGEST)
    told = case.theirs(loss_of("vanilla", case, "constant-length"))[0]
    assert float(told) == pytest.approx(1 / LONGEST)
    width = core_algos.agg_loss(
        torch.ones(1, 4), double(1, 0, 0, 0)[None], "seq-mean-token-sum-norm"
    )
    assert float(width) == pytest.approx(1 / 4)
