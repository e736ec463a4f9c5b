"""P3O: pairs of rollouts."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import SettingsError
from optpo.objectives.pairwise import PairwiseObjective, pairs
from optpo.objectives.token_batch import TokenBatch


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


group_numbers = st.lists(st.integers(0, 4), min_size=1, max_size=12)


@given(group_numbers)
def test_every_pair_of_a_group_comes_once(numbers):
    """Whatever the sizes of groups and however they are mixed."""
    expected = {
        (i, j)
        for i, j in itertools.combinations(range(len(numbers)), 2)
        if numbers[i] == numbers[j]
    }
    first, second = pairs(torch.tensor(numbers))
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == expected
    assert len(first) == len(expected)


def pair_batch(advantages, ratios):
    """Rollouts of one token each, of one question."""
    count = len(advantages)
    return TokenBatch(
        ratios.log(),
        torch.zeros(count, dtype=torch.float64),
        advantages,
        rollouts=torch.arange(count),
    )


def test_the_clipped_terms_of_a_pair():
    """The dossier: D = .6, w = 1.35 and .9, clip .2, partners weigh 1: .72 and -.54."""
    losses, _ = PairwiseObjective(partner="one")(pair_batch(double(1, 0.4), double(1.35, 0.9)))
    assert torch.allclose(losses, -double(0.72, -0.54) / 2)
    weighted, _ = PairwiseObjective()(pair_batch(double(1, 0.4), double(1.35, 0.9)))
    assert torch.allclose(weighted, -double(0.72 * 0.9, -0.54 * 1.35) / 2)


def test_the_joint_clip_of_a_pair():
    """ln w1 / w2 = .4055 is beyond .2: .6 times .2, weighted by the product 1.215; no gradient."""
    batch = pair_batch(double(1, 0.4), double(1.35, 0.9))
    gap = (double(1.35) / double(0.9)).log()
    assert float(gap) == pytest.approx(0.4055, abs=5e-5)
    joint = PairwiseObjective(clipping="joint")
    assert float(joint(batch)[0].sum()) == pytest.approx(-0.6 * 0.2 * 1.215 / 2)
    unclipped = PairwiseObjective(clipping="none")
    assert float(unclipped(batch)[0].sum()) == pytest.approx(-0.6 * float(gap) * 1.215 / 2)
    # The other way round the clip holds nothing back: the pair is to come apart again.
    back = pair_batch(double(0.4, 1), double(1.35, 0.9))
    assert torch.equal(joint(back)[0], unclipped(back)[0])


SETTINGS = [
    {"clipping": clipping, "partner": partner}
    for clipping in ("separate", "joint", "none")
    for partner in ("ratio", "one")
]


def ragged(seed, shift=0.0, spread=0.0):
    """Groups of 1, 2, 4 and 3 rollouts, mixed, each of 1 to 5 tokens."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.tensor([0, 1, 1, 2, 2, 2, 2, 3, 3, 3])
    groups = groups[torch.randperm(10, generator=generator)]
    rollouts = torch.repeat_interleave(
        torch.arange(10), torch.randint(1, 6, (10,), generator=generator)
    )
    rewards = torch.randn(10, generator=generator, dtype=torch.float64) + shift * groups
    noise = torch.randn(len(rollouts), generator=generator, dtype=torch.float64)
    logp_old = -noise.abs()
    logp = (logp_old + spread * noise).requires_grad_()
    return TokenBatch(logp, logp_old, rewards[rollouts], rollouts=rollouts, groups=groups)


def gradient(objective, batch):
    return torch.autograd.grad(objective(batch)[0].sum(), batch.logp)[0]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("seed", range(3))
def test_on_policy_it_is_rloo(settings, seed):
    """The gradient of a rollout's log-prob is -(A_i - mean of the others) / G over the groups that
    have pairs: no clip and no weight counts at w = 1."""
    batch = ragged(seed)
    groups, rewards = (
        batch.groups.tolist(),
        [float(batch.advantages[batch.rollouts == i][0]) for i in range(10)],
    )
    expected = []
    for i in batch.rollouts.tolist():
        others = [rewards[j] for j in range(10) if groups[j] == groups[i] and j != i]
        if others:
            expected.append(-(rewards[i] - sum(others) / len(others)) / (len(others) + 1) / 3)
        else:
            expected.append(0.0)
    assert torch.allclose(gradient(PairwiseObjective(**settings), batch), double(*expected))


@pytest.mark.parametrize("settings", SETTINGS)
def test_no_shift_of_a_questions_rewards_counts(settings):
    """Loss and gradient see differences only, off-policy too."""
    objective = PairwiseObjective(**settings)
    plain, shifted = ragged(5, spread=0.3), ragged(5, shift=7.0, spread=0.3)
    assert torch.allclose(objective(plain)[0], objective(shifted)[0])
    assert torch.allclose(gradient(objective, plain), gradient(objective, shifted))


def literal(batch, settings):
    """The loss by loops over groups and pairs."""
    groups, clip, parts = batch.groups.tolist(), 0.2, []
    w = [(batch.logp - batch.logp_old)[batch.rollouts == i].sum().exp() for i in range(10)]
    a = [batch.advantages[batch.rollouts == i][0] for i in range(10)]
    for group in sorted(set(groups)):
        members = [i for i in range(10) if groups[i] == group]
        terms = []
        for i, j in itertools.combinations(members, 2):
            d = a[i] - a[j]
            partner = settings["partner"] == "ratio"
            if settings["clipping"] == "separate":
                one = torch.minimum(d * w[i], d * w[i].clamp(1 - clip, 1 + clip))
                two = torch.minimum(-d * w[j], -d * w[j].clamp(1 - clip, 1 + clip))
                if partner:
                    one, two = one * w[j].detach(), two * w[i].detach()
                terms.append(-(one + two) / 2)
            else:
                gap = w[i].log() - w[j].log()
                term = d * gap
                if settings["clipping"] == "joint":
                    term = torch.minimum(term, d * gap.clamp(-clip, clip))
                terms.append(-term * ((w[i] * w[j]).detach() if partner else 1) / 2)
        if terms:
            parts.append(sum(terms) / len(terms))
    return sum(parts) / len(parts)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("seed", range(3))
def test_off_policy_it_is_the_loop_over_pairs(settings, seed):
    """Value and gradient, with groups of four sizes and ratios on both sides of the clips."""
    batch, objective = ragged(seed, spread=0.3), PairwiseObjective(**settings)
    expected = literal(batch, settings)
    assert torch.allclose(objective(batch)[0].sum(), expected)
    slopes = torch.autograd.grad(expected, batch.logp)[0]
    assert torch.allclose(gradient(objective, batch), slopes)


def test_the_expected_step_is_the_policy_gradient():
    """The dossier's three actions: over all pairs weighted by their probabilities the gradient is
    (.16206, -.10687, -.05520), also with 7 more reward."""
    for shift in (0.0, 7.0):
        logits = double(0.2, -0.3, 0.5).requires_grad_()
        probabilities, rewards = logits.softmax(0).detach(), double(1, 0, 0.4) + shift
        total = torch.zeros((), dtype=torch.float64)
        for one, two in itertools.product(range(3), repeat=2):
            logp = logits.log_softmax(0)[[one, two]]
            batch = TokenBatch(logp, logp.detach(), rewards[[one, two]], rollouts=torch.arange(2))
            loss = PairwiseObjective()(batch)[0].sum()
            total = total + probabilities[one] * probabilities[two] * loss
        slopes = -torch.autograd.grad(total, logits)[0]
        assert torch.allclose(slopes, double(0.16206, -0.10687, -0.05520), atol=1e-5)


def test_a_group_of_one_has_no_pairs():
    """It costs nothing and moves nothing."""
    logp = double(-1, -2).requires_grad_()
    batch = TokenBatch(logp, logp.detach(), double(1, 1), rollouts=torch.tensor([0, 0]))
    losses, _ = PairwiseObjective()(batch)
    assert losses.tolist() == [0.0, 0.0]
    assert gradient(PairwiseObjective(), batch).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("wrong", [{"clip": 0}, {"clip": 1}, {"aggregate": "token-mean"}])
def test_settings_out_of_range_are_refused(wrong):
    """Each setting names itself and its range."""
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        PairwiseObjective(**wrong)
