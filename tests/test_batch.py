"""The ragged batch: what is packed comes back, and reductions agree with plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.batch import pack, segment_mean, segment_spread, segment_std, segment_sum
from optpo.rollout import Rollout

token = st.integers(0, 500)
rollout = st.builds(
    lambda prompt, tokens, vote, version, start: Rollout(
        "q", 0, version, tuple(prompt), tuple(tokens),
        tuple(-start - n for n, _ in enumerate(tokens)), "stop", vote=vote,
    ),
    st.lists(token, min_size=1, max_size=4),
    st.lists(token, min_size=1, max_size=5),
    st.integers(-1, 2),
    st.integers(0, 3),
    st.integers(0, 9),
)  # fmt: skip
groups_of_rollouts = st.lists(st.lists(rollout, min_size=1, max_size=5), min_size=1, max_size=5)


def read_back(batch):
    """The rollouts of a batch by a literal loop over its offsets."""
    found, logp_place = [], 0
    for number in range(batch.rollouts):
        first, last = int(batch.offsets[number]), int(batch.offsets[number + 1])
        middle = first + int(batch.prompt_lengths[number])
        logps = batch.logps[logp_place : logp_place + last - middle]
        logp_place += last - middle
        found.append(
            (
                int(batch.groups[number]),
                int(batch.labels[batch.groups[number]]),
                tuple(batch.tokens[first:middle].tolist()),
                tuple(batch.tokens[middle:last].tolist()),
                tuple(logps.tolist()),
                int(batch.votes[number]),
                int(batch.versions[number]),
            )
        )
    assert logp_place == len(batch.logps)
    return found


def expected_of(group, label, rollout):
    return (
        group, label, rollout.prompt_tokens, rollout.tokens, rollout.logps, rollout.vote,
        rollout.version,
    )  # fmt: skip


@given(groups_of_rollouts)
def test_packing_loses_nothing(groups):
    """Every rollout lies in the batch with label, tokens, log-probs, vote and version."""
    labels = [number - 1 for number in range(len(groups))]
    batch = pack(groups, labels)
    expected = [
        expected_of(number, labels[number], one)
        for number, group in enumerate(groups)
        for one in group
    ]
    assert read_back(batch) == expected
    assert batch.group_count == len(groups)
    assert batch.lengths.tolist() == [len(one.tokens) for group in groups for one in group]
    assert batch.completion_offsets.tolist() == np.cumsum([0, *batch.lengths.tolist()]).tolist()
    assert batch.token_rollouts.bincount().tolist() == batch.lengths.tolist()


@given(groups_of_rollouts, st.data())
def test_selecting_equals_packing_what_is_kept(groups, data):
    """`select` gives the batch that packing only the kept rollouts would, empty groups left out."""
    keep = [[data.draw(st.booleans()) for _ in group] for group in groups]
    labels = list(range(len(groups)))
    whole = with_values(pack(groups, labels))
    selected = whole.select(torch.tensor([flag for group in keep for flag in group]))
    kept = [
        [one for one, flag in zip(group, flags, strict=True) if flag]
        for group, flags in zip(groups, keep, strict=True)
    ]
    packed = with_values(
        pack(
            [group for group in kept if group],
            [label for label, group in zip(labels, kept, strict=True) if group],
        )
    )
    assert read_back(selected) == read_back(packed)
    for name, expected in vars(packed).items():
        found = getattr(selected, name)
        pairs = [(found, expected)] if isinstance(expected, torch.Tensor) else []
        if isinstance(expected, dict):
            pairs = [(found[key], expected[key]) for key in expected]
        assert all(one.equal(other) for one, other in pairs), name


def with_values(batch):
    """A batch with scores and other values that can be told from what it holds."""
    return replace(
        batch,
        scores=batch.offsets.diff() + batch.versions.float(),
        question_values={"greedy": batch.labels.float()},
        token_values={"entropy": -batch.logps},
    )


ragged_values = st.lists(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=7), min_size=1, max_size=6
)


@given(ragged_values, st.booleans())
def test_reductions_equal_a_loop_over_groups(groups, unbiased):
    """Sum, mean and deviation a segment are numpy's on each group; a group of one deviates by 0."""
    values = torch.tensor([value for group in groups for value in group], dtype=torch.float64)
    segments = torch.tensor([n for n, group in enumerate(groups) for _ in group])
    # Segments may be asked for in any order of their members.
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(len(values)))
    values, segments = values[order], segments[order]
    count = len(groups)
    sums = [sum(group) for group in groups]
    means = [np.mean(group) for group in groups]
    deviations = [np.std(group, ddof=int(unbiased and len(group) > 1)) for group in groups]
    assert np.allclose(segment_sum(values, segments, count), sums, atol=1e-9)
    assert np.allclose(segment_mean(values, segments, count), means, atol=1e-9)
    assert np.allclose(
        segment_std(values, segments, count, unbiased=unbiased), deviations, atol=1e-9
    )
    assert segment_spread(values, segments, count).tolist() == [
        max(group) - min(group) for group in groups
    ]


def test_segments_without_members_are_zero():
    """An empty segment has sum, mean, deviation and spread 0, never a division by zero."""
    values, segments = torch.tensor([1.0, 3.0]), torch.tensor([1, 1])
    assert segment_sum(values, segments, 3).tolist() == [0, 4, 0]
    assert segment_mean(values, segments, 3).tolist() == [0, 2, 0]
    assert segment_std(values, segments, 3).tolist() == [0, pytest.approx(2**0.5), 0]
    assert segment_spread(values, segments, 3).tolist() == [0, 2, 0]


ONE = Rollout("q", 0, 0, (1, 2), (3, 4), (-1.0, -2.0), "stop")


@pytest.mark.parametrize(
    ("groups", "labels", "message"),
    [
        ([[ONE]], [0, 1], "1 groups but 2 labels"),
        ([[ONE], []], [0, 1], "group without rollouts"),
        ([[Rollout("q", 0, 0, (1,), (), (), "error")]], [0], "without tokens"),
        ([[Rollout("q", 0, 0, (), (1,), (-1.0,), "stop")]], [0], "without a prompt"),
        ([[Rollout("q", 7, 0, (1,), (3, 4), (-1.0,), "stop")]], [0], "1 log-probs for 2 tokens"),
    ],
)
def test_what_cannot_be_packed_is_refused(groups, labels, message):
    """A batch that training would misread is refused when it is made, and says why."""
    with pytest.raises(ValueError, match=message):
        pack(groups, labels)
