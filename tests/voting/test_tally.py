"""What the votes of a question say, one by one and as matrices."""

import doctest
import json
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import DataError
from optpo.voting import UNPARSED, Tallies, Tally

VOTES = st.lists(st.integers(UNPARSED, 4), max_size=20).map(tuple)


def test_a_tally_counts_as_a_person_would():
    """Counts, leader, runner-up and totals are those of a worked example."""
    tally = Tally((2, UNPARSED, 0, 2, 1, 0, 2))
    assert tally.counts == {2: 3, 0: 2, 1: 1}
    assert (tally.leader, tally.leader_votes, tally.runner_up_votes) == (2, 3, 2)
    assert (tally.total, tally.parsed, tally.tied) == (7, 6, False)


def test_an_empty_tally_has_no_leader():
    """Nothing leads and nothing is tied before the first answer."""
    for tally in (Tally(), Tally((UNPARSED, UNPARSED))):
        assert (tally.leader, tally.leader_votes, tally.runner_up_votes) == (None, 0, 0)
        assert not tally.tied


def test_the_class_voted_for_first_leads_a_tie():
    """A tie goes to the earlier first vote, whatever the class number and the last vote."""
    assert Tally((3, 1, 1, 3)).leader == 3
    assert Tally((1, 3, 3, 1)).leader == 1
    assert Tally((1, 3, 3, 1)).tied


def test_add_leaves_the_old_tally_alone():
    """Adding a vote makes a new tally."""
    before = Tally((0,))
    assert before.add(1) == Tally((0, 1))
    assert before == Tally((0,))


def test_merging_gives_votes_to_the_kept_class_where_they_stood():
    """Classes found equal late are one class, and the order of votes stays."""
    assert Tally((1, 0, UNPARSED, 2, 1)).merge(kept=0, gone=1) == Tally((0, 0, UNPARSED, 2, 0))


@pytest.mark.parametrize(("kept", "gone"), [(1, 1), (0, UNPARSED), (UNPARSED, 0)])
def test_merging_what_is_no_pair_of_classes_is_refused(kept, gone):
    """Unparsed votes cannot be given to a class, nor a class to itself."""
    with pytest.raises(DataError, match="two classes"):
        Tally((0, 1)).merge(kept, gone)


def test_a_vote_below_unparsed_is_refused():
    """A negative class number is a mistake, not a vote."""
    with pytest.raises(DataError, match="-2"):
        Tally((0, -2))


@given(VOTES)
def test_a_tally_survives_json(votes):
    """A tally written to JSON comes back equal."""
    assert Tally.from_json(json.loads(json.dumps(Tally(votes).to_json()))) == Tally(votes)


@pytest.mark.parametrize("value", [{}, [], {"votes": "01"}, {"votes": [0.5]}, {"votes": [True]}])
def test_json_that_is_no_tally_is_refused(value):
    """Damaged JSON ends in a DataError."""
    with pytest.raises(DataError):
        Tally.from_json(value)


@given(st.lists(VOTES, max_size=6))
def test_matrices_say_what_the_single_tallies_say(many):
    """Every vectorised property equals the property of each tally, ties included."""
    singles = [Tally(votes) for votes in many]
    matrices = Tallies.of(singles)
    assert len(matrices) == len(singles)
    for name in ("leader_votes", "runner_up_votes", "total", "parsed", "tied"):
        assert list(getattr(matrices, name)) == [getattr(single, name) for single in singles]
    leaders = [UNPARSED if single.leader is None else single.leader for single in singles]
    assert list(matrices.leader) == leaders


def test_matrices_take_column_order_for_the_order_of_first_votes():
    """Without first votes the lower class number leads a tie."""
    assert list(Tallies(np.array([[0, 2, 2]]), np.array([1])).leader) == [1]


@pytest.mark.parametrize(
    ("counts", "unparsed", "first_votes"),
    [
        ([1, 2], [0], None),
        ([[1, 2]], [0, 0], None),
        ([[1, -1]], [0], None),
        ([[1, 2]], [-1], None),
        ([[1, 2]], [0], [[0]]),
    ],
)
def test_matrices_that_do_not_fit_are_refused(counts, unparsed, first_votes):
    """Wrong shapes and negative counts end in a DataError."""
    first = None if first_votes is None else np.array(first_votes)
    with pytest.raises(DataError):
        Tallies(np.array(counts), np.array(unparsed), first)


@pytest.mark.parametrize("module", ["voting.tally", "voting.fixed", "voting.optpo", "data.answers"])
def test_the_examples_in_docstrings_are_true(module):
    """Every example in the docstrings gives the result it shows."""
    result = doctest.testmod(import_module(f"optpo.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_room_loads_without_torch_and_scipy():
    """Importing optpo.voting brings neither torch nor scipy nor the data room's libraries."""
    heavy = "torch scipy datasets math_verify transformers"
    code = f"import sys, optpo.voting; print([m for m in '{heavy}'.split() if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
