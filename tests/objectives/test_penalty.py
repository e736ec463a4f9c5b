"""The pull to the reference: what its estimates estimate, and whose gradient they have."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import SettingsError
from optpo.objectives.penalty import KlPenalty, kl_estimate
from optpo.objectives.token_batch import TokenBatch


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


LOGP = double(0.1, 0.2, 0.3, 0.15, 0.25).log()
LOGP_REF = double(0.3, 0.1, 0.2, 0.25, 0.15).log()


def batch(logp, logp_ref=None):
    zero = torch.zeros_like(logp.detach())
    return TokenBatch(logp, zero + LOGP, zero, logp_ref)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(estimator):
    """Weighted by pi they sum to KL(pi || pi_ref), on a distribution of five tokens."""
    estimate = (LOGP.exp() * kl_estimate(LOGP, LOGP_REF, estimator)).sum()
    assert torch.allclose(estimate, (LOGP.exp() * (LOGP - LOGP_REF)).sum())


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_k3(logp, logp_ref):
    """r - 1 - ln r with r = pi_ref / pi: at least 0, 0 only where the two agree, and near half the
    square of a small difference."""

    def k3(logp, logp_ref):
        return float(kl_estimate(double(logp), double(logp_ref), "k3"))

    ratio = math.exp(logp_ref - logp)
    assert k3(logp, logp_ref) == pytest.approx(ratio - 1 - (logp_ref - logp), abs=1e-9)
    assert k3(logp, logp_ref) >= 0
    assert k3(logp, logp) == 0
    assert k3(logp, logp + 1e-3) == pytest.approx(0.5e-6, rel=1e-2)


def test_what_the_gradients_of_the_estimators_are():
    """Weighted by pi, the gradient by the logits is none for k1, the divergence's for k2, and that of
    the reverse divergence for k3: as losses the three differ."""
    logits = LOGP.clone().requires_grad_()

    def gradient(estimator):
        losses = kl_estimate(logits.log_softmax(0), LOGP_REF, estimator)
        return torch.autograd.grad((LOGP.exp() * losses).sum(), logits)[0]

    divergence = (logits.softmax(0) * (logits.log_softmax(0) - LOGP_REF)).sum()
    exact = torch.autograd.grad(divergence, logits)[0]
    assert torch.allclose(gradient("k1"), torch.zeros(5).double())
    assert torch.allclose(gradient("k2"), exact)
    # d k3 = (1 - r) d logp: pi - pi_ref by the logits, the gradient of KL(pi_ref || pi).
    assert torch.allclose(gradient("k3"), LOGP.exp() - LOGP_REF.exp())


@pytest.mark.parametrize("behaviour", [LOGP, LOGP_REF, LOGP.flip(0)])
@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_a_weighted_penalty_has_the_divergences_gradient(estimator, behaviour):
    """Whatever policy the tokens were sampled from; k2's own is only right on-policy, unweighted."""
    logits = LOGP.clone().requires_grad_()
    zero = torch.zeros_like(LOGP)
    losses, metrics = KlPenalty(1.0, estimator, weighted=True)(
        TokenBatch(logits.log_softmax(0), behaviour, zero, LOGP_REF)
    )
    (gradient,) = torch.autograd.grad((behaviour.exp() * losses).sum(), logits)
    divergence = (logits.softmax(0) * (logits.log_softmax(0) - LOGP_REF)).sum()
    assert torch.allclose(gradient, torch.autograd.grad(divergence, logits)[0])
    assert torch.allclose((behaviour.exp() * metrics["kl"]).sum(), divergence.detach())


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_loss_is_the_coefficient_times_the_estimate(estimator):
    """The metric is the estimate itself and carries no gradient."""
    losses, metrics = KlPenalty(0.3, estimator)(batch(LOGP.clone().requires_grad_(), LOGP_REF))
    estimate = kl_estimate(LOGP, LOGP_REF, estimator)
    assert torch.allclose(losses, 0.3 * estimate)
    assert torch.allclose(metrics["kl"], estimate)
    assert losses.requires_grad
    assert not metrics["kl"].requires_grad


def test_the_reference_is_asked_for_only_where_it_counts():
    """A reference policy costs a forward: it is needed exactly with a coefficient above 0."""
    assert KlPenalty().needs == frozenset()
    assert KlPenalty(1e-3).needs == {"reference"}
    with pytest.raises(ValueError, match="reference"):
        KlPenalty(0.1)(batch(LOGP))


def test_settings_out_of_range_are_refused():
    """The coefficient names itself and its range."""
    with pytest.raises(SettingsError, match="coefficient is -1"):
        KlPenalty(-1)
