"""What shaping makes of length: overlong, history, budget."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import SettingsError
from optpo.shapes.budget import BudgetShape, budget_numbers
from optpo.shapes.history import HistoryShape
from optpo.shapes.none import NoShape
from optpo.shapes.overlong import OverlongShape
from tests.shapes.rewarded import with_lengths

LONG = [16384, 18000, 20480, 21000]


@pytest.mark.parametrize(("floored", "last"), [(True, -1.0), (False, -1.1270)])
def test_overlong_values_of_the_dossier(floored, last):
    """verl's numbers; the paper stays at -1 behind the limit, verl does not."""
    shaped = OverlongShape(20480, 4096, floored=floored)(with_lengths([LONG]), torch.zeros(4))
    assert shaped.tolist() == pytest.approx([0, -0.3945, -1, last], abs=1e-4)


def test_overlong_acts_at_any_length():
    """With nothing named the limit is the longest completion's, and its last fifth costs."""
    plain = OverlongShape()
    lengths, zeros = [[38, 39, 44, 48, 60]], torch.zeros(5)
    shaped = plain(with_lengths(lengths, longest=48), zeros)
    assert shaped.tolist() == pytest.approx([0, 0, -5 / 9, -1, -1])
    assert plain(with_lengths([LONG], longest=20480), torch.zeros(4)).equal(
        OverlongShape(20480, 4096)(with_lengths([LONG]), torch.zeros(4))
    )
    # Shorter than five tokens the last one costs.
    assert plain(with_lengths([[1, 2]], longest=2), torch.zeros(2)).tolist() == [0, -1]


def test_overlong_without_any_limit_is_refused():
    """Nothing is penalised by a guess; nor is a buffer wider than the limit that a run gives."""
    with pytest.raises(ValueError, match=r"longest is 0\); name the limit"):
        OverlongShape()(with_lengths([[3]]), torch.zeros(1))
    with pytest.raises(SettingsError, match="buffer is 9; it must not be above limit 8"):
        OverlongShape(buffer=9)(with_lengths([[3]], longest=8), torch.zeros(1))


def test_overlong_is_verls():
    """The same as verl's own reward manager gives at every length, on top of the reward."""
    pytest.importorskip("verl")
    from tensordict import TensorDict
    from verl import DataProto
    from verl.workers.reward_manager.dapo import DAPORewardManager

    lengths = list(range(1, 60, 7))
    count, longest = len(lengths), max(lengths)
    mask = (torch.arange(longest + 1) <= torch.tensor(lengths)[:, None]).long()
    tensors = {
        "prompts": torch.ones(count, 1, dtype=torch.int64),
        "responses": torch.ones(count, longest, dtype=torch.int64),
        "attention_mask": mask,
    }
    texts = {
        "reward_model": np.array([{"ground_truth": ""}] * count, dtype=object),
        "data_source": np.array([""] * count, dtype=object),
    }
    overlong = SimpleNamespace(enable=True, len=16, penalty_factor=0.5, log=False)
    tokenizer = SimpleNamespace(decode=lambda *_, **__: "text", eos_token="</s>")
    theirs = DAPORewardManager(
        tokenizer, 0, lambda **_: 1.0, max_resp_len=40, overlong_buffer_cfg=overlong
    )(DataProto(TensorDict(tensors, batch_size=count), texts)).sum(dim=1)
    shape = OverlongShape(limit=40, buffer=16, factor=0.5, floored=False)
    ours = shape(with_lengths([lengths]), torch.ones(count, dtype=torch.float64))
    assert ours.dtype == torch.float64
    assert ours.tolist() == pytest.approx(theirs.tolist(), abs=1e-6)


HISTORY = {"shortest": torch.tensor([1000.0])}


@pytest.mark.parametrize(
    ("form", "right", "wrong"),
    [
        ("cosine", [1.7071, 1.0, 0.3, 0.3], [0, 0, -0.7071, -1]),
        ("linear", [1.5, 1.0, 0.7, 0.3], [0, 0, -0.3, -1]),
    ],
)
def test_history_values_of_the_dossier(form, right, wrong):
    """The published code's values at a record of 1000 tokens."""
    batch = with_lengths([[500, 1000, 1500, 2500]], HISTORY)
    shape = HistoryShape(form=form)
    assert shape(batch, torch.ones(4)).tolist() == pytest.approx(right, abs=1e-4)
    assert shape(batch, torch.zeros(4)).tolist() == pytest.approx(wrong, abs=1e-4)


@given(
    st.lists(st.integers(1, 400), min_size=2, max_size=6),
    st.floats(0, 1),
    st.sampled_from(["cosine", "linear"]),
)
def test_right_stays_above_wrong(lengths, weight, form):
    """With a weight of at most 1 the worst right answer is worth .3 or more, the best wrong one 0."""
    batch = with_lengths([lengths], {"shortest": torch.tensor([100.0])})
    shape = HistoryShape(weight, form)
    assert float(shape(batch, torch.ones(len(lengths))).min()) >= 0.3 - 1e-6
    assert float(shape(batch, torch.zeros(len(lengths))).max()) <= 1e-6


def test_without_a_record_or_weight_nothing_is_added():
    """An infinite or missing record, and weight 0, leave rewards alone; missing ones stay missing."""
    lengths, rewards = [[5, 9], [7]], torch.tensor([1.0, torch.nan, 0.0])
    for record in (math.inf, math.nan):
        batch = with_lengths(lengths, {"shortest": torch.full((2,), record)})
        assert HistoryShape()(batch, rewards).nan_to_num(9).tolist() == [1, 9, 0]
    batch = with_lengths(lengths, {"shortest": torch.tensor([3.0, 3.0])})
    assert HistoryShape(weight=0)(batch, rewards).nan_to_num(9).tolist() == [1, 9, 0]
    assert HistoryShape().needs == {"shortest"}


@pytest.mark.parametrize("form", ["paper", "code"])
def test_budget_values_of_the_dossier(form):
    """Two rollouts a budget, in turns: paper and code agree on these."""
    lengths, right = [400, 800, 1900, 2000, 900, 1500, 2600, 5000], [1, 1, 1, 1, 1, 0, 1, 1]
    expected = [3.9231, 3.6955, 2.8284, 2.2223, 3.6694, 0, 2.0362, 0]
    batch = with_lengths([lengths])
    found = BudgetShape(form=form)(batch, torch.tensor([float(one) for one in right]))
    assert found.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("form", "expected"), [("paper", 3.9231), ("code", 3.8865)])
def test_very_short_answers_lose_a_little_in_code(form, expected):
    """50 tokens of a budget of 512: the plateau in the paper, .037 less in the published code."""
    found = BudgetShape((512,), form=form)(with_lengths([[50]]), torch.ones(1))
    assert found.tolist() == pytest.approx([expected], abs=1e-4)


def test_the_plateau_ends_at_the_budget():
    """The reward is the same up to the budget, and falls from its first token beyond."""
    shaped = BudgetShape((512,))(with_lengths([[1, 512, 513]]), torch.ones(3)).tolist()
    assert shaped[0] == shaped[1]
    beyond = 4 * math.cos(math.pi * 513 / 8192) - 1 / 4096
    assert shaped[2] == pytest.approx(beyond, abs=1e-6)
    assert shaped[2] < shaped[1] - 2e-4


def test_budgets_take_turns_in_every_group():
    """By rollout index, in groups of any size."""
    batch = with_lengths([[1] * 5, [1], [1] * 2])
    assert budget_numbers(batch, 4).tolist() == [0, 1, 2, 3, 0, 0, 0, 1]
    shaped = BudgetShape()(batch, torch.full((8,), torch.nan))
    assert shaped.isnan().all()


def test_no_shape_is_none():
    """The rewards themselves."""
    rewards = torch.tensor([1.0, torch.nan])
    assert NoShape()(with_lengths([[1, 1]]), rewards) is rewards
    assert NoShape().needs == OverlongShape().needs == BudgetShape().needs == frozenset()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OverlongShape(-1, -1, -1), r"(?s)limit is -1.*buffer is -1.*factor is -1"),
        (lambda: OverlongShape(limit=9, buffer=10), "must not be above limit 9"),
        (lambda: HistoryShape(weight=-1, lowest=1), r"(?s)weight is -1.*lowest is 1"),
        (lambda: BudgetShape((512, 4096), height=0), r"(?s)budgets are .512, 4096.*height is 0"),
        (lambda: BudgetShape(()), "budgets are"),
    ],
)
def test_settings_out_of_range_are_all_named(make, message):
    """Every problem is told at once, with its range."""
    with pytest.raises(SettingsError, match=message):
        make()
