"""HBPO's two terms against the numbers of its paper."""

import math
from dataclasses import replace

import pytest
import torch
from advantage_batches import batch_of, doubles

from optpo.advantages.budgeted import BudgetedAdvantage
from optpo.advantages.centred import CentredAdvantage
from optpo.errors import SettingsError

# Two rollouts a budget, in the order of the dossier: 512 twice, 1024 twice and so on.
REWARDS = doubles(3.9231, 3.6694, 3.6955, 0, 2.8284, 2.0362, 2.2223, 0)
BEST = 4 * math.cos(math.pi * 512 / 8192)
DEALT = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])
EXPECTED = doubles(0.9048, 0.7439, -0.9604, -3.3049, -0.0589, -0.5614, -1.1585, -2.5683)


def dealt(batch):
    return replace(batch, indices=DEALT)


def test_numbers_of_the_paper():
    """Eight rollouts, two a budget; a right answer in time suffers for its sibling (the third)."""
    found = BudgetedAdvantage().of_rollouts(dealt(batch_of([8])), REWARDS)
    assert torch.allclose(found, EXPECTED, atol=1e-4)


def test_the_budgets_term_is_added_once():
    """What is left beside GRPO is the mean of the budget less its best, not twice that."""
    batch = dealt(batch_of([8]))
    term = BudgetedAdvantage().of_rollouts(batch, REWARDS) - CentredAdvantage().of_rollouts(
        batch, REWARDS
    )
    expected = [-0.1269] * 2 + [-1.8478] * 2 + [-0.3961] * 2 + [-1.1111] * 2
    assert torch.allclose(term, doubles(*expected), atol=1e-4)


def test_one_budget():
    """With every right answer in time: GRPO on right and wrong less best times the failure rate."""
    part = BudgetedAdvantage(budgets=(512,))
    batch, right = batch_of([4]), doubles(1, 1, 1, 0)
    found = part.of_rollouts(batch, right * BEST)
    plain = CentredAdvantage().of_rollouts(batch, right)
    assert torch.allclose(found, plain - BEST / 4, atol=1e-5)
    all_right = part.of_rollouts(batch, torch.full((4,), BEST, dtype=torch.float64))
    assert torch.allclose(all_right, torch.zeros(4, dtype=torch.float64), atol=1e-6)


def test_groups_are_apart_and_of_any_size():
    """A question of one and questions that lack a budget: each as it were alone."""
    batch = batch_of([1, 3, 6])
    rewards = torch.rand(10, dtype=torch.float64)
    found = BudgetedAdvantage().of_rollouts(batch, rewards)
    alone = [
        BudgetedAdvantage().of_rollouts(batch_of([size]), some)
        for size, some in zip([1, 3, 6], rewards.split([1, 3, 6]), strict=True)
    ]
    assert torch.allclose(found, torch.cat(alone))
    assert float(found[0]) == pytest.approx(float(rewards[0]) - BEST)
    by_token, returns = BudgetedAdvantage()(batch, rewards)
    assert by_token.equal(found[batch.token_rollouts])
    assert returns is None


@pytest.mark.parametrize(
    ("settings", "problems"),
    [({"budgets": ()}, 1), ({"budgets": (512, 4096), "height": 0, "epsilon": 0}, 3)],
)
def test_settings_out_of_range_are_named(settings, problems):
    """A budget as long as the context has a best reward of 0, and teaches nothing."""
    with pytest.raises(SettingsError) as caught:
        BudgetedAdvantage(**settings)
    assert len(caught.value.problems) == problems
