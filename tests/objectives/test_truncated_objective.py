"""CISPO: the policy gradient with truncated importance weights."""

import pytest
import torch

from optpo.errors import SettingsError
from optpo.objectives.token_batch import TokenBatch
from optpo.objectives.truncated import TruncatedObjective


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        # Ratios .5, 1, 3 and 9, by hand: no lower bound and 5 above; DAPO's clips; both at 1.
        ({}, (0.5, 1, 3, 5)),
        ({"clip_low": 0.2, "clip_high": 0.28}, (0.8, 1, 1.28, 1.28)),
        ({"clip_low": 0.0, "clip_high": 0.0}, (1, 1, 1, 1)),
    ],
)
def test_no_token_loses_its_gradient(settings, weights):
    """The gradient is -clip(w) A for every token, and the loss that times logp."""
    logp = double(-1, -2, -0.5, -0.1).requires_grad_()
    advantages = double(1, -2, 0.5, -1)
    logp_old = logp.detach() - double(0.5, 1, 3, 9).log()
    losses, metrics = TruncatedObjective(**settings)(TokenBatch(logp, logp_old, advantages))
    losses.sum().backward()
    assert torch.allclose(losses, -double(*weights) * advantages * logp)
    assert torch.allclose(logp.grad, -double(*weights) * advantages)
    assert metrics["clip_share"].tolist() == [
        float(weight != ratio) for weight, ratio in zip(weights, (0.5, 1, 3, 9), strict=True)
    ]


@pytest.mark.parametrize("wrong", [{"clip_low": -0.1}, {"clip_low": 1.1}, {"clip_high": -1}])
def test_settings_out_of_range_are_refused(wrong):
    """Each setting names itself and its range."""
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        TruncatedObjective(**wrong)
