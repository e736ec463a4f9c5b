"""PPO-max's running moments, and the shape that uses them."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import SettingsError
from optpo.memory.moments import NAMES, MomentsMemory
from optpo.shapes.running import RunningShape
from tests.shapes.rewarded import with_lengths

BATCHES = [[1.0, 2, 3, 4], [10.0, -2, 0, 4]]


def two_steps(shape):
    """The dossier's two batches, shaped, and the moments after each."""
    memory, run, shaped, moments = MomentsMemory(), {}, [], []
    for some in BATCHES:
        batch = with_lengths([[1, 1], [1, 1]], memory.recall([{}, {}], run))
        rewards = torch.tensor(some)
        shaped.append(shape(batch, rewards).tolist())
        _, run = memory.remember([{}, {}], run, batch, rewards, [None] * 2)
        run = json.loads(json.dumps(run))
        moments.append([run["mean reward"], run["deviation of rewards"]])
    return shaped, moments


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (
            RunningShape(clip=0.8),
            [[-0.8, -0.3873, 0.3873, 0.8], [0.8, -0.8, -0.7691, 0.3496]],
        ),
        (
            RunningShape("scale", clip=0),
            [[0.7746, 1.5492, 2.3238, 3.0984], [2.7966, -0.5593, 0, 1.1187]],
        ),
    ],
)
def test_the_dossiers_batches(shape, expected):
    """Two batches of four: moments 2.5/1.2910 then 2.75/3.5757, and both forms of the rewards."""
    shaped, moments = two_steps(shape)
    assert moments == [
        pytest.approx([2.5, 1.2910], abs=1e-4),
        pytest.approx([2.75, 3.5757], abs=1e-4),
    ]
    assert shaped == [pytest.approx(some, abs=1e-4) for some in expected]


@given(
    st.lists(
        st.lists(st.floats(-5, 5) | st.just(float("nan")), min_size=1, max_size=6),
        min_size=1,
        max_size=5,
    )
)
def test_merging_is_exact(batches):
    """After any batches the moments are NumPy's of all rewards at once, also on a large mean."""
    memory, run = MomentsMemory(), {}
    for rewards in batches:
        batch = with_lengths([[1] * len(rewards)])
        shifted = torch.tensor(rewards, dtype=torch.float64) + 1e4
        notes, run = memory.remember([{"other": 1.0}], run, batch, shifted, [None])
        assert notes == [{}]
    seen = np.array([reward for rewards in batches for reward in rewards]) + 1e4
    seen = seen[~np.isnan(seen)]
    recalled = memory.recall([{}], run)
    assert float(recalled[NAMES[0]][0]) == len(seen)
    if len(seen):
        assert run["mean reward"] == pytest.approx(seen.mean(), abs=1e-8)
        deviation = seen.std(ddof=1) if len(seen) > 1 else 0
        assert run["deviation of rewards"] == pytest.approx(deviation, abs=1e-6)


def test_equal_rewards_are_not_divided():
    """While the deviation is 0 rewards are centred, or left; missing ones stay missing."""
    batch = with_lengths([[1, 1, 1]], MomentsMemory().recall([{}], {}))
    rewards = torch.tensor([0.3, 0.3, torch.nan])
    assert RunningShape()(batch, rewards).nan_to_num(9).tolist() == pytest.approx(
        [0, 0, 9], abs=1e-7
    )
    scaled = RunningShape("scale")(batch, rewards)
    assert scaled.nan_to_num(9).tolist() == pytest.approx([0.3, 0.3, 9])


def test_a_negative_clip_is_refused():
    """0 is no clip, and nothing lies below it."""
    with pytest.raises(SettingsError, match="clip is -1"):
        RunningShape(clip=-1)
    assert RunningShape().needs == MomentsMemory().gives == {"moments"}
