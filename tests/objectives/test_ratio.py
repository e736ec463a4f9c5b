"""Importance ratios of tokens and of rollouts."""

import math

import pytest
import torch

from optpo.objectives.aggregate import token_weights
from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.ratio import mean_ratio_deviation, ratios, run_lengths, sequence_log_ratio
from optpo.objectives.token_batch import TokenBatch

ROLLOUTS = torch.tensor([0, 0, 0, 1, 1, 1, 1])
LENGTHS = torch.tensor([3, 4])


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def gone():
    """Log-ratios whose means over the two rollouts are the dossier's .0667 and -.075."""
    return double(0.1, -0.1, 0.2, -0.1, -0.2, 0.1, -0.1)


@pytest.mark.parametrize(
    ("clip_low", "clip_high", "loss", "slopes"),
    [
        # The dossier: GSPO with wide clips; with the paper's narrow ones both rollouts are clipped.
        (0.2, 0.28, -0.0706, (-0.1782, 0.1160)),
        (3e-4, 4e-4, -0.00035, (0.0, 0.0)),
    ],
)
def test_the_sequence_ratio_is_gspo(gone, clip_low, clip_high, loss, slopes):
    """s = [1.0689, .9277] with A = [1, -1]: loss and gradients a token as in the dossier."""
    logp = gone.clone().requires_grad_()
    advantages = double(1, -1)[ROLLOUTS]
    objective = ClippedObjective(
        ratio="sequence",
        clip_low=clip_low,
        clip_high=clip_high,
        aggregate="sequence-mean-token-mean",
    )
    batch = TokenBatch(logp, torch.zeros(7).double(), advantages, rollouts=ROLLOUTS)
    losses, _ = objective(batch)
    total = (token_weights(LENGTHS, objective.aggregate) * losses).sum()
    total.backward()
    assert float(total.detach()) == pytest.approx(loss, abs=5e-5)
    assert torch.allclose(logp.grad, double(*slopes)[ROLLOUTS], atol=5e-5)


def test_ratios_by_hand(gone):
    """A token's own, its rollout's geometric mean, its rollout's product, or 1."""
    s = torch.exp(double(0.2 / 3, -0.3 / 4))
    assert [round(value, 4) for value in s.tolist()] == [1.0689, 0.9277]
    expected = {
        "token": gone.exp(),
        "sequence": s[ROLLOUTS],
        "product": torch.exp(double(0.2, -0.3))[ROLLOUTS],
        "none": torch.ones_like(gone),
    }
    for level, ratio in expected.items():
        assert torch.allclose(ratios(-gone, level, ROLLOUTS)[0], ratio)


def test_lengths_of_runs():
    """Rollouts without tokens have none; without rollouts there are no lengths."""
    assert run_lengths(torch.tensor([0, 0, 0, 1, 3, 3])).tolist() == [3, 1, 0, 2]
    assert run_lengths(torch.tensor([], dtype=torch.int64)).tolist() == []


@pytest.mark.parametrize("level", ["sequence", "product"])
def test_the_gradient_of_a_rollouts_ratio_is_that_of_one_number(gone, level):
    """With one advantage a rollout, the stop-gradient form has the gradient of -mean(A f(sum)),
    where f is written out as one number a rollout."""
    advantages = double(1.3, -0.4)
    logp = gone.clone().requires_grad_()
    objective = ClippedObjective(ratio=level, gate="none")
    weights = token_weights(LENGTHS, "sequence-mean-token-mean")
    zero = torch.zeros_like(gone)
    losses, _ = objective(TokenBatch(logp, zero, advantages[ROLLOUTS], rollouts=ROLLOUTS))
    (weights * losses).sum().backward()

    plain = gone.clone().requires_grad_()
    whole = sequence_log_ratio(plain, torch.zeros_like(gone), ROLLOUTS, 2)
    whole = whole / LENGTHS if level == "sequence" else whole
    (-advantages * whole.exp()).mean().backward()
    assert torch.allclose(logp.grad, plain.grad)


def test_without_a_ratio_the_objective_is_reinforce(gone):
    """Level none: whatever the old log-probs, loss -A and gradient -A; no clip counts."""
    advantages = double(1, -2, 0.5, 3, -1, 0.1, 0)
    logp = gone.clone().requires_grad_()
    losses, metrics = ClippedObjective(ratio="none")(TokenBatch(logp, gone * 9, advantages))
    losses.sum().backward()
    assert torch.allclose(losses, -advantages)
    assert torch.allclose(logp.grad, -advantages)
    assert metrics["clip_share"].sum() == 0


def test_no_gate_is_the_plain_surrogate(gone):
    """ESPO's loss is -w A, equal to the clipped one while all ratios are inside the clips."""
    zero, advantages = torch.zeros_like(gone), double(1, -2, 0.5, 3, -1, 0.1, 0)
    far = 9 * gone
    losses, metrics = ClippedObjective(gate="none")(TokenBatch(far, zero, advantages))
    assert torch.allclose(losses, -far.exp() * advantages)
    assert "clip_share" not in metrics
    inside = TokenBatch(gone / 2, zero, advantages)
    assert torch.equal(ClippedObjective(gate="none")(inside)[0], ClippedObjective()(inside)[0])
    with pytest.raises(ValueError, match="dual_clip"):
        ClippedObjective(gate="none", dual_clip=3.0)


@pytest.mark.parametrize(
    ("ratios", "deviation"),
    [
        ((1, 1, 1, 1), 0),
        ((1.1, 0.95, 1.2, 0.9), 0.1125),
        ((1.3, 0.8, 1.35, 0.75), 0.275),
    ],
)
def test_espos_deviation(ratios, deviation):
    """The dossier's ratio sets: with a threshold of .25 the third ends the epochs."""
    logp = double(*ratios).log().requires_grad_()
    value = mean_ratio_deviation(logp, torch.zeros(4).double())
    assert isinstance(value, float)
    assert value == pytest.approx(deviation)


def test_the_deviation_is_twice_the_total_variation():
    """E_old |w - 1| = sum |q - p| = .26693 for softmax(.2, -.3, .5) moved by (.5, -.2, 0)."""
    logits = double(0.2, -0.3, 0.5)
    old, new = logits.log_softmax(0), (logits + double(0.5, -0.2, 0)).log_softmax(0)
    expected = float((old.exp() * (new - old).expm1().abs()).sum())
    assert expected == pytest.approx(float((new.exp() - old.exp()).abs().sum()))
    assert expected == pytest.approx(0.26693, abs=1e-5)
    # Sampled in proportion to the old policy (a million tokens), the estimate is that.
    counts = (old.exp() * 1_000_000).round().long()
    tokens = torch.repeat_interleave(torch.arange(3), counts)
    assert mean_ratio_deviation(new[tokens], old[tokens]) == pytest.approx(expected, abs=1e-5)
    assert math.isclose(mean_ratio_deviation(old, old), 0)
