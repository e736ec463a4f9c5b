"""The bounds on any stopping rule, against hand-worked values and numerical minimisation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import xlogy
from scipy.stats import entropy

from optpo.errors import DataError
from optpo.voting import (
    fixed_vote_exponent,
    known_shape_rate,
    least_mean_votes,
    least_mean_votes_log,
    mode_divergence,
)

SHAPES = st.lists(st.floats(0.01, 1), min_size=2, max_size=5).map(lambda p: np.array(p) / sum(p))


@pytest.mark.parametrize(
    ("shares", "divergence"),
    [
        ([0.6, 0.4], 0.6 * math.log(1.2) + 0.4 * math.log(0.8)),
        ([0.2, 0.5, 0.3], 0.5 * math.log(1.25) + 0.3 * math.log(0.75)),
        ([1.0], math.log(2)),
        ([0.7, 0.0], 0.7 * math.log(2)),
        ([0.4, 0.4, 0.2], 0.0),
        ([0.0, 0.0], 0.0),
    ],
)
def test_the_divergence_is_the_one_of_the_formula(shares, divergence):
    """p1 ln(2 p1 / (p1 + p2)) + p2 ln(2 p2 / (p1 + p2)), worked by hand."""
    assert mode_divergence(shares) == pytest.approx(divergence, abs=1e-15)


@given(SHAPES)
def test_no_distribution_with_another_mode_is_nearer(shares):
    """Minimising KL(P || Q) over all Q in which a given other class is the mode finds D*."""
    shares = np.sort(shares)[::-1]
    nearest = math.inf
    for other in range(1, len(shares)):
        found = minimize(
            lambda q: float(xlogy(shares, shares / q).sum()),
            np.full(len(shares), 1 / len(shares)),
            jac=lambda q: -shares / q,
            bounds=[(1e-9, 1)] * len(shares),
            constraints=[
                {"type": "eq", "fun": lambda q: q.sum() - 1},
                {"type": "ineq", "fun": lambda q, other=other: q[other] - q},
            ],
            options={"ftol": 1e-12, "maxiter": 500},
        )
        nearest = min(nearest, found.fun)
    assert mode_divergence(shares) == pytest.approx(nearest, abs=2e-6)


@given(SHAPES)
def test_the_divergence_lies_between_its_two_bounds(shares):
    """(p1 - p2)^2 / (2 (p1 + p2)) <= D* <= twice that, and D* is an entropy that is missing."""
    second, first = np.sort(shares)[-2:]
    square = (first - second) ** 2 / (first + second)
    divergence = mode_divergence(shares)
    assert square / 2 - 1e-12 <= divergence <= square + 1e-12
    two = entropy([first, second])
    assert divergence == pytest.approx((first + second) * (math.log(2) - two), abs=1e-12)


def test_the_fewest_votes_are_those_of_a_worked_example():
    """For .6 against .4 and an error of .05: .9 ln 19 and ln(1/.12) nats at .0201355 a vote."""
    assert least_mean_votes([0.6, 0.4], 0.05) == pytest.approx(131.61, abs=0.01)
    assert least_mean_votes_log([0.6, 0.4], 0.05) == pytest.approx(105.30, abs=0.01)
    assert least_mean_votes([0.4, 0.4], 0.05) == math.inf


@given(SHAPES, st.floats(1e-9, 0.499))
def test_the_simple_form_is_never_the_higher_one(shares, error):
    """kl(d, 1 - d) >= ln(1 / (2.4 d)), the first as scipy has it, and the second above 0."""
    exact, simple = least_mean_votes(shares, error), least_mean_votes_log(shares, error)
    assert 0 <= simple <= exact
    if math.isfinite(exact):
        divergence = entropy([error, 1 - error], [1 - error, error])
        assert exact * mode_divergence(shares) == pytest.approx(divergence, abs=1e-9)


@pytest.mark.parametrize("shares", [(0.6, 0.4), (0.5, 0.3, 0.2), (0.2, 0.15, 0.65), (0.05, 0.02)])
def test_the_exponent_is_that_of_the_exact_error(shares):
    """The chance that the rival of a plain vote is not behind falls as exp(-n x exponent)."""
    second, first = sorted(shares)[-2:]
    exponent = float(fixed_vote_exponent([first, second]))
    one = np.array([second, 1 - first - second, first])  # what a vote adds to the lead: -1, 0, 1
    lead, errors = np.array([1.0]), []
    for n in range(1, 1501):
        lead = np.convolve(lead, one)
        errors.append(lead[: n + 1].sum())
        assert errors[-1] <= math.exp(-n * exponent) * (1 + 1e-9)
    # Up to a power of n the bound is the truth: between n = 750 and 1500 the slope is the exponent.
    slope = math.log(errors[749] / errors[1499]) / 750
    assert slope == pytest.approx(exponent, abs=0.6 * math.log(2) / 750)


@given(SHAPES)
def test_the_rate_at_a_known_shape_is_the_divergence_from_the_swapped_one(shares):
    """A test that knows the shape tells P from P with the two first answers swapped."""
    shares = np.sort(shares)[::-1]
    swapped = shares.copy()
    swapped[:2] = shares[1::-1]
    assert known_shape_rate(shares) == pytest.approx(entropy(shares, swapped), abs=1e-9)
    assert known_shape_rate(shares) >= mode_divergence(shares) - 1e-12


def test_knowing_the_shape_is_worth_four_times_the_votes_where_answers_are_close():
    """For small gaps the rate at a known shape is 4 D*; with one answer only it has no limit."""
    close = [0.301, 0.3]
    assert known_shape_rate(close) / mode_divergence(close) == pytest.approx(4, rel=1e-3)
    assert known_shape_rate([0.3]) == math.inf
    assert known_shape_rate([0.3, 0.3]) == 0
    assert fixed_vote_exponent([1.0]) == math.inf


def test_many_shapes_and_errors_at_once():
    """A stack of shapes gives the value of each, and errors go with them."""
    shapes = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    for function in (mode_divergence, fixed_vote_exponent, known_shape_rate):
        assert function(shapes).tolist() == [float(function(shape)) for shape in shapes]
    for bound in (least_mean_votes, least_mean_votes_log):
        table = bound(shapes, np.array([[0.1], [0.01]]))
        expected = [[float(bound(shape, error)) for shape in shapes] for error in (0.1, 0.01)]
        assert table.tolist() == expected


@pytest.mark.parametrize("shares", [[], 0.5, [0.7, 0.4], [-0.1, 0.5], [math.nan]])
def test_what_is_no_shape_is_refused(shares):
    """Shares are numbers from 0 that sum to 1 at most."""
    with pytest.raises(DataError, match="shares must"):
        mode_divergence(shares)


@pytest.mark.parametrize("error", [0, 0.5, -1, math.nan, [0.1, 0.7]])
@pytest.mark.parametrize("bound", [least_mean_votes, least_mean_votes_log])
def test_an_error_out_of_range_is_refused(bound, error):
    """An error rate lies between 0 and one half."""
    with pytest.raises(DataError, match="error must"):
        bound([0.6, 0.4], error)
