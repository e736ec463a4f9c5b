"""Advantages by steps: differences of the critic's values at step boundaries."""

import pytest
import torch
from advantage_batches import batch_of, doubles

from optpo.advantages.gae import GaeAdvantage
from optpo.advantages.steps import StepAdvantage
from optpo.errors import SettingsError

NEWLINE = 9


def test_each_step_is_what_it_changed():
    """Two steps and a rest, one step that ends the rollout, and a rollout of one token."""
    values = doubles(0.5, 0.1, 0.7, 0.2, 0.4, 0.6, 0.3, 0.9, 0.25)
    batch = batch_of(
        [2, 1], tokens=[[5, NEWLINE, 6, NEWLINE, 7], [5, 5, NEWLINE], [5]], value=values
    )
    advantages, returns = StepAdvantage(NEWLINE)(batch, doubles(1, 0, 1))
    expected = [0.2, 0.2, -0.3, -0.3, 0.6, -0.6, -0.6, -0.6, 0.75]
    assert torch.allclose(advantages, doubles(*expected))
    assert returns.tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 1]


def test_steps_of_one_token_are_the_one_step_errors_of_gae():
    """Without a token that ends steps it is GAE with lam 0 and no discount."""
    batch = batch_of([3, 2], value=torch.rand(11, dtype=torch.float64))
    rewards = torch.rand(5, dtype=torch.float64)
    plain, _ = GaeAdvantage(lam=0, whiten=False)(batch, rewards)
    assert torch.allclose(StepAdvantage()(batch, rewards)[0], plain)


def test_the_steps_of_a_rollout_sum_to_its_surprise():
    """Counted once a step, advantages telescope to outcome - V(prompt); dtype is the rewards'."""
    tokens = [[NEWLINE, 5, 5, NEWLINE, 5], [5, 5, NEWLINE, NEWLINE]]
    batch = batch_of([2], tokens=tokens, value=torch.rand(9))
    found, _ = StepAdvantage(NEWLINE)(batch, doubles(1, 0))
    assert found.dtype == torch.float64
    first = found[[0, 1, 4]].sum() + batch.token_values["value"][0]
    second = found[[5, 8]].sum() + batch.token_values["value"][5]
    assert torch.allclose(torch.stack([first, second]), doubles(1, 0))


def test_one_state_of_the_paper():
    """Next values .9, .4, .1 from a state worth .59, reached by one step each."""
    tokens = [[5, NEWLINE, 5]] * 3
    values = doubles(0.59, 0, 0.9, 0.59, 0, 0.4, 0.59, 0, 0.1)
    found, _ = StepAdvantage(NEWLINE)(batch_of([3], tokens=tokens, value=values), doubles(1, 1, 0))
    assert torch.allclose(found[[0, 3, 6]], doubles(0.31, -0.19, -0.49))


def test_settings():
    """A critic is asked for; a token's number cannot be negative."""
    assert StepAdvantage().needs == {"critic"}
    with pytest.raises(SettingsError, match="step_token"):
        StepAdvantage(-1)
