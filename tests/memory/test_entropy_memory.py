"""The scale of a step's entropies."""

import math
from dataclasses import replace

import pytest
import torch

from optpo.errors import SettingsError
from optpo.memory.entropies import FIRST, NAMES, EntropyMemory
from tests.rewards.batches import batch_of


def noted(memory, entropies, run=None):
    """The run's notes after a step whose tokens had these entropies."""
    batch = replace(batch_of([[0]]), token_values={"entropy": torch.tensor(entropies)})
    return memory.remember([{}], run or {}, batch, torch.zeros(1), [None])


def test_the_dossiers_tokens():
    """Least, the ninth of ten in order at .8 of the way, and most: HAPO's pivot is .40."""
    entropies = [0.02, 0.05, 0.10, 0.40, 1.2, 0.01, 0.03, 0.20, 0.8, 0.06]
    notes, run = noted(EntropyMemory(), entropies)
    assert notes == [{}]
    assert [math.exp(run[name]) for name in NAMES] == pytest.approx([0.01, 0.40, 1.2])


def test_the_last_step_counts():
    """Nothing is left of the steps before; a token without any doubt is no infinity."""
    _, run = noted(EntropyMemory(quantile=0.5), [0.5, 1.0, 2.0])
    _, run = noted(EntropyMemory(quantile=0.5), [0.0, 0.25, 4.0], run)
    assert [math.exp(run[name]) for name in NAMES] == pytest.approx([1e-8, 0.25, 4.0])


def test_the_mean_of_the_first_step_stays():
    """Noted once, in nats, and recalled for every question; before that nothing is."""
    memory = EntropyMemory()
    assert memory.recall([{}], {}) == {}
    _, run = noted(memory, [0.5, 1.0, 3.0])
    _, run = noted(memory, [0.0, 0.1, 0.2], run)
    assert memory.recall([{}] * 2, run)[FIRST].tolist() == [1.5, 1.5]


def test_what_is_wrong_is_said():
    """A quantile outside 0 to 1, and a step without entropies."""
    with pytest.raises(SettingsError, match="between 0 and 1"):
        EntropyMemory(quantile=1.5)
    with pytest.raises(ValueError, match="entropies"):
        EntropyMemory().remember([{}], {}, batch_of([[0]]), torch.zeros(1), [None])
