"""The learning rate over a run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.training.schedule import learning_rate_factor
from optpo.training.update_settings import UpdateSettings


def factors(total, **settings):
    chosen = UpdateSettings(**settings)
    return [learning_rate_factor(chosen, done, total) for done in range(total)]


def test_constant():
    """Without warmup and decay the rate is what was set."""
    assert factors(5) == [1.0] * 5


def test_warmup_rises_to_the_full_rate():
    """Four steps of warmup take a quarter of the rate, two, three, all of it; then it stays."""
    assert factors(6, warmup=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_by_hand():
    """Four steps of cosine: 1, (1 + cos 45 degrees) / 2, a half, (1 + cos 135 degrees) / 2, which
    is below a quarter and so held there: 1 / total."""
    assert factors(4, decay="cosine") == pytest.approx([1, 0.853553, 0.5, 0.25], abs=1e-6)


@given(st.integers(1, 60), st.integers(0, 70))
def test_every_step_moves(total, warmup):
    """The factor is above 0 and at most 1 at every step, rises in warmup and falls after it."""
    found = factors(total, warmup=warmup, decay="cosine")
    assert all(0 < factor <= 1 for factor in found)
    assert found[:warmup] == sorted(found[:warmup])
    assert found[warmup:] == sorted(found[warmup:], reverse=True)
