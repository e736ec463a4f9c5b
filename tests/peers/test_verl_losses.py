"""Our objectives against verl's own loss functions: values and gradients."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.objectives.aggregate import token_weights
from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.critic import CriticLoss
from optpo.objectives.divergence import DivergenceObjective
from optpo.objectives.log_ratio_regression import LogRatioRegressionObjective
from optpo.objectives.penalty import kl_estimate
from optpo.objectives.truncated import TruncatedObjective
from tests.peers.ragged import ragged

core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
config_of = pytest.importorskip("verl.workers.config")

AGGREGATES = {
    "token-mean": "token-mean",
    "sequence-mean-token-sum": "seq-mean-token-sum",
    "sequence-mean-token-mean": "seq-mean-token-mean",
    "constant-length": "seq-mean-token-sum-norm",
    "sum": "token-sum",
}
LONGEST = 11
aggregates = st.sampled_from(sorted(AGGREGATES))


def loss_of(name, case, aggregate, **settings):
    """verl's policy loss of this name as a function of the padded log-probs."""
    config = config_of.ActorConfig(
        strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, **settings
    )
    if aggregate == "constant-length":
        config.global_batch_info["loss_scale_factor"] = LONGEST
    return lambda logp: core_algos.get_policy_loss_fn(name)(
        old_log_prob=case.pad(case.batch.logp_old),
        log_prob=logp,
        advantages=case.pad(case.batch.advantages),
        response_mask=case.mask,
        loss_agg_mode=AGGREGATES[aggregate],
        config=config,
    )[0]


@given(ragged(), aggregates)
def test_aggregations(case, aggregate):
    """Each of verl's modes weighs tokens as ours of the other name."""
    losses = case.batch.advantages
    weights = token_weights(case.lengths, aggregate, LONGEST)
    theirs = core_algos.agg_loss(
        case.pad(losses), case.mask, AGGREGATES[aggregate], loss_scale_factor=LONGEST
    )
    torch.testing.assert_close((weights * losses).sum(), theirs, rtol=1e-6, atol=1e-6)


@given(ragged(), aggregates, st.sampled_from([1.1, 3.0, 1e9]))
def test_vanilla(case, aggregate, dual_clip):
    """PPO and DAPO clips; verl always clips doubly, by 3 unless told."""
    objective = ClippedObjective(
        clip_low=0.2, clip_high=0.28, dual_clip=dual_clip, aggregate=aggregate
    )
    theirs = loss_of(
        "vanilla", case, aggregate, clip_ratio_low=0.2, clip_ratio_high=0.28, clip_ratio_c=dual_clip
    )
    case.assert_same(objective, theirs, LONGEST)
    if dual_clip == 1e9:
        case.assert_same(replace(objective, dual_clip=0.0), theirs, LONGEST)


@given(ragged(spread=1.0), aggregates, st.sampled_from([1.2, 20.0]))
@pytest.mark.parametrize(
    ("name", "divergence", "bounds"), [("dppo_tv", "variation", 0.15), ("dppo_kl", "kl", 0.05)]
)
def test_divergence(name, divergence, bounds, case, aggregate, cap):
    """DPPO's masks by variation and by divergence, with one bound a side."""
    objective = DivergenceObjective(
        divergence=divergence,
        bound_low=bounds,
        bound_high=2 * bounds,
        cap=cap,
        aggregate=aggregate,
    )
    theirs = loss_of(
        name,
        case,
        aggregate,
        clip_ratio_low=bounds,
        clip_ratio_high=2 * bounds,
        clip_ratio_c=cap,
    )
    case.assert_same(objective, theirs, LONGEST)


@given(ragged(), aggregates, st.sampled_from([(3e-4, 4e-4), (0.2, 0.28)]))
def test_gspo(case, aggregate, clips):
    """The sequence ratio in the stop-gradient form, with an advantage of its own a token."""
    objective = ClippedObjective(
        ratio="sequence", clip_low=clips[0], clip_high=clips[1], aggregate=aggregate
    )
    theirs = loss_of("gspo", case, aggregate, clip_ratio_low=clips[0], clip_ratio_high=clips[1])
    case.assert_same(objective, theirs, LONGEST)


@given(ragged(spread=1.0), aggregates)
def test_cispo(case, aggregate):
    """Truncated weights with both bounds."""
    objective = TruncatedObjective(clip_low=0.2, clip_high=0.28, aggregate=aggregate)
    theirs = loss_of("cispo", case, aggregate, clip_ratio_low=0.2, clip_ratio_high=0.28)
    case.assert_same(objective, theirs, LONGEST)


@given(ragged(), aggregates)
def test_gpg_is_truncation_to_1(case, aggregate):
    """-A logp: CISPO's with both clips at 0; without a ratio the gradient is the same too."""
    theirs = loss_of("gpg", case, aggregate)
    closed = TruncatedObjective(clip_low=0.0, clip_high=0.0, aggregate=aggregate)
    case.assert_same(closed, theirs, LONGEST)
    without = ClippedObjective(ratio="none", aggregate=aggregate)
    case.assert_same(without, theirs, LONGEST, value=False)


@given(ragged(), aggregates)
def test_dro_is_a_regression_on_the_old_policy(case, aggregate):
    """-A logp + beta / 2 (logp - logp_old)^2 has the gradient of beta (A / beta - log-ratio)^2 / 2, with
    the old policy as the reference and each token a step."""
    beta = 0.4
    theirs = loss_of("dro", case, aggregate, policy_loss=config_of.PolicyLossConfig(dro_beta=beta))
    objective = LogRatioRegressionObjective(beta=beta, aggregate=aggregate)
    old = replace(case, batch=replace(case.batch, logp_ref=case.batch.logp_old))
    _, mine = old.ours(objective, LONGEST)
    _, other = old.theirs(theirs)
    torch.testing.assert_close(beta * mine, other, rtol=1e-6, atol=1e-6)


@given(ragged())
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_penalties(estimator, case):
    """The three estimates of the divergence from the reference."""

    def flat(logp):
        return (kl_estimate(logp, case.batch.logp_ref, estimator) * case.batch.advantages).sum()

    def padded(logp):
        kl = core_algos.kl_penalty(logp, case.pad(case.batch.logp_ref), estimator)
        return (kl * case.pad(case.batch.advantages) * case.mask).sum()

    logp = case.batch.logp.clone().requires_grad_()
    mine = flat(logp)
    other, slope = case.theirs(padded)
    torch.testing.assert_close(mine.detach(), other, rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(mine, logp)
    torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=1e-6)


@given(ragged(), st.integers(0, 2**31), aggregates, st.sampled_from([0.05, 0.5]))
def test_value_loss(case, seed, aggregate, clip):
    """Half the larger of two squares: our critic's term, with its coefficient 1."""
    generator = torch.Generator().manual_seed(seed)
    count = len(case.batch.logp)
    values, values_old, returns = (
        torch.randn(count, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    values.requires_grad_()
    batch = replace(case.batch, values=values, values_old=values_old, returns=returns)
    losses, _ = CriticLoss(1.0, clip)(batch)
    mine = (token_weights(case.lengths, aggregate, LONGEST) * losses).sum()
    theirs, _ = core_algos.compute_value_loss(
        case.pad(values),
        case.pad(returns),
        case.pad(values_old),
        case.mask,
        clip,
        AGGREGATES[aggregate],
        loss_scale_factor=LONGEST,
    )
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    slopes = [torch.autograd.grad(loss, values)[0] for loss in (mine, theirs)]
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-6)
