"""mean@k, pass@k and maj@k against brute force over subsets."""

import math
from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from optpo.errors import DataError
from optpo.voting import UNPARSED, Tally
from optpo.voting.accuracy import (
    Asked,
    majorities,
    majority_at_k,
    mean_at_n,
    mean_with_interval,
    pass_at_k,
    passes,
    usual_k,
)


@pytest.mark.parametrize("samples", range(1, 8))
def test_pass_at_k_counts_subsets(samples: int) -> None:
    """pass@k is the share of all k-subsets that hold a right sample."""
    for right in range(samples + 1):
        outcomes = [True] * right + [False] * (samples - right)
        for k in range(1, samples + 1):
            subsets = list(combinations(outcomes, k))
            expected = sum(any(subset) for subset in subsets) / len(subsets)
            assert pass_at_k(samples, right, k) == pytest.approx(expected, abs=1e-15)


def test_pass_at_k_of_thousands() -> None:
    """Binomials far beyond a float's range do not overflow: 1 - prod (1 - k / (n - i))."""
    expected = 1 - math.prod(1 - 1000 / (5000 - i) for i in range(3))
    assert pass_at_k(5000, 3, 1000) == pytest.approx(expected)


@given(st.lists(st.integers(UNPARSED, 3), min_size=1, max_size=6), st.sets(st.integers(0, 3)))
def test_majority_at_k_counts_orders(votes: list[int], right: set[int]) -> None:
    """maj@k is the share of ordered draws of k votes whose tally is led by a right class."""
    for k in range(1, len(votes) + 1):
        leaders = [Tally(draw).leader for draw in permutations(votes, k)]
        expected = sum(leader in right for leader in leaders) / len(leaders)
        assert majority_at_k(votes, right, k) == pytest.approx(expected, abs=1e-12)


def test_majority_at_one_is_the_mean() -> None:
    """A vote of one is right as often as a rollout is."""
    votes = [0] * 20 + [1] * 30 + [2] * 10 + [UNPARSED] * 4
    assert majority_at_k(votes, {0}, 1) == 20 / 64


def test_majority_of_all_is_the_leader() -> None:
    """With k all votes there is nothing left to chance but a tie."""
    votes = [0] * 30 + [1] * 20 + [UNPARSED] * 14
    assert majority_at_k(votes, {0}, 64) == 1
    assert majority_at_k(votes, {1}, 64) == 0
    assert majority_at_k([0, 0, 1, 1, 2], {1}, 5) == 0.5


def test_majority_over_many_single_answers() -> None:
    """64 different answers: every vote leads equally often, whatever k is."""
    assert majority_at_k(list(range(64)), {5}, 32) == 1 / 64


def test_interval_is_wilson_for_zeros_and_ones() -> None:
    """For right-or-wrong shares the interval is the one SciPy names Wilson's."""
    for right in (0, 3, 11, 12):
        mean, low, high = mean_with_interval([1.0] * right + [0.0] * (12 - right))
        expected = binomtest(right, 12).proportion_ci(method="wilson")
        assert mean == right / 12
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_interval_holds_the_mean(shares: list[float]) -> None:
    """The ends lie in [0, 1] with the mean between them."""
    mean, low, high = mean_with_interval(shares)
    assert 0 <= low <= mean <= high <= 1
    assert low < high


@pytest.mark.parametrize(
    "call",
    [
        lambda: pass_at_k(4, 5, 1),
        lambda: pass_at_k(4, -1, 1),
        lambda: pass_at_k(4, 2, 0),
        lambda: pass_at_k(4, 2, 5),
        lambda: majority_at_k([0, 0], {0}, 3),
        lambda: majority_at_k([], {0}, 1),
        lambda: mean_with_interval([]),
        lambda: mean_with_interval([0.5, float("nan")]),
    ],
)
def test_impossible_numbers_are_refused(call) -> None:
    """A k beyond the samples, or a share that is none, is an error and no number."""
    with pytest.raises(DataError):
        call()


def test_accuracies_of_hand_counted_votes() -> None:
    """Two questions of four votes: mean, pass@2 and maj@4 by hand."""
    # Right: 3 of 4 and 1 of 4. pass@2: 1 and 1 - C(3,2)/C(4,2) = 1/2. The majorities: right, wrong.
    questions = [Asked((0, 0, 0, 1), {0}, 3), Asked((0, 1, 1, -1), {0}, 1)]
    mean = mean_at_n(questions)
    assert mean.value == 0.5
    assert mean.low < 0.5 < mean.high
    assert passes(questions, 2).value == 0.75
    assert majorities(questions, 4).value == 0.5


def test_hits_are_counted_apart_from_right_classes() -> None:
    """Rollouts without an answer may be right by a function; they lead no vote."""
    questions = [Asked((-1, -1, 0), {0}, 2)]
    assert mean_at_n(questions).value == pytest.approx(2 / 3)
    assert passes(questions, 2).value == 1
    assert majorities(questions, 3).value == 1


@pytest.mark.parametrize(("samples", "k"), [(1, [1]), (4, [1, 4]), (12, [1, 4, 12])])
def test_the_usual_k_end_with_all_samples(samples: int, k: list[int]) -> None:
    """1, 4, 16, 64 below the samples, and the samples."""
    assert usual_k(samples) == k
