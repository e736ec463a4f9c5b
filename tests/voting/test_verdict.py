"""Verdicts as they are written and read."""

import json
import math

import pytest

from optpo.errors import DataError
from optpo.voting import Verdict

VERDICT = Verdict("q1", "decided", "1/2", 0.97, {"1/2": 7, "2": 1}, 1, 9, 900, 3, 120)


def test_a_verdict_survives_json():
    """Every field comes back, and fields of a later version are ignored."""
    written = json.loads(json.dumps(VERDICT.to_json()))
    assert Verdict.from_json(written) == VERDICT
    assert Verdict.from_json(written | {"later": 1}) == VERDICT


def test_cancelled_work_may_be_left_out():
    """A verdict without cancelled rollouts needs no word about them."""
    written = VERDICT.to_json()
    del written["cancelled_rollouts"], written["cancelled_tokens"]
    assert Verdict.from_json(written).cancelled_tokens == 0


@pytest.mark.parametrize("kind", ["decided", "capped", "tied", "empty"])
def test_only_a_decided_verdict_is_decided(kind):
    """Undecided is an answer: the other kinds say so."""
    verdict = Verdict.from_json(VERDICT.to_json() | {"kind": kind})
    assert verdict.decided == (kind == "decided")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "sure"}, "kind"),
        ({"confidence": 1.2}, "confidence"),
        ({"confidence": math.nan}, "confidence"),
    ],
)
def test_an_impossible_verdict_is_refused(change, message):
    """An unknown kind or a confidence outside [0, 1] is a DataError."""
    with pytest.raises(DataError, match=message):
        Verdict.from_json(VERDICT.to_json() | change)


def test_a_verdict_with_a_field_missing_is_refused():
    """A damaged line names what it lacks."""
    written = VERDICT.to_json()
    del written["label"]
    with pytest.raises(DataError, match="label"):
        Verdict.from_json(written)
