"""Gradients of objectives, and of what is added to them, against finite differences of the number
that each stands for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import optpo.objectives
from optpo.objectives.balanced import BalancedObjective
from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.critic import CriticLoss
from optpo.objectives.discriminative import DiscriminativeObjective
from optpo.objectives.divergence import DivergenceObjective
from optpo.objectives.heterogeneous import HeterogeneousObjective
from optpo.objectives.log_ratio_regression import LogRatioRegressionObjective
from optpo.objectives.one_token import OneTokenObjective
from optpo.objectives.pairwise import PairwiseObjective
from optpo.objectives.penalty import KlPenalty
from optpo.objectives.supervised import SupervisedObjective
from optpo.objectives.token_batch import TokenBatch
from optpo.objectives.truncated import TruncatedObjective

LENGTHS = torch.tensor([1, 5, 3, 2, 4, 1, 6])
ROLLOUTS = torch.repeat_interleave(torch.arange(7), LENGTHS)
GROUPS = torch.tensor([0, 1, 1, 1, 2, 1, 2])
COUNT, VOCABULARY = len(ROLLOUTS), 9


def batch_of(seed):
    """Everything an objective may ask for, off-policy, in float64; advantages one a rollout."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tokens = torch.randint(0, VOCABULARY, (COUNT,), generator=generator)
    logits = draw(COUNT, VOCABULARY)
    logp = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    heads = (logits + 0.25 * draw(COUNT, VOCABULARY)).log_softmax(-1).topk(3, dim=-1)
    return TokenBatch(
        logp=logp.clone().requires_grad_(),
        logp_old=logp + 0.25 * draw(COUNT),
        advantages=draw(7)[ROLLOUTS],
        logp_ref=logp + 0.3 * draw(COUNT),
        values=draw(COUNT).requires_grad_(),
        values_old=draw(COUNT),
        returns=torch.where(draw(COUNT) > 1, torch.nan, draw(COUNT)),
        rollouts=ROLLOUTS,
        groups=GROUPS,
        entropies=draw(COUNT).exp(),
        tokens=tokens,
        logits=logits.requires_grad_(),
        head_tokens=heads.indices,
        head_logps=heads.values,
    )


SMOOTH = [
    # The loss is itself a function of log-probs, values or logits: nothing is held fixed.
    ClippedObjective(),
    ClippedObjective(clip_low=0.1, clip_high=0.3, dual_clip=1.2),
    ClippedObjective(gate="none"),
    BalancedObjective(target=0.7),
    BalancedObjective(target=0.7, mass="value", order="low-first"),
    HeterogeneousObjective(),
    HeterogeneousObjective(places="published"),
    PairwiseObjective(partner="one"),
    PairwiseObjective(partner="one", clipping="joint"),
    PairwiseObjective(partner="one", clipping="none"),
    DiscriminativeObjective(beta=0.0, tau=0.5),
    LogRatioRegressionObjective(),
    LogRatioRegressionObjective(step_token=3),
    LogRatioRegressionObjective(step_token=99),
    SupervisedObjective(),
    *(KlPenalty(0.2, estimator) for estimator in ("k1", "k2", "k3")),
    KlPenalty(0.2, weighted=True),
    CriticLoss(0.7),
    CriticLoss(0.7, clip=0.0),
]


@pytest.mark.parametrize("objective", SMOOTH, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_gradients_are_slopes_of_the_loss(objective, seed):
    """By log-probs and by values, with weights of their own on the token losses."""
    batch = batch_of(seed)
    weights = torch.linspace(0.5, 1.5, COUNT).double()

    def total(logp, values):
        losses, _ = objective(replace(batch, logp=logp, values=values))
        # What is not read has a gradient of 0, not none.
        return (weights * losses).sum() + 0 * logp.sum() + 0 * values.sum()

    assert torch.autograd.gradcheck(total, (batch.logp, batch.values), eps=1e-7, atol=1e-6)


def truncated(batch, logp):
    """CISPO's surrogate: the weight as it was, times the log-prob."""
    ratio = (batch.logp.detach() - batch.logp_old).exp()
    return -(ratio.clamp(max=1.3) * batch.advantages * logp).sum()


def masked(batch, logp):
    """DPPO's: the weight of tokens that may still move."""
    old, new = batch.logp_old.exp(), batch.logp.detach().exp()
    up = batch.advantages > 0
    moves = torch.where(up, new - old <= 0.02, new - old >= -0.03)
    return -((new / old).clamp(max=1.2) * moves * batch.advantages * logp).sum()


def sequence(batch, logp):
    """GSPO's on rollouts of their own lengths, unclipped: L_i A_i times the geometric mean ratio."""
    total = torch.zeros((), dtype=torch.float64)
    for i, length in enumerate(LENGTHS.tolist()):
        mine = i == ROLLOUTS
        total = (
            total - length * batch.advantages[mine][0] * (logp - batch.logp_old)[mine].mean().exp()
        )
    return total


def product(batch, logp):
    """The same of whole rollouts' ratios."""
    total = torch.zeros((), dtype=torch.float64)
    for i, length in enumerate(LENGTHS.tolist()):
        mine = i == ROLLOUTS
        total = (
            total - length * batch.advantages[mine][0] * (logp - batch.logp_old)[mine].sum().exp()
        )
    return total


def paired(batch, logp):
    """P3O's, unclipped: partners' ratios as they were."""
    total = torch.zeros((), dtype=torch.float64)
    for members in ([1, 2, 3, 5], [4, 6]):
        for one in members:
            for other in members:
                if one == other:
                    continue
                mine, theirs = one == ROLLOUTS, other == ROLLOUTS
                ratio = (logp - batch.logp_old)[mine].sum().exp()
                partner = (batch.logp.detach() - batch.logp_old)[theirs].sum().exp()
                apart = batch.advantages[mine][0] - batch.advantages[theirs][0]
                bounded = ratio.clamp(0.8, 1.2)
                gain = torch.minimum(apart * ratio, apart * bounded) * partner
                # Each pair comes up twice with one side each; two groups have pairs.
                total = total - gain / 2 / (len(members) * (len(members) - 1) / 2) / 2
    return total


SURROGATES = [
    (TruncatedObjective(clip_high=0.3), truncated),
    (DivergenceObjective(bound_high=0.02, bound_low=0.03, cap=1.2), masked),
    (ClippedObjective(gate="none", ratio="sequence"), sequence),
    (ClippedObjective(gate="none", ratio="product"), product),
    (ClippedObjective(ratio="none"), lambda batch, logp: -(batch.advantages * logp).sum()),
    (PairwiseObjective(), paired),
]


@pytest.mark.parametrize(
    ("objective", "surrogate"), SURROGATES, ids=lambda part: getattr(part, "__name__", str(part))
)
@pytest.mark.parametrize("seed", range(2))
def test_stopped_gradients_are_slopes_of_the_surrogate(objective, surrogate, seed):
    """What is held fixed is held at what it was: finite differences of the number written out."""
    batch = batch_of(seed)
    (gradient,) = torch.autograd.grad(objective(batch)[0].sum(), batch.logp)
    slopes = torch.zeros(COUNT, dtype=torch.float64)
    for place in range(COUNT):
        step = torch.zeros(COUNT, dtype=torch.float64)
        step[place] = 1e-6
        up, down = (surrogate(batch, batch.logp.detach() + sign * step) for sign in (1, -1))
        slopes[place] = (up - down) / 2e-6
    assert torch.allclose(gradient, slopes, atol=1e-7)


@pytest.mark.parametrize("seed", range(2))
def test_the_price_of_the_constraint_is_held_fixed(seed):
    """DRPO's penalty, at a bound that counts."""
    batch = batch_of(seed)
    batch = replace(batch, logp_old=batch.logp.detach() + 0.5 + 0.1 * batch.advantages)
    objective = DiscriminativeObjective(beta=50.0, delta=0.0, tau=0.5)
    free = DiscriminativeObjective(beta=0.0, tau=0.5)
    (gradient,) = torch.autograd.grad(objective(batch)[0].sum(), batch.logp)
    (without,) = torch.autograd.grad(free(batch)[0].sum(), batch.logp)
    divergence = float((batch.logp_old - batch.logp.detach()).mean())
    assert torch.allclose(gradient - without, torch.full_like(without, -50 * divergence / COUNT))


@pytest.mark.parametrize("seed", range(2))
def test_the_expectation_over_tokens_is_held_fixed(seed):
    """One-token rollouts in closed form: d(-sum r log pi) = sum(r) pi - r, with r as it was."""
    batch = batch_of(seed)
    (gradient,) = torch.autograd.grad(OneTokenObjective()(batch)[0].sum(), batch.logits)
    pi, drawn_from = ((batch.logits.detach() / temperature).softmax(-1) for temperature in (1, 1.3))
    onehot = torch.nn.functional.one_hot(batch.tokens, VOCABULARY)
    reward = torch.where(onehot > 0, 1.0, -0.1) * drawn_from
    assert torch.allclose(gradient, reward.sum(-1, keepdim=True) * pi - reward)


@pytest.mark.parametrize("seed", range(2))
def test_drawn_tokens_are_held_fixed(seed):
    """A small step of the logits changes no draw, so the slope of the loss is the gradient."""
    batch, objective = batch_of(seed), OneTokenObjective(draws=5)

    def losses(logits):
        return objective(replace(batch, logits=logits))[0]

    assert torch.autograd.gradcheck(losses, batch.logits, eps=1e-7, atol=1e-6)


EVERY = [
    *SMOOTH,
    *(part for part, _ in SURROGATES),
    OneTokenObjective(),
    OneTokenObjective(draws=4),
    DivergenceObjective(bound_low=0.03, bound_high=0.03, top=3),
    DivergenceObjective("kl", bound_low=0.03, bound_high=0.03, top=3),
]


@pytest.mark.parametrize("objective", EVERY, ids=str)
def test_single_precision_is_kept(objective):
    """float32 in, float32 out, near the result in float64; metrics are finite, one a token."""
    batch = batch_of(0)
    single = TokenBatch(
        **{
            name: value.detach().float() if value.is_floating_point() else value
            for name, value in vars(batch).items()
        }
    )
    losses, metrics = objective(single)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.double(), objective(batch)[0].detach(), rtol=1e-4, atol=1e-4)
    for value in metrics.values():
        assert value.shape == (COUNT,)
        assert bool(value.isfinite().all())


@pytest.mark.parametrize("objective", EVERY, ids=str)
def test_the_order_of_rollouts_does_not_matter(objective):
    """Rollouts in reverse, groups mixed: the same loss and the same gradient for each token."""
    batch = batch_of(1)
    order = (-ROLLOUTS).argsort(stable=True)
    turned = TokenBatch(
        **{
            name: value.detach()[order if len(value) == COUNT else slice(None)]
            for name, value in vars(batch).items()
        }
    )
    turned = replace(
        turned,
        rollouts=6 - turned.rollouts,
        groups=GROUPS.flip(0),
        logp=turned.logp.requires_grad_(),
        values=turned.values.requires_grad_(),
        logits=turned.logits.requires_grad_(),
    )
    for name in ("logp", "logits"):
        slopes = []
        for some in (batch, turned):
            loss = objective(some)[0].sum() + 0 * some.logp.sum()
            slopes += torch.autograd.grad(loss, getattr(some, name), allow_unused=True)
        if slopes[0] is not None:
            assert torch.allclose(slopes[0][order], slopes[1])
    assert torch.allclose(objective(batch)[0].sum(), objective(turned)[0].sum())


def test_no_objective_is_left_out():
    """A new objective must join one of the lists above."""
    checked = {type(objective) for objective in SMOOTH} | {type(part) for part, _ in SURROGATES}
    modules = {part.__module__.rsplit(".", 1)[1] for part in checked | {OneTokenObjective}}
    names = {path.stem for path in Path(next(iter(optpo.objectives.__path__))).glob("*.py")}
    assert names - modules == {"__init__", "aggregate", "ratio", "sloped", "token_batch"}
