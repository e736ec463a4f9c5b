"""Slots in use over time, by hand and against a sum over small steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.sampling.occupancy import Occupancy


def filled(spans):
    """An occupancy that saw (seconds, in flight, slots), one after the other."""
    now = [0.0]
    occupancy = Occupancy(clock=lambda: now[0])
    for seconds, in_flight, slots in spans:
        occupancy.note(in_flight, slots)
        now[0] += seconds
    occupancy.note(0, 1)
    return occupancy


def test_by_hand():
    """3 seconds with 4 of 4 slots and 1 second with 1 of 4: 13 of 16; 3 slot seconds idle."""
    occupancy = filled([(3, 9, 4), (1, 1, 4)])
    assert occupancy.seconds == 4
    assert occupancy.idle_slot_seconds == 3
    assert occupancy.share == pytest.approx(13 / 16)
    assert occupancy.over_time(4) == pytest.approx([1, 1, 1, 0.25])
    assert occupancy.over_time(2) == pytest.approx([1, 0.625])


def test_nothing_happened():
    """Without time there is no share, and nothing over time."""
    for occupancy in (Occupancy(), filled([])):
        assert (occupancy.share, occupancy.over_time()) == (None, [])


@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.integers(0, 6), st.integers(1, 6)), min_size=1, max_size=9
    ),
    st.integers(1, 30),
)
def test_the_pieces_add_up(spans, pieces):
    """The shares over time are those of a sum over small steps, and with equal slots their mean is
    the whole share."""
    occupancy, seconds = filled(spans), sum(span for span, _, _ in spans)
    steps = [step for span in spans for step in [span] * (span[0] * pieces)]
    for piece, share in enumerate(occupancy.over_time(pieces)):
        part = steps[piece * seconds : (piece + 1) * seconds]
        used = sum(min(busy, slots) for _, busy, slots in part)
        assert share == pytest.approx(used / sum(slots for _, _, slots in part))
    equal = filled([(span, busy, 4) for span, busy, _ in spans])
    assert sum(equal.over_time(pieces)) / pieces == pytest.approx(equal.share)
