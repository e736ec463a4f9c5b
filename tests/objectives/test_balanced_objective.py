"""BAPO: bounds that are searched until positive advantages have their share."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import SettingsError
from optpo.objectives.balanced import BalancedObjective, positive_share
from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.token_batch import TokenBatch

# The dossier's tokens.
RATIOS = torch.tensor([1.30, 1.10, 0.95, 1.60, 0.55, 0.85, 1.05, 0.70], dtype=torch.float64)
ADVANTAGES = torch.tensor([1.0] * 4 + [-1.0] * 4, dtype=torch.float64)
PUBLISHED = {
    "mass": "value",
    "order": "low-first",
    "low": 0.6,
    "low_limit": 0.8,
    "high": 1.2,
    "high_limit": 2.0,
}


def token_batch(ratios=RATIOS, advantages=ADVANTAGES):
    return TokenBatch(ratios.log(), torch.zeros_like(ratios), advantages)


@pytest.mark.parametrize(
    ("low", "high", "share"),
    [
        (0.6, 1.2, 0.4409),
        (0.75, 1.2, 0.5190),
        (0.8, 1.3, 0.6381),
        (0.8, 1.6, 0.7226),
        (0.9, 1.2, 0.6613),
    ],
)
def test_the_share_of_gradient_mass(low, high, share):
    """The dossier's numbers; (2.05 vs 2.60) at the first."""
    assert positive_share(RATIOS, ADVANTAGES, low, high) == pytest.approx(share, abs=5e-5)


@pytest.mark.parametrize(
    ("low", "high", "ratio"),
    [
        (0.6, 1.2, 1.3906),
        (0.8, 1.2, 1.2714),
        (0.95, 1.2, 1.1410),
        (0.8, 1.3, 1.3286),
        (0.8, 1.6, 1.4143),
    ],
)
def test_the_published_ratio_of_values(low, high, ratio):
    """The dossier's numbers of positive to negative; raising the lower bound moves it away."""
    share = positive_share(RATIOS, ADVANTAGES, low, high, "value")
    assert share / (1 - share) == pytest.approx(ratio, abs=5e-5)


@pytest.mark.parametrize(
    ("target", "bounds", "loss"),
    [
        (1.0, (0.6, 1.2), -0.15625),
        # 1.4 is what an upper bound of 1.55 gives exactly; the code rounds to the next.
        (1.4 + 1e-6, (0.8, 1.6), -0.18125),
        # Unmet: the bounds end at their limits.
        (2.0, (0.8, 2.0), None),
    ],
)
def test_the_published_search(target, bounds, loss):
    """The code's metric and order give its bounds and its loss."""
    objective = BalancedObjective(target=target / (1 + target), **PUBLISHED)
    losses, metrics = objective(token_batch())
    assert metrics["bound_low"][0] == pytest.approx(bounds[0])
    assert metrics["bound_high"][0] == pytest.approx(bounds[1])
    if loss is not None:
        assert float(losses.mean()) == pytest.approx(loss)


shares = st.integers(0, 2**31)


@given(shares, st.floats(0, 1), st.floats(0, 1), st.floats(1, 3), st.floats(1, 3))
def test_wider_clips_for_success_and_narrower_for_failure_never_lower_the_share(
    seed, low, other_low, high, other_high
):
    """The published metric falls when the lower bound rises; gradient mass cannot, nor when the
    upper bound rises."""
    generator = torch.Generator().manual_seed(seed)
    ratios = torch.randn(30, generator=generator).mul(0.5).exp()
    advantages = torch.randn(30, generator=generator)
    low, other_low = sorted([low, other_low])
    high, other_high = sorted([high, other_high])
    before = positive_share(ratios, advantages, low, high)
    assert positive_share(ratios, advantages, other_low, high) >= before - 1e-9
    assert positive_share(ratios, advantages, low, other_high) >= before - 1e-6


def test_the_search_stops_at_the_first_bounds_that_suffice():
    """Both bounds rise a step at a time: shares .4409, .4409, .5190 (the lower bound passes nothing
    until .70), so a target of .5 is met where the second negative token falls out."""
    objective = BalancedObjective(target=0.5, low_step=0.075, high_step=0.025)
    low, high, share = objective.bounds(RATIOS, ADVANTAGES)
    assert (low, high) == pytest.approx((0.75, 1.25))
    assert share == pytest.approx(2.05 / 3.95)


def test_limits():
    """A target of 0 is the clipped objective with the first bounds; where all ratios are 1 the bounds
    do not matter."""
    first = BalancedObjective(target=0.0)(token_batch())[0]
    clipped = ClippedObjective(clip_low=0.4, clip_high=0.2)(token_batch())[0]
    assert torch.allclose(first, clipped)
    ones = token_batch(torch.ones_like(RATIOS))
    wide = BalancedObjective(target=1.0)(ones)[0]
    assert torch.equal(wide, ClippedObjective()(ones)[0])


def test_one_sided_steps():
    """Only successes: content at once. Only failures: the bounds end at their limits. No advantage
    at all: nothing to balance."""
    objective = BalancedObjective()
    assert objective.bounds(RATIOS, ADVANTAGES.abs()) == (0.6, 1.2, 1.0)
    assert objective.bounds(RATIOS, -ADVANTAGES.abs()) == (0.9, 3.0, 0.0)
    assert objective.bounds(RATIOS, 0 * ADVANTAGES) == (0.6, 1.2, 1.0)


def test_steps_that_do_not_divide_the_range_end_at_the_limit():
    """Every candidate is inside the limits, and the last is both of them."""
    objective = BalancedObjective(target=1.0, low_step=0.07, high_step=0.4)
    low, high, _ = objective.bounds(RATIOS, ADVANTAGES)
    assert (low, high) == (0.9, 3.0)
    fixed = BalancedObjective(target=1.0, low_limit=0.6, high_limit=1.2)
    assert fixed.bounds(RATIOS, ADVANTAGES)[:2] == (0.6, 1.2)


def test_it_needs_the_whole_optimiser_step():
    """Bounds are shared by all its tokens."""
    assert BalancedObjective().needs == {"minibatch"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": 1.1}, {"low": 0.95}, {"low_limit": 1.1}, {"high": 0.9}, {"high_limit": 1.1},
        {"low_step": 0}, {"high_step": -1}, {"dual_clip": 0.5},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    """Each setting names itself and its range."""
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        BalancedObjective(**wrong)
