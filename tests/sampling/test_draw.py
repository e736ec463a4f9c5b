"""Draws: the right distribution, from the rollout's own stream alone, and honest about ties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from optpo.entropy_places import LEAST_ENTROPY
from optpo.sampling.draw import (
    LISTED_ABOVE,
    Noise,
    arrivals,
    draw_tokens,
    edges_of,
    waiting_times,
)
from optpo.sampling.engine import SampleSettings

DRAWS = 20_000
streams = torch.arange(DRAWS) * 6364136223846793005 + 1442695040888963407


def drawn(logits, streams, positions, settings, tolerance):
    return draw_tokens(logits, Noise(streams, positions), settings, tolerance)


def counts_of(tokens, vocabulary):
    return np.bincount(tokens.numpy(), minlength=vocabulary)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature):
    """Over many streams tokens are distributed as softmax(logits / temperature) (chi-square)."""
    logits = torch.tensor([1.0, 0.2, -0.5, 2.0, 0.0, -3.0, 1.5])
    settings = SampleSettings(temperature=temperature)
    rows = logits.expand(DRAWS, -1)
    draw = drawn(rows, streams, torch.zeros(DRAWS, dtype=torch.int64), settings, 1e-4)
    probabilities = (logits.double() / temperature).softmax(0)
    expected = DRAWS * probabilities.numpy()
    # A correct sampler falls below 1e-4 once in ten thousand seeds; this seed is fixed.
    assert chisquare(counts_of(draw.tokens, 7), expected).pvalue > 1e-4
    assert torch.allclose(draw.logps, probabilities.log()[draw.tokens].float(), atol=1e-6)


@pytest.mark.parametrize("vocabulary", [7, 2 * LISTED_ABOVE])
def test_the_temperature_by_entropy(vocabulary):
    """A row is drawn at 1 + strength * place of the temperature; its log-probs are at that one.

    Of a scale from the least entropy over 0.1 nats to the most, an undecided row is at the upper end
    and is drawn flatter, a decided one at the lower and sharper, one at the quantile as without.
    """
    generator = torch.Generator().manual_seed(4)
    logits = 1.5 * torch.randn(vocabulary, generator=generator)
    for shift, place in ((1.0, 1.0), (3.0, None), (2e2, -1.0)):
        row = shift * logits
        logps = (row.double() / 0.8).log_softmax(0)
        entropy = float(-(logps.exp() * logps).nan_to_num().sum())
        pivot = math.log(max(entropy, LEAST_ENTROPY)) if place is None else math.log(0.1)
        by_entropy = torch.tensor([[0.4, math.log(LEAST_ENTROPY), pivot, math.log(0.2)]])
        draw = draw_tokens(
            row.expand(DRAWS, -1), Noise(streams, torch.zeros(DRAWS, dtype=torch.int64)),
            SampleSettings(temperature=0.8), 1e-4, by_entropy.expand(DRAWS, -1),
        )  # fmt: skip
        expected = DRAWS * (logps / (1 + 0.4 * (place or 0))).softmax(0).numpy()
        often = expected > 5
        found = counts_of(draw.tokens, vocabulary)
        assert np.abs(found[~often].sum() - expected[~often].sum()) < 5 * np.sqrt(DRAWS)
        if often.sum() > 1:
            scaled = expected[often] * found[often].sum() / expected[often].sum()
            assert chisquare(found[often], scaled).pvalue > 1e-4
        assert torch.allclose(draw.logps, logps[draw.tokens].float(), atol=1e-4)


def test_rounding_that_moves_the_temperature_is_seen():
    """Logits that are off by a twentieth of the tolerance: draws that differ for it were close."""
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(DRAWS, 7, generator=generator)
    noise = 1e-4 * (torch.rand(DRAWS, 7, generator=generator) - 0.5)
    entropies = torch.distributions.Categorical(logits=logits).entropy().log()
    around = torch.stack([entropies - 0.05, entropies, entropies + 0.05], dim=-1)
    by_entropy = torch.cat([torch.full((DRAWS, 1), 0.9), around], dim=-1)
    first, second = (
        draw_tokens(
            some, Noise(streams, torch.zeros(DRAWS, dtype=torch.int64)), SampleSettings(), 1e-3,
            by_entropy,
        )
        for some in (logits, logits + noise)
    )  # fmt: skip
    differing = first.tokens != second.tokens
    assert differing.any()
    assert first.close[differing].all()


def test_draws_along_one_stream_follow_the_softmax():
    """The positions of a single rollout draw independently of each other (chi-square on pairs)."""
    logits = torch.tensor([0.5, 0.0, -1.0])
    positions = torch.arange(DRAWS)
    stream = torch.full((DRAWS,), 12345)
    draw = drawn(logits.expand(DRAWS, -1), stream, positions, SampleSettings(), 1e-4)
    probabilities = logits.double().softmax(0).numpy()
    assert chisquare(counts_of(draw.tokens, 3), DRAWS * probabilities).pvalue > 1e-4
    pairs = draw.tokens[0::2] * 3 + draw.tokens[1::2]
    expected = DRAWS // 2 * np.outer(probabilities, probabilities).ravel()
    assert chisquare(counts_of(pairs, 9), expected).pvalue > 1e-4


def test_a_draw_is_a_function_of_stream_and_position():
    """Neither the row's place in the batch nor its neighbours change a draw."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(40, 50, generator=generator)
    positions = torch.arange(40) % 7
    draw = drawn(logits, streams[:40], positions, SampleSettings(), 1e-4)
    order = torch.randperm(40, generator=generator)
    shuffled = drawn(logits[order], streams[:40][order], positions[order], SampleSettings(), 1e-4)
    assert shuffled.tokens.equal(draw.tokens[order])
    alone = [
        drawn(
            logits[row : row + 1],
            streams[row : row + 1],
            positions[row : row + 1],
            SampleSettings(),
            1e-4,
        )
        for row in range(40)
    ]
    assert torch.cat([one.tokens for one in alone]).equal(draw.tokens)


def noise(streams, positions, vocabulary):
    """Gumbel noise: minus the logarithm of a token's waiting time."""
    state = Noise(torch.tensor(streams), torch.tensor(positions)).state()
    return -waiting_times(state, torch.arange(vocabulary)).log()


@pytest.mark.parametrize("rows", [1, 5, 300])
def test_noise_moves_on_as_if_made_anew(rows):
    """Noise that is computed some positions ahead is that of each position by itself."""
    moving = Noise(streams[:rows], torch.arange(rows) % 3)
    for position in range(40):
        anew = Noise(streams[:rows], torch.arange(rows) % 3 + position)
        assert moving.state().equal(anew.state())
        assert moving.log_times(90).equal(anew.log_times(90))
        moving.move_on()


def test_streams_and_positions_matter():
    """Another stream, another position, another noise: no two rows of noise are alike."""
    first = noise([1, 1, 2], [0, 1, 0], 1000)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        correlation = np.corrcoef(first[one], first[other])[0, 1]
        assert abs(correlation) < 0.15
        assert not (first[one] == first[other]).any()


@pytest.mark.parametrize("start", [0, -(2**63), 2**63 - 5])
def test_noise_is_finite_and_gumbel(start):
    """Noise is finite for any stream, with a Gumbel's mean (0.5772) and variance (pi^2 / 6)."""
    found = noise([start], [511], 200_000)
    assert found.isfinite().all()
    assert float(found.mean()) == pytest.approx(0.5772, abs=0.015)
    assert float(found.var()) == pytest.approx(np.pi**2 / 6, rel=0.02)


def test_the_extremes_of_the_hash_give_finite_noise(monkeypatch):
    """All bits zero and all bits one, the ends of the uniform range, are still finite noise."""
    for bits in (0, -1):
        monkeypatch.setattr(
            "optpo.sampling.draw._mix", lambda state, bits=bits: torch.full_like(state, bits)
        )
        assert noise([3], [1], 4).isfinite().all()
        tokens, times = arrivals(torch.tensor([3]), 150_001)
        assert 0 <= int(tokens.min()) <= int(tokens.max()) < 150_001
        assert times.log().isfinite().all()


def all_times(state, vocabulary):
    """Every token's waiting time: its first listed arrival, or else the last arrival and a rest."""
    tokens, times = arrivals(state, vocabulary)
    late = times[:, -1:] + waiting_times(state, torch.arange(vocabulary))
    return late.scatter_reduce(-1, tokens, times, "amin")


def test_listed_arrivals_make_exponential_times():
    """With the first arrivals listed, tokens' times are exponential and independent still: mean 1,
    variance 1, and every token as often among the first (chi-square)."""
    times = all_times(torch.arange(3000) * 7919, 1100)
    assert float(times.mean()) == pytest.approx(1, abs=0.005)
    assert float(times.var()) == pytest.approx(1, abs=0.01)
    # The share that arrives by each of these times.
    for time in (1e-3, 0.05, 0.1, 0.2, 1.0):
        share = 1 - np.exp(-time)
        spread = (share * (1 - share) / times.numel()) ** 0.5
        assert abs(float((times < time).double().mean()) - share) < 4.5 * spread
    assert chisquare(counts_of(times.argmin(-1) % 10, 10)).pvalue > 1e-4
    between = np.corrcoef(times[:, 0], times[:, 1])[0, 1]
    assert abs(between) < 0.1


@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0, 12.0])
@pytest.mark.parametrize(
    "truncation", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.05}, {"top_k": 700, "top_p": 0.99}]
)
@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_a_large_vocabulary_gives_the_token_that_all_its_times_give(
    spread, truncation, temperature
):
    """Where most times are left out, flat or peaked, truncated or not, the draw is the one that
    computing every token's time would make."""
    generator = torch.Generator().manual_seed(11)
    logits = spread * torch.randn(200, 3 * LISTED_ABOVE, generator=generator)
    settings = SampleSettings(temperature=temperature, **truncation)
    positions = torch.arange(200) % 5
    draw = drawn(logits, streams[:200], positions, settings, 1e-4)
    scores = logits / temperature
    times = all_times(Noise(streams[:200], positions).state(), logits.shape[-1])
    edges = edges_of(scores, scores.logsumexp(-1, keepdim=True), settings, 1e-4)
    if edges is not None:
        times = times.masked_fill(scores < edges.exactly, torch.inf)
    assert draw.tokens.equal((scores - times.log()).argmax(-1))
    assert torch.allclose(
        draw.logps, scores.log_softmax(-1).gather(-1, draw.tokens[:, None])[:, 0], atol=1e-5
    )


logit_rows = st.lists(st.integers(-6, 6), min_size=1, max_size=9).map(
    lambda row: torch.tensor(row, dtype=torch.float64)
)


def brute_force_support(logits, top_k, top_p, min_p):
    """Tokens each truncation keeps; of equally likely tokens at an edge all stay."""
    probabilities = logits.softmax(0).tolist()
    kept = set()
    for token, probability in enumerate(probabilities):
        likelier = [other for other in probabilities if other > probability * (1 + 1e-12)]
        inside = top_k == 0 or len(likelier) < top_k
        inside &= sum(likelier) < top_p - 1e-12 or top_p == 1
        inside &= probability >= min_p * max(probabilities) * (1 - 1e-12)
        if inside or not likelier:
            kept.add(token)
    return kept


@given(
    logit_rows,
    st.integers(0, 10),
    st.sampled_from([0.05, 0.31, 0.5, 0.77, 0.93, 1.0]),
    st.sampled_from([0.0, 0.01, 0.2, 0.9]),
)
def test_truncations_keep_the_tokens_they_define(logits, top_k, top_p, min_p):
    """Top-k, top-p and min-p, alone and together, keep what a literal reading of them keeps."""
    settings = SampleSettings(top_k=top_k, top_p=top_p, min_p=min_p)
    scores = logits[None].float()
    edges = edges_of(scores, scores.logsumexp(-1, keepdim=True), settings, 0.0)
    kept = range(len(logits))
    if edges is not None:
        kept = (scores >= edges.exactly).nonzero()[:, 1].tolist()
    assert set(kept) == brute_force_support(logits, top_k, top_p, min_p)


@pytest.mark.parametrize(
    ("settings", "support"),
    [
        (SampleSettings(top_k=2), {0, 1}),
        (SampleSettings(top_p=0.6), {0, 1}),
        (SampleSettings(top_p=0.4), {0}),
        (SampleSettings(min_p=0.25), {0, 1, 2}),
        (SampleSettings(top_k=3, min_p=0.55), {0, 1}),
    ],
)
def test_draws_stay_inside_the_truncation(settings, support):
    """With probabilities .5, .3, .15, .05 draws take exactly the tokens kept, in their proportions;
    log-probs stay those before truncation."""
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    rows = probabilities.log().expand(DRAWS, -1)
    draw = drawn(rows, streams, torch.ones(DRAWS, dtype=torch.int64), settings, 1e-4)
    assert set(draw.tokens.tolist()) == support
    inside = probabilities[sorted(support)].double()
    expected = DRAWS * (inside / inside.sum()).numpy()
    if len(support) > 1:
        assert chisquare(counts_of(draw.tokens, len(support)), expected).pvalue > 1e-4
    assert torch.allclose(draw.logps, probabilities.log()[draw.tokens], atol=1e-6)


def test_temperature_zero_is_greedy():
    """At temperature 0 the likeliest token is drawn on any stream, with its plain log-prob."""
    logits = torch.randn(30, 20, generator=torch.Generator().manual_seed(3))
    settings = SampleSettings(temperature=0, top_k=5)
    draw = drawn(logits, streams[:30], torch.arange(30), settings, 1e-4)
    assert draw.tokens.equal(logits.argmax(-1))
    assert torch.allclose(draw.logps, logits.log_softmax(-1).max(-1).values, atol=1e-5)


@pytest.mark.parametrize(("gap", "close"), [(0.0, True), (0.5e-4, True), (2e-4, False)])
def test_a_draw_within_the_tolerance_says_so(gap, close):
    """The flag is raised exactly when the second-best token is nearer than the tolerance."""
    logits = torch.tensor([[1.0, 1.0 + gap, -4.0]], dtype=torch.float64)
    settings = SampleSettings(temperature=0)
    zero = torch.zeros(1, dtype=torch.int64)
    assert drawn(logits, zero, zero, settings, 1e-4).close.tolist() == [close]


@pytest.mark.parametrize("temperature", [0, 0.01, 0.5, 1, 3])
@pytest.mark.parametrize(
    "truncation",
    [
        {},
        {"top_k": 1},
        {"top_k": 3},
        {"top_p": 0.55},
        {"top_p": 0.9},
        {"min_p": 0.3},
        {"top_k": 4, "top_p": 0.8, "min_p": 0.1},
    ],
)
@pytest.mark.parametrize("shape", [(DRAWS, 8), (300, LISTED_ABOVE + 1)])
def test_rounding_never_flips_a_draw_that_is_not_close(shape, temperature, truncation):
    """Logits moved by rounding give the same token, or the draw was flagged on both sides: never a
    flagless flip, and never a flag on one side with another token than the flagless side."""
    generator = torch.Generator().manual_seed(7)
    # Few distinct values make near-ties at every truncation edge common.
    logits = torch.randint(0, 4, shape, generator=generator).double()
    rounding = 4e-6 * (torch.rand(2, *logits.shape, generator=generator).double() - 0.5)
    settings = SampleSettings(temperature=temperature, **truncation)
    seeds, positions = streams[: shape[0]], torch.zeros(shape[0], dtype=torch.int64)
    one, other = (drawn(logits + moved, seeds, positions, settings, 1e-4) for moved in rounding)
    # A flagged draw is repeated on a third rounding of the logits.
    third = drawn(logits + rounding.sum(0) / 3, seeds, positions, settings, 0.0)
    settled_one = torch.where(one.close, third.tokens, one.tokens)
    settled_other = torch.where(other.close, third.tokens, other.tokens)
    assert settled_one.equal(settled_other)


def test_rounding_at_the_edge_of_the_mass_is_flagged():
    """Where the likelier tokens' mass is top_p exactly, rounding decides on the next one: a draw
    that it could change is flagged."""
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    generator = torch.Generator().manual_seed(5)
    settings, positions = SampleSettings(top_p=0.8), torch.zeros(DRAWS, dtype=torch.int64)
    one, other = (
        drawn(probabilities.log() + rounding, streams, positions, settings, 1e-4)
        for rounding in 4e-6 * torch.randn(2, DRAWS, 4, generator=generator).double()
    )
    differ = one.tokens != other.tokens
    assert differ.any()
    assert (one.close & other.close)[differ].all()
    assert not one.close.all()


@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}])
@pytest.mark.parametrize("vocabulary", [20, LISTED_ABOVE + 1])
def test_few_draws_are_flagged(settings, vocabulary):
    """On logits without ties hardly a draw in a hundred is close, truncated or not."""
    logits = 2 * torch.randn(10_000, vocabulary, generator=torch.Generator().manual_seed(2))
    positions = torch.zeros(10_000, dtype=torch.int64)
    draw = drawn(logits, streams[:10_000], positions, SampleSettings(**settings), 1e-4)
    assert draw.close.float().mean() < 0.01


@pytest.mark.parametrize(
    "truncation", [{"top_k": 700}, {"top_p": 0.5}, {"top_p": 0.999}, {"top_k": 9, "top_p": 0.9}]
)
def test_truncations_of_a_large_vocabulary_keep_the_tokens_they_define(truncation):
    """Top-k and top-p keep what sorting the whole vocabulary keeps, though they sort its head."""
    settings = SampleSettings(**truncation)
    scores = 3 * torch.randn(20, 2000, generator=torch.Generator().manual_seed(4))
    edges = edges_of(scores, scores.logsumexp(-1, keepdim=True), settings, 1e-4)
    ordered = scores.double().softmax(-1).sort(-1, descending=True)
    mass_before = ordered.values.cumsum(-1) - ordered.values
    kept = (scores >= edges.exactly).gather(-1, ordered.indices)
    # Masses are known to float32.
    for slack in (-1e-5, 1e-5):
        inside = mass_before < settings.top_p + slack
        inside[:, settings.top_k or 2000 :] = False
        assert ((kept >= inside) if slack < 0 else (kept <= inside)).all()
