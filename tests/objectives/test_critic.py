"""The critic's clipped error."""

import pytest
import torch

from optpo.errors import SettingsError
from optpo.objectives.critic import CriticLoss
from optpo.objectives.token_batch import TokenBatch


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def batch(values, old, returns):
    zero = torch.zeros_like(old)
    return TokenBatch(zero, zero, zero, None, values, old, returns)


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
def test_the_loss_by_hand(value, old, target, clip, error):
    """The squared error, clipped around the old values, times the coefficient."""
    losses, metrics = CriticLoss(0.3, clip)(batch(double(value), double(old), double(target)))
    assert float(metrics["value_loss"]) == pytest.approx(error)
    assert float(losses) == pytest.approx(0.3 * error)


def test_tokens_without_a_target_add_nothing():
    """Neither loss nor gradient, where returns are not a number."""
    nan = float("nan")
    values = double(0.5, 1.0, 2.0, -1.0, 0.0).requires_grad_()
    losses, metrics = CriticLoss(2.0)(
        batch(values, double(0.4, 0.0, 1.9, 5.0, 0.0), double(1.0, nan, 2.5, nan, 0.0))
    )
    # Half of max((.5 - 1)^2, (.5 - 1)^2), of max((2 - 2.5)^2, (2 - 2.5)^2), and of 0.
    assert torch.allclose(metrics["value_loss"], double(0.125, 0, 0.125, 0, 0))
    assert torch.allclose(losses, double(0.25, 0, 0.25, 0, 0))
    assert not metrics["value_loss"].requires_grad
    losses.sum().backward()
    assert torch.allclose(values.grad, double(-1, 0, -1, 0, 0))


@pytest.mark.parametrize("missing", range(3))
def test_what_is_missing_is_named(missing):
    """Values, old values and returns are needed together."""
    given = [None if place == missing else double(1.0) for place in range(3)]
    zero = double(0.0)
    with pytest.raises(ValueError, match="critic needs"):
        CriticLoss()(TokenBatch(zero, zero, zero, None, *given))


@pytest.mark.parametrize("wrong", [{"coefficient": -1}, {"clip": -1}])
def test_settings_out_of_range_are_refused(wrong):
    """Each setting names itself and its range."""
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        CriticLoss(**wrong)
