"""HAPO's length record."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.memory.shortest import ShortestMemory
from optpo.shapes.history import HistoryShape
from tests.shapes.rewarded import with_lengths

# The dossier's trace: lengths, right or wrong, shaped rewards by the record before, record after.
TRACE = [
    ([800, 1200, 900], [0, 1, 1], [0, 1, 1], 900),
    ([700, 950, 600], [1, 1, 0], [1.342, 0.9128, 0], 700),
    ([650, 800], [0, 0], [0, -0.2225], 700),
]


def test_the_dossiers_trace():
    """Three batches: rewards by the record from before the batch, and the record after it."""
    memory, notes = ShortestMemory(), {}
    for lengths, right, shaped, record in TRACE:
        batch = with_lengths([lengths], memory.recall([notes], {}))
        rewards = torch.tensor([float(one) for one in right])
        assert HistoryShape()(batch, rewards).tolist() == pytest.approx(shaped, abs=1e-3)
        ((notes,), _) = memory.remember([notes], {}, batch, rewards, [None])
        assert notes["shortest"] == record


def test_each_question_has_its_own_record():
    """Lengths go to the question they are of, not all to the last one (a leaked loop variable)."""
    batch = with_lengths([[30, 20], [50], [40, 10]])
    rewards = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])
    notes, _ = ShortestMemory().remember([{}] * 3, {}, batch, rewards, [None] * 3)
    assert notes == [{"shortest": 20, "answers": 2}, {"shortest": 50, "answers": 1}, {}]


rollouts = st.lists(
    st.lists(
        st.tuples(st.integers(1, 30), st.sampled_from([0.0, 1.0, math.nan])),
        min_size=1,
        max_size=5,
    ),
    min_size=1,
    max_size=4,
)


@given(rollouts, st.sampled_from(["min", "mean"]), st.randoms())
def test_any_group_sizes_and_orders(groups, mode, draw):
    """After two batches the record is the least or mean of all right lengths, in whatever order."""
    memory = ShortestMemory(mode)
    records = []
    for shuffled in (False, True):
        notes = [{} for _ in groups]
        for _ in range(2):
            some = [draw.sample(group, len(group)) if shuffled else group for group in groups]
            batch = with_lengths([[length for length, _ in group] for group in some])
            rewards = torch.tensor([reward for group in some for _, reward in group])
            notes, _ = memory.remember(notes, {}, batch, rewards, [None] * len(groups))
        records.append(memory.recall(json.loads(json.dumps(notes)), {})["shortest"].tolist())
    expected = []
    for group in groups:
        right = [length for length, reward in group if reward > 0]
        merged = min(right, default=math.inf)
        if mode == "mean" and right:
            merged = sum(right) / len(right)
        expected.append(merged)
    assert records[0] == records[1] == pytest.approx(expected)


def test_a_record_never_grows():
    """In mode min a longer right answer leaves it; in mode mean it moves towards it."""
    batch, rewards = with_lengths([[9]]), torch.tensor([1.0])
    past = [{"shortest": 5.0, "answers": 1.0}]
    for mode, record in (("min", 5), ("mean", 7)):
        ((notes,), _) = ShortestMemory(mode).remember(past, {}, batch, rewards, [None])
        assert notes["shortest"] == record
    assert ShortestMemory().gives == {"shortest"}
