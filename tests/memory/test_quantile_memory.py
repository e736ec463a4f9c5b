"""RiskPO's quantiles."""

import json

import pytest
import torch

from optpo.advantages.bundled_risk import BundledRiskAdvantage
from optpo.errors import SettingsError
from optpo.memory.quantiles import NAMES, QuantileMemory
from tests.rewards.batches import batch_of

# Two questions of four rollouts; their returns are 2 1 0 1, twice, then 2 2 1 1 and 1 0 0 0.
STEPS = [
    [[1, 0, 0, 1], [1, 1, 0, 0]],
    [[1, 0, 0, 1], [1, 1, 0, 0]],
    [[1, 1, 0, 1], [1, 1, 1, 0]],
    [[0, 0, 0, 0], [1, 0, 0, 0]],
]


def follow(memory, steps):
    """Both quantiles after each step."""
    run, found = {}, []
    for rewards in steps:
        batch = batch_of([[0] * len(some) for some in rewards])
        flat = torch.tensor([float(one) for some in rewards for one in some])
        notes, run = memory.remember([{}] * len(rewards), run, batch, flat, [None] * len(rewards))
        assert notes == [{}] * len(rewards)
        run = json.loads(json.dumps(run))
        found.append([run.get(name) for name in NAMES])
    return found


def test_the_dossiers_trace():
    """Four batches at rate .1: the quantiles of .2 and .8 after each."""
    found = follow(QuantileMemory(questions=2, pairing="index", first="zero"), STEPS)
    low, high = [0.02, 0.015, 0.035, -0.02], [0.08, 0.135, 0.215, 0.22]
    assert found == [pytest.approx(pair) for pair in zip(low, high, strict=True)]


def test_quantiles_begin_with_the_first_returns():
    """Those of 2 1 0 1 at .2 and .8 are .6 and 1.4; then each moves by rate times level minus the
    share below it: a quarter and three quarters of 2 1 0 1."""
    found = follow(QuantileMemory(questions=2, pairing="index"), STEPS[:2])
    assert found[0] == pytest.approx([0.6, 1.4])
    assert found[1] == pytest.approx([0.6 + 0.1 * (0.2 - 0.25), 1.4 + 0.1 * (0.8 - 0.75)])


def test_quantiles_come_to_rest_at_theirs():
    """On bundles with returns 0, 1, 2, 3 in equal shares the quantile of .4 stays near 1."""
    memory = QuantileMemory(questions=1, low=0.4, high=0.9, rate=0.02)
    low, high = follow(memory, [[[0, 1, 2, 3]]] * 600)[-1]
    assert low == pytest.approx(1, abs=0.02)
    assert high == pytest.approx(3, abs=0.02)


def test_recalled_for_every_question_under_the_advantages_names():
    """What it recalls is what the advantage reads; before the first step nothing, or 0."""
    recalled = QuantileMemory().recall([{}] * 2, dict(zip(NAMES, (0.25, 0.5), strict=True)))
    assert {name: values.tolist() for name, values in recalled.items()} == {
        "low quantile": [0.25, 0.25],
        "high quantile": [0.5, 0.5],
    }
    assert all(values.isnan().all() for values in QuantileMemory().recall([{}], {}).values())
    zero = QuantileMemory(first="zero").recall([{}], {})
    assert [values.tolist() for values in zero.values()] == [[0], [0]]
    assert QuantileMemory().gives == BundledRiskAdvantage().needs == {"quantiles"}


def test_missing_rewards_are_left_out():
    """A step without rewards changes nothing, a rollout without one is no return of 0."""
    memory = QuantileMemory(questions=1)
    assert follow(memory, [[[torch.nan], [torch.nan]]]) == [[None, None]]
    assert follow(memory, [[[1, torch.nan], [torch.nan]]]) == follow(memory, [[[1]]])


def test_settings_out_of_range_are_all_named():
    """Those of the bundles and its own at once."""
    with pytest.raises(SettingsError, match=r"(?s)low is 0.9.*rate is 0"):
        QuantileMemory(low=0.9, high=0.5, rate=0)
