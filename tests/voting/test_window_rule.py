"""Windows of votes that all agree: when they end a vote, and whose label it gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import SettingsError
from optpo.voting import UNPARSED, Tally, WindowRule


def stops_by_the_book(votes, window, floor, cap):
    """The rule read literally: window by window, one vote after the other."""
    unanimous = False
    for start in range(0, len(votes) - window + 1, window):
        first, *others = votes[start : start + window]
        unanimous |= first != UNPARSED and all(vote == first for vote in others)
    counts = sorted(votes.count(vote) for vote in {*votes} - {UNPARSED})
    tied = len(counts) > 1 and counts[-1] == counts[-2]
    return len(votes) >= cap or (unanimous and not tied and len(votes) >= floor)


@given(
    st.lists(st.integers(UNPARSED, 2) | st.just(0), max_size=24).map(tuple),
    st.integers(1, 6),
    st.integers(1, 12),
)
def test_it_stops_where_a_literal_reading_stops(votes, window, floor):
    """A plain loop over windows agrees after every vote, floor and cap included."""
    rule = WindowRule(window, floor=floor, cap=20)
    for n in range(len(votes) + 1):
        expected = stops_by_the_book(votes[:n], window, floor, 20)
        assert rule.decide(Tally(votes[:n])).stop == expected


def test_a_window_ends_the_vote_only_when_it_is_full():
    """Five equal votes end it; four, and five across two windows, do not."""
    rule = WindowRule(window=5)
    assert not rule.decide(Tally((0,) * 4)).stop
    assert rule.decide(Tally((0,) * 5)).kind == "decided"
    assert not rule.decide(Tally((1, *[0] * 5))).stop
    assert rule.decide(Tally((1, *[0] * 9))).kind == "decided"


def test_an_unparsed_vote_spoils_its_window():
    """Neither four answers and an unparsed vote nor a window of unparsed ones is unanimous."""
    rule = WindowRule(window=5)
    assert not rule.decide(Tally((0, 0, UNPARSED, 0, 0))).stop
    assert not rule.decide(Tally((UNPARSED,) * 5)).stop
    assert not rule.decide(Tally((*[UNPARSED] * 5, 0))).stop


def test_the_label_has_most_of_all_votes_not_of_the_last_window():
    """A late unanimous window of a rival that is still behind names the leader of all votes."""
    votes = (0, 0, 1, 0, 0, 2, 0, 0, 1, 1, 1, 1)
    decision = WindowRule(window=3).decide(Tally(votes))
    assert (decision.kind, decision.leader) == ("decided", 0)


def test_two_that_tie_after_the_window_go_on():
    """A unanimous window that draws level gives no label; the next vote for either does."""
    rule = WindowRule(window=2)
    level = Tally((0, 1, 0, 2, 0, 3, 1, 1))
    assert level.tied
    assert not rule.decide(level).stop
    assert rule.look_ahead(level) == 1
    for vote in (0, 1):
        assert rule.decide(level.add(vote)).kind == "decided"


def test_a_unanimous_window_below_the_floor_still_counts():
    """The vote is over at the floor, not a whole window later."""
    rule = WindowRule(window=2, floor=5)
    assert not rule.decide(Tally((0, 0, 1, 0))).stop
    assert rule.decide(Tally((0, 0, 1, 0, 2))).kind == "decided"


def test_every_problem_of_the_settings_is_reported_at_once():
    """One error names all settings that are out of range."""
    with pytest.raises(SettingsError) as raised:
        WindowRule(window=0, floor=0, cap=True, at_cap="stay")
    names = [problem.split(" = ")[0] for problem in raised.value.problems]
    assert sorted(names) == ["at_cap", "cap", "floor", "window"]
