"""The clipped objective: worked numbers, limits, and gradients against finite differences."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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


def random_batch(seed, tokens=12, spread=0.4, critic=True):
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return torch.randn(tokens, generator=generator, dtype=torch.float64)

    logp_old = -draw().abs()
    return TokenBatch(
        logp=logp_old + spread * draw(),
        logp_old=logp_old,
        advantages=draw(),
        logp_ref=logp_old + spread * draw(),
        values=draw() if critic else None,
        values_old=draw() if critic else None,
        returns=draw() if critic else None,
    )


def with_leaves(batch, logp, values):
    return TokenBatch(
        logp, batch.logp_old, batch.advantages, batch.logp_ref, values, batch.values_old,
        batch.returns,
    )  # fmt: skip


SETTINGS = [
    {},
    {"dual_clip": 1.5, "kl_coefficient": 0.3},
    {"clip_low": 0.05, "clip_high": 0.4, "value_coefficient": 2.0, "value_clip": 0.0},
    {"value_clip": 0.5, "kl_coefficient": 1.0},
]


@pytest.mark.parametrize(("settings", "seed"), list(itertools.product(SETTINGS, range(3))))
def test_gradients_equal_finite_differences(settings, seed):
    """In float64 the gradient by log-probs and by values is the slope of the loss itself."""
    batch, objective = random_batch(seed), ClippedObjective(**settings)

    def total(logp, values):
        return objective(with_leaves(batch, logp, values))[0].sum()

    leaves = (batch.logp.clone().requires_grad_(), batch.values.clone().requires_grad_())
    assert torch.autograd.gradcheck(total, leaves, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"dual_clip": 3.0}, {"clip_low": 0.0, "clip_high": 0.0}])
def test_at_ratio_1_the_gradient_is_minus_the_advantage(settings):
    """On policy, at the first pass, every clip is silent: d loss / d logp = -A; A is held fixed."""
    batch = random_batch(1, critic=False)
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


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_the_penalty_is_k3(logp, logp_ref):
    """The penalty is r - 1 - ln r with r = pi_ref / pi: at least 0, 0 only where the two agree, and
    near half the square of a small difference."""

    def penalty(logp, logp_ref):
        zero = torch.zeros(1, dtype=torch.float64)
        batch = TokenBatch(zero + logp, zero, zero, zero + logp_ref)
        losses, metrics = ClippedObjective(kl_coefficient=0.5)(batch)
        assert float(losses) == pytest.approx(0.5 * float(metrics["kl"]), abs=1e-12)
        return float(metrics["kl"])

    ratio = math.exp(logp_ref - logp)
    assert penalty(logp, logp_ref) == pytest.approx(ratio - 1 - (logp_ref - logp), abs=1e-9)
    assert penalty(logp, logp_ref) >= 0
    assert penalty(logp, logp) == 0
    assert penalty(logp, logp + 1e-3) == pytest.approx(0.5e-6, rel=1e-2)


def test_the_penalty_estimates_the_divergence_without_bias():
    """Weighted by pi, k3 sums to KL(pi || pi_ref) exactly, on a distribution of five tokens."""
    logp = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25], dtype=torch.float64).log()
    logp_ref = torch.tensor([0.3, 0.1, 0.2, 0.25, 0.15], dtype=torch.float64).log()
    zero = torch.zeros(5, dtype=torch.float64)
    _, metrics = ClippedObjective(kl_coefficient=1.0)(TokenBatch(logp, zero, zero, logp_ref))
    divergence = (logp.exp() * (logp - logp_ref)).sum()
    assert torch.allclose((logp.exp() * metrics["kl"]).sum(), divergence)


@pytest.mark.parametrize(
    ("value", "old", "target", "clip", "error"),
    [
        # Half the larger of two squares: of the value, and of the value held near its old one.
        (1.0, 1.0, 3.0, 0.2, 2.0),
        (2.0, 1.0, 3.0, 0.2, 0.5 * 1.8**2),
        (2.0, 1.0, 0.0, 0.2, 2.0),
        (2.0, 1.0, 3.0, 0.0, 0.5),
    ],
)
def test_the_value_loss_by_hand(value, old, target, clip, error):
    """The critic's squared error, clipped around its old values, enters with its coefficient."""
    zero = torch.zeros(1)
    batch = TokenBatch(zero, zero, zero, None, zero + value, zero + old, zero + target)
    losses, metrics = ClippedObjective(value_coefficient=0.3, value_clip=clip)(batch)
    assert float(metrics["value_loss"]) == pytest.approx(error)
    assert float(losses) == pytest.approx(0.3 * error)


def test_metrics_carry_no_gradient():
    """Metrics of a batch with every term are detached, one entry a token."""
    batch = random_batch(2)
    leaves = (batch.logp.clone().requires_grad_(), batch.values.clone().requires_grad_())
    losses, metrics = ClippedObjective(kl_coefficient=0.1)(with_leaves(batch, *leaves))
    assert losses.requires_grad
    assert set(metrics) == {"clip_share", "kl_old", "kl", "value_loss"}
    for value in metrics.values():
        assert value.shape == losses.shape and not value.requires_grad


def test_the_reference_is_asked_for_only_where_it_counts():
    """A reference policy costs a forward: it is needed exactly with a KL coefficient above 0."""
    assert ClippedObjective().needs == frozenset()
    assert ClippedObjective(kl_coefficient=1e-3).needs == {"reference"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"clip_low": -0.1}, {"clip_low": 1.1}, {"clip_high": -1}, {"dual_clip": 1.0},
        {"dual_clip": 0.5}, {"kl_coefficient": -1}, {"value_coefficient": -1}, {"value_clip": -1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    """Each setting names itself and its range."""
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        ClippedObjective(**wrong)
