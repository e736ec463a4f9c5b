"""Terms that objectives share: estimates of a divergence, and the critic's error."""

import pytest
import torch

from optpo.errors import SettingsError
from optpo.objectives.balanced import BalancedObjective
from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.divergence import DivergenceObjective
from optpo.objectives.heterogeneous import HeterogeneousObjective
from optpo.objectives.terms import kl_estimate
from optpo.objectives.token_batch import TokenBatch
from optpo.objectives.truncated import TruncatedObjective

OBJECTIVES = [
    ClippedObjective,
    TruncatedObjective,
    DivergenceObjective,
    BalancedObjective,
    HeterogeneousObjective,
]


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


LOGP = double(0.1, 0.2, 0.3, 0.15, 0.25).log()
LOGP_REF = double(0.3, 0.1, 0.2, 0.25, 0.15).log()


def batch(logp, **others):
    zero = torch.zeros_like(logp.detach())
    return TokenBatch(logp, zero + LOGP, zero, entropies=zero + 1, **others)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(estimator):
    """Weighted by pi they sum to KL(pi || pi_ref), on a distribution of five tokens."""
    estimate = (LOGP.exp() * kl_estimate(LOGP, LOGP_REF, estimator)).sum()
    assert torch.allclose(estimate, (LOGP.exp() * (LOGP - LOGP_REF)).sum())


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
    objective = ClippedObjective(kl_coefficient=1.0, kl_estimator=estimator, kl_weighted=True)
    zero = torch.zeros_like(LOGP)
    losses, metrics = objective(TokenBatch(logits.log_softmax(0), behaviour, zero, LOGP_REF))
    (gradient,) = torch.autograd.grad((behaviour.exp() * losses).sum(), logits)
    divergence = (logits.softmax(0) * (logits.log_softmax(0) - LOGP_REF)).sum()
    assert torch.allclose(gradient, torch.autograd.grad(divergence, logits)[0])
    assert torch.allclose((behaviour.exp() * metrics["kl"]).sum(), divergence.detach())


@pytest.mark.parametrize("part", OBJECTIVES)
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_every_policy_gradient_takes_the_penalty(part, estimator):
    """With advantages of 0 the loss is the coefficient times the estimate, and nothing at 0."""
    settings = {"kl_coefficient": 0.3, "kl_estimator": estimator}
    losses, metrics = part(**settings)(batch(LOGP, logp_ref=LOGP_REF))
    estimate = kl_estimate(LOGP, LOGP_REF, estimator)
    assert torch.allclose(losses, 0.3 * estimate)
    assert torch.allclose(metrics["kl"], estimate)
    losses, metrics = part()(batch(LOGP, logp_ref=LOGP_REF))
    assert losses.abs().max() == 0
    assert "kl" not in metrics
    assert "reference" in part(**settings).needs
    assert "reference" not in part().needs
    with pytest.raises(ValueError, match="reference"):
        part(**settings)(batch(LOGP))


@pytest.mark.parametrize("part", OBJECTIVES)
def test_every_policy_gradient_trains_the_critic(part):
    """Tokens without a target (not a number) add neither loss nor gradient; those that have one are
    still weighted as tokens of the whole batch."""
    nan = float("nan")
    values = double(0.5, 1.0, 2.0, -1.0, 0.0).requires_grad_()
    critic = {
        "values": values,
        "values_old": double(0.4, 0.0, 1.9, 5.0, 0.0),
        "returns": double(1.0, nan, 2.5, nan, 0.0),
    }
    losses, metrics = part(value_coefficient=2.0)(batch(LOGP, **critic))
    # Half of max((.5 - 1)^2, (.5 - 1)^2), of max((2 - 2.5)^2, (2 - 2.5)^2), and of 0.
    assert torch.allclose(metrics["value_loss"], double(0.125, 0, 0.125, 0, 0))
    assert torch.allclose(losses, double(0.25, 0, 0.25, 0, 0))
    losses.sum().backward()
    assert torch.allclose(values.grad, double(-1, 0, -1, 0, 0))


@pytest.mark.parametrize("part", OBJECTIVES)
@pytest.mark.parametrize(
    "wrong", [{"kl_coefficient": -1}, {"value_coefficient": -1}, {"value_clip": -1}]
)
def test_terms_out_of_range_are_refused(part, wrong):
    """Every objective checks the settings that it shares."""
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        part(**wrong)


@pytest.mark.parametrize("part", OBJECTIVES)
def test_metrics_are_one_a_token_and_carry_no_gradient(part):
    """As the trainer adds them up over tokens."""
    values = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    everything = batch(
        LOGP.clone().requires_grad_(),
        logp_ref=LOGP_REF,
        values=values,
        values_old=values.detach(),
        returns=values.detach(),
    )
    losses, metrics = part(kl_coefficient=0.1)(everything)
    assert losses.requires_grad
    assert {"kl_old", "kl", "value_loss"} <= set(metrics)
    for value in metrics.values():
        assert value.shape == losses.shape
        assert not value.requires_grad
