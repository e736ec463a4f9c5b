"""DRPO's weights against its worked numbers."""

import math
from dataclasses import replace

import pytest
import torch
from advantage_batches import batch_of, doubles
from hypothesis import given
from hypothesis import strategies as st

from optpo.advantages.centred import CentredAdvantage
from optpo.advantages.decoupled import DecoupledAdvantage
from optpo.errors import SettingsError

LENGTHS = [1000, 2000, 6000, 3000, 4000, 5000]
RIGHT = doubles(1, 1, 1, 0, 0, 0)


@pytest.mark.parametrize(
    ("temperature", "right"),
    [
        (0.1, [0.7709, 0.2274, 0.0017]),
        (0.05, [0.9199, 0.0801, 0]),
        (0.2, [0.6288, 0.3415, 0.0297]),
        (1, [0.4118, 0.3645, 0.2237]),
        (math.inf, [1 / 3] * 3),
    ],
)
def test_weights_of_the_paper(temperature, right):
    """Three right answers of several lengths; the wrong ones share -1 whatever their lengths."""
    found = DecoupledAdvantage(8192, temperature).of_rollouts(batch_of([6], LENGTHS), RIGHT)
    assert torch.allclose(found, doubles(*right, *[-1 / 3] * 3), atol=1e-4)


def test_weights_of_the_published_code():
    """Its own small case: 8 tokens at most, lengths 1 to 6."""
    found = DecoupledAdvantage(8).of_rollouts(batch_of([6], [1, 2, 6, 3, 4, 5]), RIGHT)
    assert torch.allclose(found[:3], doubles(0.7761, 0.2224, 0.0015), atol=1e-4)


def test_no_right_answer_is_pushed_away():
    """Where Dr.GRPO with a length reward punishes the third right answer, DRPO does not."""
    batch = batch_of([6], LENGTHS)
    by_length = RIGHT * (1 - batch.lengths / 8192)
    plain = CentredAdvantage(scale="none").of_rollouts(batch, by_length)
    expected = doubles(0.5610, 0.4390, -0.0493, -0.3169, -0.3169, -0.3169)
    assert torch.allclose(plain, expected, atol=1e-4)
    assert (DecoupledAdvantage(8192).of_rollouts(batch, RIGHT)[:3] > 0).all()


def test_at_infinite_temperature_it_is_dr_grpo_scaled():
    """By p (1 - p), the share that is right times that which is wrong."""
    batch, rewards = batch_of([5]), doubles(1, 0, 0, 1, 0)
    found = DecoupledAdvantage(8, temperature=math.inf).of_rollouts(batch, rewards)
    plain = CentredAdvantage(scale="none").of_rollouts(batch, rewards)
    assert torch.allclose(found, plain / (0.4 * 0.6) / 5)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=4))
def test_each_side_of_a_mixed_question_sums_to_one(groups):
    """In ragged groups, also of one; a question all right or all wrong is 0 throughout."""
    batch = batch_of([len(some) for some in groups])
    rewards = torch.tensor([float(right) for some in groups for right in some])
    found, returns = DecoupledAdvantage(8)(batch, rewards)
    assert returns is None
    parts = DecoupledAdvantage(8).of_rollouts(batch, rewards).split([len(g) for g in groups])
    for some, part in zip(groups, parts, strict=True):
        mixed = float(len(set(some)) == 2)
        assert float(part.clamp(min=0).sum()) == pytest.approx(mixed)
        assert float(part.clamp(max=0).sum()) == pytest.approx(-mixed)
    assert found.equal(torch.cat(parts)[batch.token_rollouts])


def test_long_answers_do_not_underflow():
    """The softmax is taken from its highest score: far past the context weights still sum to 1."""
    found = DecoupledAdvantage(10, 0.01).of_rollouts(
        batch_of([3], [500, 500, 1]), torch.tensor([1.0, 1.0, 0.0])
    )
    assert found.tolist() == [0.5, 0.5, -1]


def test_the_context_is_the_longest_completion():
    """Where none is named; where nothing says how long one may be, that is refused."""
    batch = batch_of([6], LENGTHS)
    found = DecoupledAdvantage().of_rollouts(replace(batch, longest=8192), RIGHT)
    assert found.equal(DecoupledAdvantage(8192).of_rollouts(batch, RIGHT))
    with pytest.raises(ValueError, match=r"longest is 0\); name the limit"):
        DecoupledAdvantage().of_rollouts(batch, RIGHT)


def test_settings_out_of_range_are_named():
    """All that is wrong is said at once."""
    with pytest.raises(SettingsError) as caught:
        DecoupledAdvantage(-1, 0)
    assert len(caught.value.problems) == 2
    with pytest.raises(SettingsError, match="temperature is nan"):
        DecoupledAdvantage(temperature=math.nan)
    assert DecoupledAdvantage().needs == frozenset()
