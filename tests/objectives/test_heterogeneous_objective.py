"""HAPO's parts C and D: advantages and clips by entropy."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.entropy_places import entropy_places, entropy_scale
from optpo.errors import SettingsError
from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.heterogeneous import HeterogeneousObjective
from optpo.objectives.token_batch import TokenBatch


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


# The dossier's ten tokens.
ENTROPIES = double(0.02, 0.05, 0.10, 0.40, 1.2, 0.01, 0.03, 0.20, 0.8, 0.06)
PLACES = double(-0.8121, -0.5637, -0.3758, 0, 1, -1, -0.7022, -0.1879, 0.6309, -0.5143)
RATIOS = double(1, 1, 1.2, 1, 1.2, 0.85, 1, 1, 1, 1)
OBJECTIVE = HeterogeneousObjective()


def places_of(entropies, quantile=0.8):
    return entropy_places(entropies, entropy_scale(entropies, quantile))


def token_batch(entropies=ENTROPIES, ratios=RATIOS, advantages=None):
    advantages = torch.ones_like(ratios) if advantages is None else advantages
    return TokenBatch(ratios.log(), 0 * ratios, advantages, entropies=entropies)


def test_places():
    """Log-entropy from the quantile's .40, scaled on either side to -1 and to 1."""
    assert torch.allclose(places_of(ENTROPIES), PLACES, atol=5e-5)


def test_clips_by_place():
    """D: decided tokens have a wider lower clip, undecided ones a wider upper clip."""
    low, high = OBJECTIVE.clips(places_of(ENTROPIES))
    lows = double(0.3624, 0.3127, 0.2752, 0.2, 0.2, 0.4, 0.3404, 0.2376, 0.2, 0.3029)
    highs = double(0.28, 0.28, 0.28, 0.28, 0.56, 0.28, 0.28, 0.28, 0.4567, 0.28)
    assert torch.allclose(low, lows, atol=5e-5)
    assert torch.allclose(high, highs, atol=5e-5)


def test_advantages_by_place():
    """C: with A = 1, decided tokens inside the inner range weigh less, undecided ones outside more."""
    places = places_of(ENTROPIES)
    intended = double(0.1879, 0.4363, 1, 1, 2, 1, 0.2978, 0.8121, 1, 0.4857)
    result = OBJECTIVE.redistributed(torch.ones(10).double(), RATIOS, places)
    assert torch.allclose(result, intended, atol=5e-5)


def test_decided_tokens_have_their_sign():
    """The published code divides by a negative number: no place is below 0, so no lower clip ever
    widens and no decided token is ever held back. That is kept as an option only."""
    published = HeterogeneousObjective(places="published")
    places = places_of(ENTROPIES).abs()
    low, high = published.clips(places)
    assert bool((low == 0.2).all())
    assert int((high > 0.28).sum()) == 9
    result = published.redistributed(torch.ones(10).double(), RATIOS, places)
    assert torch.allclose(result, double(1, 1, 1.3758, 1, 2, 2, 1, 1, 1, 1), atol=5e-5)
    # And the difference reaches the loss.
    assert not torch.allclose(published(token_batch())[0], OBJECTIVE(token_batch())[0])
    assert bool((OBJECTIVE.clips(places_of(ENTROPIES))[0] > 0.2).any())


def test_the_loss_by_hand():
    """The clipped loss of each token with its own advantage and its own clips."""
    advantages = double(1, -1, 1, 1, 1, -1, 1, 1, -1, 1)
    ratios = double(1.5, 0.5, 1.2, 1.4, 1.5, 0.55, 1, 1, 1.5, 0.95)
    losses, metrics = OBJECTIVE(token_batch(ratios=ratios, advantages=advantages))
    expected = [
        -1.28,  # decided, outside: A = 1; upper clip .28
        1 - 0.3127,  # decided, outside, A = -1: held at 1 - .3127
        -1.2,  # decided, outside
        -1.28,  # at the quantile: as in DAPO
        -1.5 * 2,  # the least decided, outside: A = 2, upper clip .56
        0.6,  # the most decided, A = -1: lower clip .4
        -0.2978,  # decided, inside: less of it
        -0.8121,
        1.5 * 1.6309,  # undecided, outside, A = -1: more of it, no clip from above
        -0.95 * 0.4857,
    ]
    assert torch.allclose(losses, double(*expected), atol=5e-4)
    assert metrics["clip_share"].tolist() == [1, 1, 0, 1, 0, 1, 0, 0, 0, 0]
    assert metrics["undecided_share"].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 1, 0]


def test_equal_entropies_make_it_the_clipped_objective():
    """Without places to speak of, and with both parts off, it is DAPO's loss."""
    even = OBJECTIVE(token_batch(torch.full((10,), 0.3).double()))[0]
    off = HeterogeneousObjective(redistribute=False, widen=False)(token_batch())[0]
    clipped = ClippedObjective(clip_high=0.28)(token_batch())[0]
    assert torch.equal(even, clipped)
    assert torch.equal(off, clipped)


@given(st.lists(st.floats(0, 12), min_size=1, max_size=30), st.floats(0, 1))
def test_places_are_bounded_ordered_and_finite(entropies, quantile):
    """Also with entropies of 0, of which the logarithm is minus infinity."""
    places = places_of(double(*entropies), quantile)
    assert bool((places.abs() <= 1).all())
    order = double(*entropies).argsort()
    assert bool((places[order].diff() >= 0).all())


def test_it_needs_entropies_of_the_whole_optimiser_step():
    """Places are among all its tokens; a batch without entropies is refused."""
    assert OBJECTIVE.needs == {"entropy", "minibatch"}
    with pytest.raises(ValueError, match="entropies"):
        OBJECTIVE(TokenBatch(RATIOS, RATIOS, RATIOS))


@pytest.mark.parametrize(
    "wrong", [{"quantile": 1.5}, {"clip_low": 0.6}, {"clip_high": -1}, {"dual_clip": 0.5}]
)
def test_settings_out_of_range_are_refused(wrong):
    """Each setting names itself and its range."""
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        HeterogeneousObjective(**wrong)
