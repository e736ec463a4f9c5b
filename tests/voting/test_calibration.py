"""Claimed confidence against observed agreement."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from optpo.errors import DataError
from optpo.voting import calibration_bins


def test_a_worked_example_falls_into_its_bins():
    """Three labels at .96 and one at 1.0: counts, claims, shares and Wilson's interval."""
    rows = calibration_bins([0.96, 0.97, 0.98, 1.0], [True, True, False, True])
    assert [(row.low, row.high, row.count) for row in rows] == [(0.95, 0.99, 3), (0.99, 1.0, 1)]
    assert rows[0].claimed == pytest.approx(0.97)
    assert rows[0].observed == pytest.approx(2 / 3)
    # Wilson for 2 of 3 with z = 1.95996: (p + z^2/2n -+ z sqrt(p q/n + z^2/4n^2)) / (1 + z^2/n)
    assert rows[0].interval_low == pytest.approx(0.20766, abs=1e-4)
    assert rows[0].interval_high == pytest.approx(0.93851, abs=1e-4)


def test_the_exact_interval_is_clopper_and_pearsons():
    """For 5 of 5 the lower end solves low^5 = .025."""
    (row,) = calibration_bins([0.9] * 5, [True] * 5, edges=(0, 1), method="exact")
    assert row.interval_low == pytest.approx(0.025 ** (1 / 5))
    assert row.interval_high == 1


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=30))
def test_every_label_is_counted_once(labels):
    """The bins hold all labels, edges 0 and 1 included, and each interval holds its share."""
    rows = calibration_bins([claim for claim, _ in labels], [agreed for _, agreed in labels])
    assert sum(row.count for row in rows) == len(labels)
    for row in rows:
        assert row.interval_low - 1e-9 <= row.observed <= row.interval_high + 1e-9
        assert row.low - 1e-9 <= row.claimed <= row.high + 1e-9


@pytest.mark.parametrize(
    "arguments",
    [
        {"confidences": [0.5], "agrees": []},
        {"confidences": [0.5], "agrees": [True], "questions": ["a", "b"]},
        {"confidences": [1.5], "agrees": [True]},
        {"confidences": [float("nan")], "agrees": [True]},
        {"confidences": [0.5], "agrees": [True], "edges": (0, 0.5)},
        {"confidences": [0.5], "agrees": [True], "edges": (0, 0.7, 0.6, 1)},
        {"confidences": [0.5], "agrees": [True], "level": 1},
    ],
)
def test_impossible_inputs_are_refused(arguments):
    """Unequal lengths, claims outside [0, 1], edges that do not rise and levels of 1."""
    with pytest.raises(DataError):
        calibration_bins(**arguments)


def test_labels_of_one_question_count_as_one():
    """Eight orders of each of five questions make the interval of five labels, not of forty."""
    agrees = [True, True, True, True, False]
    (once,) = calibration_bins([0.9] * 5, agrees, edges=(0, 1))
    (often,) = calibration_bins([0.9] * 40, agrees * 8, list(range(5)) * 8, edges=(0, 1))
    assert (once.count, once.questions) == (5, 5)
    assert (often.count, often.questions) == (40, 5)
    assert often.observed == once.observed == 0.8
    assert often.interval_low == pytest.approx(once.interval_low)
    assert often.interval_high == pytest.approx(once.interval_high)


@pytest.mark.parametrize("method", ["wilson", "exact"])
def test_a_question_with_most_labels_leaves_little_evidence(method):
    """Nine labels of one question and one of another: as wide as (9 + 1)^2 / (81 + 1) labels."""
    (row,) = calibration_bins(
        [0.9] * 10, [True] * 10, ["a"] * 9 + ["b"], edges=(0, 1), method=method
    )
    count = 100 / 82
    z2 = 1.959963984540054**2
    # All agreed: Wilson's lower end is n / (n + z^2), Clopper-Pearson's solves low^n = .025.
    expected = count / (count + z2) if method == "wilson" else 0.025 ** (1 / count)
    assert row.interval_low == pytest.approx(expected)
    assert row.interval_high == 1


@given(st.integers(0, 30), st.integers(1, 30), st.sampled_from(["wilson", "exact"]))
def test_independent_labels_have_scipys_interval(right, more, method):
    """With a question a label it is the interval that scipy gives."""
    count = right + more
    (row,) = calibration_bins(
        [0.9] * count, [True] * right + [False] * more, edges=(0, 1), level=0.9, method=method
    )
    expected = binomtest(right, count).proportion_ci(confidence_level=0.9, method=method)
    assert row.interval_low == pytest.approx(expected.low, abs=1e-9)
    assert row.interval_high == pytest.approx(expected.high, abs=1e-9)


def test_the_interval_covers_where_questions_decide_how_often_a_label_is_right():
    """Of 400 sets of 30 questions in 8 orders, the truth is inside in 95 %; as labels, it is not."""
    draw = np.random.default_rng(0)
    inside = {"questions": 0, "labels": 0}
    for _ in range(400):
        # Each question is right with its own probability, .9 on average, often 0 or 1.
        chances = draw.beta(0.9, 0.1, size=30)
        agrees = draw.random((30, 8)) < chances[:, None]
        names = np.arange(30).repeat(8).tolist()
        for unit, questions in (("questions", names), ("labels", None)):
            (row,) = calibration_bins(np.full(240, 0.9), agrees.ravel(), questions, edges=(0, 1))
            inside[unit] += row.interval_low <= 0.9 <= row.interval_high
    # Twice the standard error of 400 draws below 95 %.
    assert inside["questions"] >= 400 * (0.95 - 2 * (0.95 * 0.05 / 400) ** 0.5)
    assert inside["labels"] < 400 * 0.8
