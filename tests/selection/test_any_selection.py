"""Training on everything that has a reward."""

import pytest
import torch

from optpo.batch import pack
from optpo.errors import SettingsError
from optpo.rollout import Rollout
from optpo.selection.decided import AgreeingSelection, AnySelection, DecidedSelection


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(0, [True, True, True, False, True]), (1, [True, False, False, False, True])],
)
def test_every_rollout_with_a_reward_is_kept(limit, expected):
    """Equal rewards and groups of one are kept too, missing ones not; the limit counts by group."""
    groups = [
        [Rollout(f"q{g}", n, 0, (1,), (3,), (-1.0,), "stop") for n in range(size)]
        for g, size in enumerate((3, 1, 1))
    ]
    rewards = torch.tensor([1.0, 1.0, 1.0, torch.nan, 0.0])
    assert AnySelection(limit)(pack(groups, [0] * 3), rewards).tolist() == expected


def test_a_negative_limit_is_refused():
    """The limit names its range."""
    with pytest.raises(SettingsError, match="limit is -1"):
        AnySelection(-1)


@pytest.mark.parametrize("part", [AnySelection, DecidedSelection, AgreeingSelection])
def test_selections_need_nothing(part):
    """They read rewards alone."""
    assert part().needs == frozenset()
