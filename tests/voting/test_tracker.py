"""What is kept of past votes, and how long a question rests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import SettingsError
from optpo.voting import VoteTracker, remember

PUBLISHED = VoteTracker(most_kept=0.96, least_kept=0.875)


@pytest.mark.parametrize(
    ("drift", "kept"),
    [(0.0, 0.96), (0.005, 0.9439), (0.01, 0.8909), (0.03, 0.875), (0.1, 0.875)],
)
def test_forgetting_is_the_published_one(drift, kept):
    """The trace of Single-stream PO's dossier entry, with its bounds."""
    assert PUBLISHED.kept(drift) == pytest.approx(kept, abs=5e-5)


@given(st.floats(0, 10), st.floats(0, 10))
def test_more_drift_never_keeps_more(one, other):
    """The share kept falls with the drift, within its bounds."""
    less, more = sorted([one, other])
    assert 0.96 >= PUBLISHED.kept(less) >= PUBLISHED.kept(more) >= 0.875


def test_the_default_forgets_everything():
    """Without settings nothing is carried and nothing rests."""
    assert VoteTracker().kept(0.0) == 0
    assert VoteTracker().next_rest(0, nothing_to_teach=True) == 0


def test_past_votes_fade_and_new_ones_count_whole():
    """Half of 8 and 2 past votes, and 3 new ones, one of them for a new answer."""
    assert remember({"a": 8, "b": 2}, 0.5, {"a": 2, "c": 1}) == {"a": 6, "b": 1, "c": 1}
    assert remember({"a": 8}, 0.0, {}) == {}


def test_the_past_never_outweighs_its_limit():
    """With n new votes a visit the past counts for n kept / (1 - kept) votes at most."""
    votes = {}
    for _ in range(200):
        votes = remember(votes, 0.875, {"a": 4})
        assert 0.875 * votes["a"] <= 4 * 0.875 / 0.125 + 1e-9
    assert 0.875 * votes["a"] == pytest.approx(28)


def test_rests_double_up_to_the_longest():
    """1, 2, 4, then the longest; a question that has something to teach begins anew."""
    tracker, rests = VoteTracker(longest_rest=5), [0]
    for _ in range(5):
        rests.append(tracker.next_rest(rests[-1], nothing_to_teach=True))
    assert rests[1:] == [1, 2, 4, 5, 5]
    assert tracker.next_rest(5, nothing_to_teach=False) == 0


def test_every_problem_is_reported_at_once():
    """Settings out of range are all named."""
    with pytest.raises(SettingsError) as raised:
        VoteTracker(most_kept=1.0, least_kept=-1, half_drift=0, probes=0, longest_rest=-1)
    names = [problem.split(" is ")[0] for problem in raised.value.problems]
    assert names == ["most_kept", "least_kept", "half_drift", "probes", "longest_rest"]
