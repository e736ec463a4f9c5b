"""What holds for every memory, whatever it remembers."""

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.recipes.registry import part_class, parts
from tests.shapes.rewarded import with_lengths

every_memory = pytest.mark.parametrize("name", parts()["memory"])

reward = st.sampled_from([0.0, 1.0, math.nan])
steps = st.lists(
    st.lists(st.lists(reward, min_size=1, max_size=3), min_size=3, max_size=3),
    min_size=1,
    max_size=3,
)


def advance(memory, past, run, rewards):
    """A step in which every question was visited before by a drift of .01."""
    batch = with_lengths([[1 + place for place in range(len(some))] for some in rewards])
    entropies = torch.linspace(0.01, 1, len(batch.token_rollouts))
    batch = replace(batch, token_values={"entropy": entropies})
    flat = torch.tensor([one for some in rewards for one in some])
    return memory.remember(past, run, batch, flat, [0.01] * len(rewards))


@every_memory
@given(steps=steps)
def test_notes_survive_json_and_recall_every_question(name, steps):
    """Loaded from JSON the notes go on to the same; every question gets a number, NaN only at first."""
    memory = part_class("memory", name)()
    begun = memory.begin([1.0] * memory.initial_rollouts)
    kept = loaded = ([begun, {}, {}], {})
    for rewards in steps:
        for values in memory.recall(*loaded).values():
            assert values.shape == (3,)
            assert values.dtype == torch.float32
            # Not a number says that nothing is known, of this question or by any so far.
            assert loaded[1] == {} or not values.isnan().any()
        kept = advance(memory, *kept, rewards)
        loaded = json.loads(json.dumps(advance(memory, *loaded, rewards)))
    assert list(kept) == loaded
    assert bool(memory.recall(*kept)) is bool(memory.gives)


@every_memory
@given(steps=steps)
def test_arguments_are_left_alone(name, steps):
    """New notes are returned; the old ones stay, so that a step may be done again."""
    memory = part_class("memory", name)()
    past, run = [{}, {}, {}], {}
    for rewards in steps:
        before = json.dumps([past, run])
        after = advance(memory, past, run, rewards)
        assert json.dumps([past, run]) == before
        assert len(after[0]) == 3
        past, run = after
