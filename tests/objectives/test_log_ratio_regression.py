"""Direct-Advantage DAPO: the log-ratio of a step regressed onto its advantage."""

import pytest
import torch

from optpo.errors import SettingsError
from optpo.objectives.log_ratio_regression import LogRatioRegressionObjective
from optpo.objectives.token_batch import TokenBatch


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


REFERENCE, ADVANTAGES = double(0.5, 0.3, 0.2), double(0.31, -0.19, -0.49)


def expected_loss(probabilities, beta=0.5):
    """The loss of one step of one token, expected under the reference."""
    logp = probabilities.log()
    batch = TokenBatch(logp, logp.detach(), ADVANTAGES, REFERENCE.log())
    losses, _ = LogRatioRegressionObjective(beta=beta)(batch)
    return (REFERENCE * losses).sum()


@pytest.mark.parametrize(
    ("probabilities", "loss"),
    [
        ((0.7422, 0.1867, 0.0711), 0.0143),
        ((0.5, 0.3, 0.2), 0.2138),
        ((0.7684, 0.1696, 0.0621), 0.0181),
    ],
)
def test_the_loss_of_one_state(probabilities, loss):
    """The dossier: at its minimum, at the reference, at the soft-max target."""
    assert float(expected_loss(double(*probabilities))) == pytest.approx(loss, abs=5e-5)


def test_the_minimum_of_one_state():
    """Gradient descent on the logits ends at the dossier's minimiser."""
    logits = REFERENCE.log().clone().requires_grad_()
    for _ in range(3000):
        (slope,) = torch.autograd.grad(expected_loss(logits.softmax(0)), logits)
        logits = (logits - 0.5 * slope).detach().requires_grad_()
    assert torch.allclose(logits.softmax(0), double(0.7422, 0.1867, 0.0711), atol=5e-5)


def test_the_first_step_is_a_policy_gradient():
    """At the reference: -(1 / beta) E[A grad log pi] = (-.31, .114, .196)."""
    logits = REFERENCE.log().clone().requires_grad_()
    (slope,) = torch.autograd.grad(expected_loss(logits.softmax(0)), logits)
    assert torch.allclose(slope, double(-0.31, 0.114, 0.196))


END = 7
TOKENS = torch.tensor([1, END, 2, 3, 4, END, 5, END])
ROLLOUTS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("step_token", "steps"),
    [
        (END, [[0, 1], [2, 3], [4, 5], [6, 7]]),
        (None, [[0], [1], [2], [3], [4], [5], [6], [7]]),
        (99, [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ],
)
def test_steps_end_where_they_are_said_to(step_token, steps):
    """A step's loss is that of its summed log-ratio, spread evenly over its tokens: a literal loop."""
    generator = torch.Generator().manual_seed(0)
    logp, logp_ref, advantages = (
        torch.randn(8, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    objective = LogRatioRegressionObjective(beta=0.7, step_token=step_token)
    batch = TokenBatch(logp, logp, advantages, logp_ref, rollouts=ROLLOUTS, tokens=TOKENS)
    losses, metrics = objective(batch)
    for step in steps:
        error = advantages[step].mean() / 0.7 - (logp - logp_ref)[step].sum()
        expected = torch.full((len(step),), float(error**2 / 2 / len(step))).double()
        assert torch.allclose(losses[step], expected)
        assert torch.allclose(metrics["regression_error"][step], error.abs().expand(len(step)))


def test_what_is_missing_is_named():
    """The reference always; tokens where steps end at one."""
    zero = torch.zeros(1)
    with pytest.raises(ValueError, match="reference"):
        LogRatioRegressionObjective()(TokenBatch(zero, zero, zero))
    with pytest.raises(ValueError, match="tokens"):
        LogRatioRegressionObjective(step_token=3)(TokenBatch(zero, zero, zero, zero))
    assert LogRatioRegressionObjective().needs == {"reference"}


@pytest.mark.parametrize("wrong", [{"beta": 0}, {"step_token": -1}])
def test_settings_out_of_range_are_refused(wrong):
    """Each setting names itself and its range."""
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        LogRatioRegressionObjective(**wrong)
