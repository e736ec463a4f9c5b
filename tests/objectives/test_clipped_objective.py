"""The clipped objective: worked numbers, limits, and gradients against finite differences."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from optpo.errors import SettingsError
from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.token_batch import TokenBatch


def loss_of(ratio, advantage, **settings):
    batch = TokenBatch(
        logp=torch.tensor([math.log(ratio)], dtype=torch.float64),
        logp_old=torch.zeros(1, dtype=torch.float64),
        advantages=torch.tensor([advantage], dtype=torch.float64),
    )
    losses, metrics = ClippedObjective(**settings)(batch)
    return float(losses), float(metrics["clip_share"])


@pytest.mark.parametrize(
    ("ratio", "advantage", "settings", "loss", "clipped"),
    [
        # -min(w A, clip(w, 0.8, 1.2) A), by hand.
        (1.0, 2.0, {}, -2.0, 0),
        (1.1, 1.0, {}, -1.1, 0),
        (1.5, 1.0, {}, -1.2, 1),
        (0.5, 1.0, {}, -0.5, 0),
        (0.5, -1.0, {}, 0.8, 1),
        (1.5, -1.0, {}, 1.5, 0),
        (1.5, 1.0, {"clip_high": 0.28}, -1.28, 1),
        (0.5, -1.0, {"clip_low": 0.4}, 0.6, 1),
        # The dossier's dual clip: A = -1, w = 5 gives 5 without and 3 with c = 3.
        (5.0, -1.0, {}, 5.0, 0),
        (5.0, -1.0, {"dual_clip": 3.0}, 3.0, 0),
        (2.0, -1.0, {"dual_clip": 3.0}, 2.0, 0),
        (5.0, 1.0, {"dual_clip": 3.0}, -1.2, 1),
    ],
)
def test_clipping_by_hand(ratio, advantage, settings, loss, clipped):
    """Loss and clipped share of one token, on every side of both clips."""
    assert loss_of(ratio, advantage, **settings) == (pytest.approx(loss), clipped)


def random_batch(seed, tokens=12, spread=0.4):
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return torch.randn(tokens, generator=generator, dtype=torch.float64)

    logp_old = -draw().abs()
    return TokenBatch(logp_old + spread * draw(), logp_old, draw())


SETTINGS = [{}, {"dual_clip": 1.5}, {"clip_low": 0.05, "clip_high": 0.4}]


@pytest.mark.parametrize(("settings", "seed"), list(itertools.product(SETTINGS, range(3))))
def test_gradients_equal_finite_differences(settings, seed):
    """In float64 the gradient by log-probs is the slope of the loss itself."""
    batch, objective = random_batch(seed), ClippedObjective(**settings)

    def total(logp):
        return objective(replace(batch, logp=logp))[0].sum()

    leaf = batch.logp.clone().requires_grad_()
    assert torch.autograd.gradcheck(total, leaf, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"dual_clip": 3.0}, {"clip_low": 0.0, "clip_high": 0.0}])
def test_at_ratio_1_the_gradient_is_minus_the_advantage(settings):
    """On policy, at the first pass, every clip is silent: d loss / d logp = -A; A is held fixed."""
    batch = random_batch(1)
    logp = batch.logp_old.clone().requires_grad_()
    losses, metrics = ClippedObjective(**settings)(
        TokenBatch(logp, batch.logp_old, batch.advantages)
    )
    losses.sum().backward()
    assert torch.allclose(losses, -batch.advantages)
    assert metrics["kl_old"].abs().max() == 0
    assert metrics["clip_share"].sum() == 0
    if settings.get("clip_low") != 0.0:
        assert torch.allclose(logp.grad, -batch.advantages)


def test_a_ratio_beyond_single_precision_is_clipped_like_any():
    """exp(100) is infinite in float32: where the clip counts, loss and gradient are finite all the
    same, and its neighbours' too."""
    logp = torch.tensor([100.0, 0.0], requires_grad=True)
    batch = TokenBatch(logp, torch.zeros(2), torch.ones(2))
    losses, _ = ClippedObjective()(batch)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([-1.2, -1.0])
    assert logp.grad.tolist() == [0, -1]


def test_metrics_carry_no_gradient():
    """They are detached, one entry a token."""
    batch = random_batch(2)
    leaf = batch.logp.clone().requires_grad_()
    losses, metrics = ClippedObjective()(replace(batch, logp=leaf))
    assert losses.requires_grad
    assert set(metrics) == {"clip_share", "kl_old"}
    for value in metrics.values():
        assert value.shape == losses.shape and not value.requires_grad


@pytest.mark.parametrize(
    "wrong",
    [
        {"clip_low": -0.1}, {"clip_low": 1.1}, {"clip_high": -1}, {"dual_clip": 1.0},
        {"dual_clip": 0.5},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    """Each setting names itself and its range."""
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        ClippedObjective(**wrong)
