"""DRPO's objective: weighted right rollouts against the hardest wrong ones."""

import math

import pytest
import torch

from optpo.errors import SettingsError
from optpo.objectives.discriminative import DiscriminativeObjective, soft_maximum
from optpo.objectives.token_batch import TokenBatch


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


WEIGHTS = torch.softmax((1 - double(1000, 2000, 6000) / 8192) / 0.1, 0)
ADVANTAGES = torch.cat([WEIGHTS, -double(1, 1, 1)])
SCORES = double(-0.4, -0.5, -0.6, -0.55, -0.45, -0.7)
LENGTHS = torch.tensor([1, 2, 6, 3, 4, 5])


def rollouts_of(scores, advantages, lengths=None, groups=None, gone=0.0):
    """Rollouts with these mean log-probs, whose tokens differ but for their mean."""
    lengths = torch.ones(len(scores), dtype=torch.int64) if lengths is None else lengths
    rollouts = torch.repeat_interleave(torch.arange(len(scores)), lengths)
    noise = torch.randn(len(rollouts), generator=torch.Generator().manual_seed(0)).double()
    sums = torch.zeros(len(scores)).double().index_add(0, rollouts, noise)
    logp = (scores[rollouts] + noise - (sums / lengths)[rollouts]).requires_grad_()
    return TokenBatch(
        logp, logp.detach() + gone, advantages[rollouts], rollouts=rollouts, groups=groups
    )


def gradient(objective, batch):
    return torch.autograd.grad(objective(batch)[0].sum(), batch.logp)[0]


def by_rollout(batch, slopes):
    return torch.zeros(int(batch.rollouts.max()) + 1).double().index_add(0, batch.rollouts, slopes)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_value_and_gradient_by_scores(lengths):
    """The dossier: objective .14305, and its gradient by the six scores."""
    batch, objective = rollouts_of(SCORES, ADVANTAGES, lengths), DiscriminativeObjective()
    assert float(objective(batch)[0].sum().detach()) == pytest.approx(-0.14305, abs=5e-6)
    expected = double(0.7709, 0.2274, 0.0017, -0.3339, -0.3372, -0.3289)
    assert torch.allclose(by_rollout(batch, -gradient(objective, batch)), expected, atol=5e-5)


def test_the_loss_is_its_true_value():
    """The published code replaces the logarithm by a quotient that is constant: its loss is off by
    about tau and does not tell a good step from a bad one. Ours is what finite differences see."""
    objective = DiscriminativeObjective()
    good, bad = (
        float(objective(rollouts_of(SCORES + shift, ADVANTAGES))[0].sum().detach())
        for shift in (double(1, 1, 1, -1, -1, -1) / 10, double(-1, -1, -1, 1, 1, 1) / 10)
    )
    middle = float(objective(rollouts_of(SCORES, ADVANTAGES))[0].sum().detach())
    assert good < middle < bad
    # Both sides move by .1: the weights sum to 1 and so do the soft maximum's.
    assert bad - good == pytest.approx(0.4)


def test_limits():
    """tau to infinity with equal weights: +-1/n on either side; tau to 0: only the best wrong one."""
    even = torch.cat([double(1, 1, 1) / 3, -double(1, 1, 1)])
    batch = rollouts_of(SCORES, even)
    slopes = gradient(DiscriminativeObjective(tau=1e6), batch)
    assert torch.allclose(-slopes, double(1, 1, 1, -1, -1, -1) / 3, atol=1e-6)
    slopes = gradient(DiscriminativeObjective(tau=1e-3), batch)
    assert torch.allclose(-slopes[3:], double(0, -1, 0), atol=1e-6)


def test_only_questions_with_both_sides_count():
    """All right, all wrong or neutral ones say nothing, and the mean is over the others: the
    published code divides by all."""
    groups = torch.tensor([0] * 6 + [1] * 2 + [2] * 2)
    scores = torch.cat([SCORES, double(-1, -2, -3, -4)])
    advantages = torch.cat([ADVANTAGES, double(1, 1, -1, 0)])
    objective = DiscriminativeObjective()
    batch = rollouts_of(scores, advantages, groups=groups)
    losses, metrics = objective(batch)
    assert float(losses.sum().detach()) == pytest.approx(-0.14305, abs=5e-6)
    assert losses[6:].tolist() == [0.0] * 4
    assert metrics["contrasted_share"].tolist() == [1.0] * 6 + [0.0] * 4
    nothing = rollouts_of(scores[6:], advantages[6:], groups=groups[6:] - 1)
    assert objective(nothing)[0].abs().max() == 0
    assert gradient(objective, nothing).abs().max() == 0


def test_a_right_rollout_is_never_pushed_down():
    """However long: its slope is its weight, at least 0. (Dr.GRPO with a length reward punishes the
    third right one of the dossier's contrast.)"""
    batch = rollouts_of(SCORES, ADVANTAGES, LENGTHS)
    slopes = by_rollout(batch, -gradient(DiscriminativeObjective(), batch))
    assert bool((slopes[:3] > 0).all())
    assert bool((slopes[3:] < 0).all())


@pytest.mark.parametrize(("gone", "price"), [(5e-5, 0.0), (3e-4, 0.2), (1e-2, 9.9)])
def test_the_constraint_costs_only_beyond_its_bound(gone, price):
    """Every token `gone` from the old policy: KL = gone, and sg(max(1000 (KL - 1e-4), 0)) KL is added,
    with the gradient -price / tokens of a token."""
    with_it, without = DiscriminativeObjective(), DiscriminativeObjective(beta=0.0)
    batch = rollouts_of(SCORES, ADVANTAGES, LENGTHS, gone=gone)
    losses, metrics = with_it(batch)
    added = (losses - without(batch)[0]).sum()
    assert float(added.detach()) == pytest.approx(price * gone, abs=1e-12)
    assert float(metrics["kl_price"][0]) == pytest.approx(price, abs=1e-9)
    difference = gradient(with_it, batch) - gradient(without, batch)
    assert torch.allclose(difference, torch.full_like(difference, -price / len(difference)))


def test_the_soft_maximum():
    """tau ln mean exp(v / tau) of each segment, far from overflow; 0 for an empty one."""
    values, segments = double(-0.55, -0.45, -0.7, -900, 800), torch.tensor([0, 0, 0, 2, 2])
    result = soft_maximum(values, segments, 3, 0.5)
    by_hand = 0.5 * math.log(sum(math.exp(v / 0.5) for v in (-0.55, -0.45, -0.7)) / 3)
    assert torch.allclose(result, double(by_hand, 0, 800 - 0.5 * math.log(2)))


@pytest.mark.parametrize(
    "wrong", [{"tau": 0}, {"delta": -1}, {"beta": -1}, {"aggregate": "token-mean"}]
)
def test_settings_out_of_range_are_refused(wrong):
    """Each setting names itself and its range."""
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        DiscriminativeObjective(**wrong)
