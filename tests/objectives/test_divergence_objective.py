"""DPPO: which tokens keep their gradient."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from optpo.errors import SettingsError
from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.divergence import DivergenceObjective, binary_divergence
from optpo.objectives.token_batch import TokenBatch
from optpo.objectives.truncated import TruncatedObjective


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


# The dossier's six tokens.
OLD = double(0.010, 0.010, 0.900, 0.900, 0.500, 0.900)
NEW = double(0.030, 0.002, 0.700, 0.980, 0.620, 0.740)


def gradient(objective, sign, new=NEW, old=OLD):
    logp = new.log().requires_grad_()
    losses, _ = objective(TokenBatch(logp, old.log(), torch.full_like(new, sign)))
    return torch.autograd.grad(losses.sum(), logp)[0]


def test_the_binary_divergence():
    """The dossier's numbers."""
    expected = double(0.0092, 0.0081, 0.1163, 0.0843, 0.0297, 0.0806)
    assert torch.allclose(binary_divergence(NEW.log(), OLD.log()), expected, atol=5e-5)


@pytest.mark.parametrize(
    ("objective", "sign", "masked"),
    [
        (DivergenceObjective(), 1.0, []),
        (DivergenceObjective(divergence="kl", bound_low=0.05, bound_high=0.05), 1.0, [4]),
        (DivergenceObjective(), -1.0, [3, 6]),
        (DivergenceObjective(divergence="kl", bound_low=0.05, bound_high=0.05), -1.0, [3, 6]),
        (ClippedObjective(clip_high=0.28), 1.0, [1]),
        (ClippedObjective(clip_high=0.28), -1.0, [2, 3]),
    ],
)
def test_which_tokens_keep_their_gradient(objective, sign, masked):
    """The dossier's table; PPO clips the rare token and lets the frequent one through, DPPO the
    reverse."""
    silent = [place + 1 for place, slope in enumerate(gradient(objective, sign)) if slope == 0]
    assert silent == masked


def test_a_token_that_comes_back_is_not_masked():
    """However far the policy has gone, a token pushed back towards the old one keeps its gradient
    (an early prime-rl version masked it)."""
    far = DivergenceObjective(bound_low=1e-6, bound_high=1e-6)
    back = torch.where(NEW > OLD, -1.0, 1.0)
    logp = NEW.log().requires_grad_()
    losses, metrics = far(TokenBatch(logp, OLD.log(), back))
    assert metrics["mask_share"].sum() == 0
    assert bool((torch.autograd.grad(losses.sum(), logp)[0] != 0).all())
    assert far(TokenBatch(logp, OLD.log(), -back))[1]["mask_share"].sum() == 6


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_limits(sign):
    """Without a bound it is CISPO with the same cap and no lower clip; at the old policy its gradient
    is PPO's."""
    loose = DivergenceObjective(bound_low=2, bound_high=2, cap=1.5)
    capped = TruncatedObjective(clip_high=0.5)
    assert torch.allclose(gradient(loose, sign), gradient(capped, sign))
    at_old = gradient(DivergenceObjective(), sign, new=OLD)
    assert torch.allclose(at_old, gradient(ClippedObjective(), sign, new=OLD))


def test_a_bound_of_nothing_is_the_papers():
    """.15 of variation and .05 of kl: as if it were named; another may be."""
    for divergence, bound in (("variation", 0.15), ("kl", 0.05)):
        plain = DivergenceObjective(divergence=divergence)
        named = DivergenceObjective(divergence=divergence, bound_low=bound, bound_high=bound)
        wide = DivergenceObjective(divergence=divergence, bound_low=2, bound_high=2)
        for sign in (1.0, -1.0):
            assert gradient(plain, sign).equal(gradient(named, sign))
        assert not gradient(plain, -1.0).equal(gradient(wide, -1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_certain_token_has_a_finite_divergence(dtype):
    """Log-probs of exactly 0 leave nothing for other tokens: still a number."""
    logp = torch.tensor([0.0, -1e-9, 0.0, -50.0], dtype=dtype)
    logp_old = torch.tensor([0.0, 0.0, -1.0, 0.0], dtype=dtype)
    divergence = binary_divergence(logp, logp_old)
    assert bool(divergence.isfinite().all())
    assert float(divergence[0]) == 0
    assert float(divergence.min()) >= -1e-6


def moved_logits(seed, rows=40, vocabulary=12):
    """Logits of an old and of a new policy, and a token drawn a row."""
    generator = torch.Generator().manual_seed(seed)
    old = 2 * torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)
    new = old + 0.5 * torch.randn(rows, vocabulary, generator=generator, dtype=torch.float64)
    return old, new, torch.randint(0, vocabulary, (rows,), generator=generator)


def headed(old, new, tokens, top, advantages=None):
    """What the objective sees of them."""
    logps_old, logits = old.log_softmax(-1), new.clone().requires_grad_()
    heads = logps_old.topk(top, dim=-1)
    at = tokens[:, None]
    return TokenBatch(
        logits.log_softmax(-1).gather(-1, at)[:, 0], logps_old.gather(-1, at)[:, 0],
        torch.ones(len(tokens)).double() if advantages is None else advantages,
        logits=logits, head_tokens=heads.indices, head_logps=heads.values,
    )  # fmt: skip


@pytest.mark.parametrize("divergence", ["variation", "kl"])
def test_the_divergence_over_the_likeliest_tokens(divergence):
    """Of the likeliest token alone it is the binary one; it grows with every token that is told from
    the rest; over all but one it is that of the whole distributions."""
    old, new, _ = moved_logits(1)
    likeliest = old.argmax(-1)
    found = [
        DivergenceObjective(divergence=divergence, top=top).of_heads(
            headed(old, new, likeliest, top)
        )
        for top in range(1, 12)
    ]
    p_old, p_new = old.softmax(-1), new.softmax(-1)
    if divergence == "kl":
        whole = (p_old * (p_old / p_new).log()).sum(-1)
        batch = headed(old, new, likeliest, 1)
        binary = binary_divergence(batch.logp.detach(), batch.logp_old)
    else:
        whole = (p_old - p_new).abs().sum(-1) / 2
        binary = (p_old - p_new).gather(-1, likeliest[:, None])[:, 0].abs()
    assert torch.allclose(found[0], binary)
    assert torch.allclose(found[-1], whole)
    for fewer, more in pairwise(found):
        assert bool((more >= fewer - 1e-12).all())


def test_the_token_drawn_says_which_way():
    """Beyond the bound a token is held back only where its advantage pushes it further; without a
    distribution of the old policy, which is then the policy itself, none is."""
    old, new, tokens = moved_logits(2)
    objective = DivergenceObjective(bound_low=0.05, bound_high=0.05, top=4)
    for sign in (1.0, -1.0):
        batch = headed(old, new, tokens, 4, torch.full((len(tokens),), sign).double())
        masked = objective(batch)[1]["mask_share"].bool()
        away = (batch.logp.detach() - batch.logp_old) * sign > 0
        assert masked.equal(away & (objective.of_heads(batch) > 0.05))
        assert 0 < int(masked.sum()) < len(tokens)
        itself = replace(batch, head_tokens=None, head_logps=None)
        assert not objective(itself)[1]["mask_share"].any()
    assert objective.needs == {"logits", "heads"}
    with pytest.raises(ValueError, match="logits"):
        objective(replace(batch, logits=None))


@pytest.mark.parametrize(
    "wrong", [{"bound_low": -0.1}, {"bound_high": -1}, {"cap": 0.5}, {"top": -1}]
)
def test_settings_out_of_range_are_refused(wrong):
    """Each setting names itself and its range."""
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        DivergenceObjective(**wrong)
