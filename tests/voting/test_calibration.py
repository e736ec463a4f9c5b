"""Claimed confidence against observed agreement."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
