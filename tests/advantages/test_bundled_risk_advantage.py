"""RiskPO's bundles, its two mixtures and its quantiles against worked numbers."""

import numpy as np
import pytest
import torch
from advantage_batches import batch_of, doubles
from hypothesis import given
from hypothesis import strategies as st

from optpo.advantages.bundled_risk import BundledRiskAdvantage, quantile_step
from optpo.errors import SettingsError

REWARDS = doubles(1, 0, 0, 1, 1, 1, 0, 0)
PAPER = BundledRiskAdvantage(2, pairing="index")


def batch_with(sizes, low, high):
    ones = torch.ones(len(sizes), dtype=torch.float64)
    return batch_of(sizes, question_low_quantile=low * ones, question_high_quantile=high * ones)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0, -0.5, -1.75, -0.5]),
        ({"mixing": "code"}, [0, -0.3333, -2.1667, -0.3333]),
        ({"mixing": "code", "baseline": False}, [0.6667, 0.3333, -1.5, 0.3333]),
        (
            {"mixing": "code", "baseline": False, "scale": "std", "credit": "mean"},
            [0.4082, 0.2041, -0.9186, 0.2041],
        ),
    ],
)
def test_worked_bundles(settings, expected):
    """Two questions of four rollouts, quantiles .5 and 1.5: the paper's and the code's forms."""
    part = BundledRiskAdvantage(2, pairing="index", **settings)
    found = part.of_rollouts(batch_with([4, 4], 0.5, 1.5), REWARDS)
    assert torch.allclose(found, doubles(*expected, *expected), atol=1e-4)


def test_the_first_step_is_measured_by_itself():
    """Where nothing is tracked yet: returns 2 1 0 1 by their own quantiles of .2 and .8."""
    unknown = PAPER.of_rollouts(batch_with([4, 4], torch.nan, torch.nan), REWARDS)
    known = PAPER.of_rollouts(batch_with([4, 4], 0.6, 1.4), REWARDS)
    assert torch.allclose(unknown, known)
    assert bool((known != 0).any())


def test_the_tail_weighs_as_in_the_paper():
    """By 1.5 to 1 against the body; the published code makes it 4.5 to 1, and is an option."""
    batch = batch_with([3], 1.0, 2.0)

    def slopes(part):
        deep, tail, body = part.of_rollouts(batch, doubles(0, 0.5, 1.5))[:3].tolist()
        top = float(part.of_rollouts(batch, doubles(1, 1, 1))[0])
        return (tail - deep) / 0.5 / ((body - top) / 0.5)

    one = {"questions": 1, "pairing": "index"}
    assert slopes(BundledRiskAdvantage(**one)) == pytest.approx(1.5)
    assert slopes(BundledRiskAdvantage(mixing="code", **one)) == pytest.approx(4.5)


def test_the_whole_range_without_a_tail_is_the_mean():
    """low 0, high 1 and no extra weight: the return less the largest, a constant baseline."""
    part = BundledRiskAdvantage(2, 0, 1, 0, "index")
    found = part.of_rollouts(batch_with([4, 4], 0, 2), REWARDS)
    assert found.tolist() == [0, -1, -2, -1] * 2


def test_advantages_are_the_gradient_of_the_mixed_value_at_risk():
    """Weighing the score of each outcome by its advantage is close to the worked gradient."""
    logits, low_level, high_level = np.array([0.1, 0.4, -0.2]), 0.2, 0.8
    shares = np.exp(logits) / np.exp(logits).sum()
    low, high = (float(np.searchsorted(shares.cumsum(), s)) for s in (low_level, high_level))
    part = BundledRiskAdvantage(1, low_level, high_level, pairing="index")
    advantages = part.of_rollouts(batch_with([3], low, high), doubles(0, 1, 2)).numpy()
    gradient = shares * (advantages - (shares * advantages).sum())
    assert np.allclose(gradient, [-0.2964, 0.0366, 0.2598], atol=1e-4)


def test_quantile_steps():
    """Four batches of returns at rate .1, from 0."""
    low, high, found = doubles(0.0), doubles(0.0), []
    for returns in ([2, 1, 0, 1], [2, 1, 0, 1], [2, 2, 1, 1], [1, 0, 0, 0]):
        low = quantile_step(low, 0.2, doubles(*returns), 0.1)
        high = quantile_step(high, 0.8, doubles(*returns), 0.1)
        found.append((float(low), float(high)))
    expected = [(0.02, 0.08), (0.015, 0.135), (0.035, 0.215), (-0.02, 0.22)]
    assert np.allclose(found, expected, atol=1e-9)


def test_quantiles_come_to_rest_at_their_level():
    """Tracked over uniform returns they end near their level, whatever the shape asked for."""
    generator, quantiles = torch.Generator().manual_seed(0), torch.zeros(2, 1)
    for _ in range(2000):
        returns = torch.rand(16, generator=generator)
        quantiles = quantile_step(quantiles, 0.3, returns, 0.01)
    assert quantiles.shape == (2, 1)
    assert torch.allclose(quantiles, torch.tensor(0.3), atol=0.05)


sizes_of_groups = st.lists(st.integers(1, 5), min_size=1, max_size=8)


@given(sizes_of_groups, st.integers(1, 4), st.integers(0, 50), st.sampled_from(["random", "index"]))
def test_bundles_of_ragged_groups(sizes, questions, seed, pairing):
    """Every rollout is in one bundle, a bundle holds a question at most once, and of one set alone;
    bundle k lacks a question only if that has fewer rollouts."""
    batch = batch_of(sizes)
    part = BundledRiskAdvantage(questions, pairing=pairing, seed=seed)
    bundles, sets = part.bundles(batch)
    assert bundles.unique().tolist() == list(range(len(sets)))
    members = {bundle: batch.groups[bundles == bundle].tolist() for bundle in range(len(sets))}
    by_set = {}
    for bundle, some in members.items():
        assert len(set(some)) == len(some) <= questions
        by_set.setdefault(int(sets[bundle]), []).append(set(some))
    assert len(by_set) == -(-len(sizes) // questions)
    for some in by_set.values():
        together = set().union(*some)
        assert len(some) == max(sizes[question] for question in together)
        for question in together:
            assert sum(question in one for one in some) == sizes[question]


def test_random_bundles_are_drawn_anew_and_again():
    """The same seed and version give the same bundles, another seed others."""
    batch = batch_of([6] * 6)
    first, again, other = (
        BundledRiskAdvantage(3, seed=seed).bundles(batch)[0] for seed in (0, 0, 1)
    )
    assert first.equal(again)
    assert not first.equal(other)


def test_a_bundle_that_lacks_questions_is_judged_by_those_it_has():
    """All rewards 1: every bundle returns as much as a whole one, so none counts as a tail."""
    part = BundledRiskAdvantage(3)
    batch = batch_with([1, 4, 2, 3], 1.0, 3.0)
    bundles, _ = part.bundles(batch)
    assert set(part.returns_of(torch.ones(10), bundles).tolist()) == {3.0}
    advantages, returns = part(batch, torch.ones(10))
    assert returns is None
    assert advantages.tolist() == [0] * len(batch.logps)


def test_settings():
    """The quantiles are asked for; all that is wrong is said at once."""
    assert PAPER.needs == {"quantiles"}
    with pytest.raises(SettingsError) as caught:
        BundledRiskAdvantage(questions=0, low=0.9, tail_weight=-1)
    assert len(caught.value.problems) == 3
    with pytest.raises(SettingsError, match="low is 0"):
        BundledRiskAdvantage(low=0, mixing="code")
