"""Aggregation: token weights that are fixed before a batch is cut into pieces."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.objectives.aggregate import token_weights

lengths_of_rollouts = st.lists(st.integers(1, 30), min_size=1, max_size=8).map(torch.tensor)


@pytest.mark.parametrize(
    ("aggregate", "loss"),
    [
        ("token-mean", 1.6667),
        ("sequence-mean-token-sum", 5.0),
        ("sequence-mean-token-mean", 1.5),
        ("constant-length", 1.25),
        ("sum", 10.0),
    ],
)
def test_the_reference_sets_aggregations(aggregate, loss):
    """Losses [1, 1] and [2, 2, 2, 2] aggregate to the dossier's numbers."""
    losses = torch.tensor([1.0, 1, 2, 2, 2, 2])
    weights = token_weights(torch.tensor([2, 4]), aggregate)
    assert float((weights * losses).sum()) == pytest.approx(loss, abs=1e-4)


@given(lengths_of_rollouts)
def test_what_weights_sum_to(lengths):
    """Means weigh 1 in all; a mean of sums weighs a token by 1/R; a mean of means weighs every
    rollout alike."""
    rollouts, tokens = len(lengths), int(lengths.sum())
    segments = torch.repeat_interleave(torch.arange(rollouts), lengths)
    token_mean = token_weights(lengths, "token-mean")
    assert token_mean.shape == (tokens,)
    assert float(token_mean.sum()) == pytest.approx(1, rel=1e-5)
    assert len(set(token_mean.tolist())) == 1
    mean_of_means = token_weights(lengths, "sequence-mean-token-mean")
    shares = torch.zeros(rollouts).index_add(0, segments, mean_of_means)
    assert torch.allclose(shares, torch.full((rollouts,), 1 / rollouts))
    mean_of_sums = token_weights(lengths, "sequence-mean-token-sum")
    assert torch.allclose(mean_of_sums, torch.full((tokens,), 1 / rollouts))


@given(st.integers(1, 9), st.integers(1, 5))
def test_equal_lengths_make_the_means_equal(length, rollouts):
    """Where all rollouts are of one length the two means are the same."""
    lengths = torch.full((rollouts,), length)
    assert torch.allclose(
        token_weights(lengths, "token-mean"), token_weights(lengths, "sequence-mean-token-mean")
    )


@given(lengths_of_rollouts, st.integers(1, 100))
def test_a_constant_length_does_not_depend_on_the_batch(lengths, longest):
    """Every token weighs 1 / (rollouts * longest), whatever the rollouts' lengths; without a longest
    the batch's own is taken."""
    constant = token_weights(lengths, "constant-length", longest)
    assert torch.allclose(constant, torch.full_like(constant, 1 / (len(lengths) * longest)))
    own = token_weights(lengths, "constant-length", int(lengths.max()))
    assert torch.equal(token_weights(lengths, "constant-length"), own)


@given(lengths_of_rollouts)
def test_a_sum_weighs_every_token_1(lengths):
    """An objective that aggregates itself is not aggregated again."""
    assert token_weights(lengths, "sum").tolist() == [1.0] * int(lengths.sum())
