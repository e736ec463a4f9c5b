"""What is done about an answer that did not come."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.sampling.retry import DOUBLINGS, pause, remedy_of, retry_after

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("statuses", "remedy"),
    [
        ((408, 429, 503, 504), "slower"),
        ((409, 425, 500, 502, 599), "again"),
        ((400, 413, 415, 422), "refused"),
        ((301, 307, 401, 402, 403, 404, 405), "fatal"),
    ],
)
def test_each_status_has_its_remedy(statuses, remedy):
    """What may heal is asked again, an overload more slowly; a refusal is of this question or of
    everybody."""
    assert {remedy_of(status) for status in statuses} == {remedy}


def test_an_empty_account_is_no_rate_limit():
    """It comes with the same status, and waiting does not fill it."""
    assert remedy_of(429, "insufficient_quota") == "fatal"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90.0),
        ({"retry-after": format_datetime(NOW - timedelta(hours=1), usegmt=True)}, 0.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 -0000"}, 30.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "inf"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
    ],
)
def test_retry_after_is_read_in_every_form(headers, seconds):
    """Seconds, milliseconds and dates; what cannot be read asks for nothing."""
    assert retry_after(headers, NOW) == pytest.approx(seconds)


@given(st.text(max_size=40))
def test_no_retry_after_breaks_the_reader(text):
    """Whatever a server writes there is a wait of 0 seconds or more."""
    assert 0 <= retry_after({"retry-after": text}, NOW) < float("inf")


@given(st.integers(1, 10**6), st.floats(0.001, 10), st.floats(0, 1))
def test_pauses_are_spread_over_a_limit_that_doubles(failures, first, drawn):
    """Full jitter: from nothing to the limit, which doubles up to a cap."""
    limit = pause(failures, first, lambda: 1.0)
    assert limit == first * 2 ** min(failures - 1, DOUBLINGS)
    assert pause(failures, first, lambda: drawn) == pytest.approx(drawn * limit)
