"""One-token rollouts: supervised learning as a policy gradient."""

import pytest
import torch

from optpo.errors import SettingsError
from optpo.objectives.one_token import OneTokenObjective, uniforms
from optpo.objectives.token_batch import TokenBatch


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def loss_and_gradient(objective, logits, tokens, rollouts=None):
    logits = logits.clone().requires_grad_()
    logp = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    losses, metrics = objective(
        TokenBatch(
            logp, logp.detach(), 0 * logp.detach(), rollouts=rollouts, tokens=tokens, logits=logits
        )
    )
    return losses.detach(), torch.autograd.grad(losses.sum(), logits)[0], metrics


LOGITS, TARGET = double(1, 0.5, -0.5)[None], torch.tensor([0])


def test_the_expectation_by_hand():
    """The dossier: pi' = (.5010, .3410, .1580), loss .23175, gradient (-.2544, .1836, .0708)."""
    losses, gradient, metrics = loss_and_gradient(OneTokenObjective(), LOGITS, TARGET)
    assert float(losses) == pytest.approx(0.23175, abs=5e-6)
    assert torch.allclose(gradient, double(-0.2544, 0.1836, 0.0708)[None], atol=5e-5)
    assert float(metrics["hit_share"]) == pytest.approx(0.5010, abs=5e-5)


def test_four_draws_by_hand(monkeypatch):
    """The dossier's draws 0, 1, 0, 2: loss .22186, gradient (-.25405, .17417, .07988). They are those
    of uniform numbers below .5010, below .8420, below .5010 and above."""
    drawn = double(0.1, 0.7, 0.5, 0.99)[None]
    monkeypatch.setattr("optpo.objectives.one_token.uniforms", lambda *_: drawn)
    losses, gradient, metrics = loss_and_gradient(OneTokenObjective(draws=4), LOGITS, TARGET)
    assert float(losses) == pytest.approx(0.22186, abs=5e-6)
    assert torch.allclose(gradient, double(-0.25405, 0.17417, 0.07988)[None], atol=5e-5)
    assert float(metrics["hit_share"]) == 0.5


def test_limits():
    """Temperature 1: the gradient is (1 - beta) pi(x) (pi - onehot), DFT's at beta 0, none at 1."""
    pi = LOGITS.softmax(-1)
    onehot = double(1, 0, 0)[None]
    for beta in (-0.1, 0.0, 0.5, 1.0):
        objective = OneTokenObjective(temperature=1.0, beta=beta)
        _, gradient, _ = loss_and_gradient(objective, LOGITS, TARGET)
        assert torch.allclose(gradient, (1 - beta) * pi[0, 0] * (pi - onehot))
    dft = double(-0.2478, 0.1812, 0.0667)[None]
    assert torch.allclose(pi[0, 0] * (pi - onehot), dft, atol=5e-5)


@pytest.mark.parametrize("vocabulary", [3, 50])
def test_many_draws_converge_to_the_expectation(vocabulary):
    """With 2^15 draws loss and gradient are the closed form's, within five deviations of a mean."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, vocabulary, generator=generator, dtype=torch.float64)
    tokens = logits.argmax(-1)
    exact = loss_and_gradient(OneTokenObjective(), logits, tokens)
    drawn = loss_and_gradient(OneTokenObjective(draws=2**15), logits, tokens)
    for one, other in zip(exact[:2], drawn[:2], strict=True):
        assert float((one - other).abs().max()) < 5 * 2 / 2**7.5 / 2


def test_draws_do_not_depend_on_how_a_batch_is_cut():
    """A rollout draws the same alone and behind others; another seed draws otherwise."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 50, (30,), generator=generator)
    rollouts = torch.repeat_interleave(torch.arange(3), torch.tensor([12, 5, 13]))
    together = uniforms(tokens, rollouts, 8, 0)
    for rollout in range(3):
        mine = rollouts == rollout
        alone = uniforms(tokens[mine], torch.zeros(int(mine.sum())).long(), 8, 0)
        assert torch.equal(together[mine], alone)
    assert not bool((together == uniforms(tokens, rollouts, 8, 1)).any())


def test_draws_are_uniform_and_unrelated():
    """Mean 1/2, variance 1/12, no correlation between places, nor between draws; a token changes the
    draws of all places behind it."""
    tokens, rollouts = torch.arange(400) % 7, torch.zeros(400).long()
    drawn = uniforms(tokens, rollouts, 400, 3)
    assert float(drawn.mean()) == pytest.approx(0.5, abs=5 * 0.2887 / 400)
    assert float(drawn.var()) == pytest.approx(1 / 12, abs=1e-3)
    for matrix in (drawn, drawn.T):
        others = torch.corrcoef(matrix) - torch.eye(400)
        assert float(others.abs().max()) < 6 / 20
    changed = tokens.clone()
    changed[100] = 99
    differs = (uniforms(changed, rollouts, 4, 3) != drawn[:, :4]).any(-1)
    assert differs.tolist() == [place >= 100 for place in range(400)]


def test_what_is_missing_is_named():
    """Without logits or tokens nothing can be drawn."""
    zero = torch.zeros(1)
    with pytest.raises(ValueError, match="logits"):
        OneTokenObjective()(TokenBatch(zero, zero, zero))
    assert OneTokenObjective().needs == {"logits"}


@pytest.mark.parametrize("wrong", [{"draws": -1}, {"temperature": 0}, {"beta": 1.5}])
def test_settings_out_of_range_are_refused(wrong):
    """Each setting names itself and its range."""
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        OneTokenObjective(**wrong)
