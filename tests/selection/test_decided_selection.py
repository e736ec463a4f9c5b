"""Which rollouts are trained on."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.batch import pack
from optpo.errors import SettingsError
from optpo.rollout import Rollout
from optpo.selection.decided import AgreeingSelection, DecidedSelection

ragged_rewards = st.lists(
    st.lists(st.sampled_from([0.0, 1.0, 0.1, 0.7]), min_size=1, max_size=6)
    | st.integers(1, 6).map(lambda size: [torch.nan] * size),
    min_size=1,
    max_size=6,
)


def batch_of(sizes):
    return pack(
        [
            [Rollout(f"q{g}", n, 0, (1,), (3,), (-1.0,), "stop") for n in range(size)]
            for g, size in enumerate(sizes)
        ],
        [0] * len(sizes),
    )


def mask_of(selection, groups):
    rewards = torch.tensor([reward for group in groups for reward in group])
    return selection(batch_of([len(group) for group in groups]), rewards).tolist()


@given(ragged_rewards, st.integers(0, 7))
def test_decided_groups_with_different_rewards_are_kept(groups, limit):
    """Kept are the first `limit` of each rewarded group if their rewards differ, and none else."""
    expected = []
    for group in groups:
        first = group[: limit or None]
        differ = group[0] == group[0] and len(set(first)) > 1
        expected += [differ and place < len(first) for place in range(len(group))]
    assert mask_of(DecidedSelection(limit), groups) == expected


@given(ragged_rewards, st.integers(0, 7))
def test_agreeing_rollouts_are_kept(groups, limit):
    """Kept are those among the first `limit` of each group whose reward is above 0."""
    expected = [
        reward > 0 and (limit == 0 or place < limit)
        for group in groups
        for place, reward in enumerate(group)
    ]
    assert mask_of(AgreeingSelection(limit), groups) == expected


@given(st.floats(-10, 10, width=32), st.integers(2, 9))
def test_equal_rewards_teach_nothing(reward, size):
    """A group whose rewards are all equal is never kept, whatever number they are equal to."""
    assert not any(mask_of(DecidedSelection(), [[reward] * size]))


@pytest.mark.parametrize(("by", "expected"), [("reward", (True, True)), ("score", (False, True))])
def test_a_price_on_length_does_not_bring_a_question_back(by, expected):
    """Four right rollouts, one of them shaped for its length, teach only where rewards are asked."""
    rewards = torch.tensor([1.0, 1.0, 1.0, 0.4, 1.0, 0.0])
    batch = replace(batch_of([4, 2]), scores=rewards.ceil())
    keep = DecidedSelection(by=by)(batch, rewards)
    assert keep.tolist() == [expected[0]] * 4 + [expected[1]] * 2
    # A limit counts among those that are compared, and what has no reward is not.
    assert not DecidedSelection(1, by)(batch, rewards).any()
    unrewarded = rewards.index_fill(0, torch.tensor([5]), torch.nan)
    assert not DecidedSelection(by=by)(batch, unrewarded)[4:].any()


@given(ragged_rewards)
def test_where_nothing_is_scored_rewards_are_compared(groups):
    """A recipe that goes by scores works by votes too."""
    assert mask_of(DecidedSelection(by="score"), groups) == mask_of(DecidedSelection(), groups)


def test_nothing_decided_keeps_nothing():
    """A step whose questions all stayed undecided has an empty mask, not an error."""
    assert mask_of(DecidedSelection(), [[torch.nan] * 3, [torch.nan]]) == [False] * 4


@pytest.mark.parametrize("selection", [DecidedSelection, AgreeingSelection])
def test_a_negative_limit_is_refused(selection):
    """The limit names its range."""
    with pytest.raises(SettingsError, match="limit is -1"):
        selection(-1)
