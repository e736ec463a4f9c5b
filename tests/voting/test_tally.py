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
from optpo.voting import NO_VOTE, UNPARSED, Tallies, Tally

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


@given(st.data())
def test_a_tally_survives_json(data):
    """A tally written to JSON comes back equal, weights and carried votes with it."""
    tally = data.draw(tallies())
    assert Tally.from_json(json.loads(json.dumps(tally.to_json()))) == tally


@pytest.mark.parametrize("value", [{}, [], {"votes": "01"}, {"votes": [0.5]}, {"votes": [True]}])
def test_json_that_is_no_tally_is_refused(value):
    """Damaged JSON ends in a DataError."""
    with pytest.raises(DataError):
        Tally.from_json(value)


WEIGHTS = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@st.composite
def tallies(draw):
    """A tally with or without weights and carried votes; quarters, so that sums are exact."""
    votes = draw(VOTES)
    size = len(votes)
    weights = draw(st.none() | st.lists(WEIGHTS, min_size=size, max_size=size).map(tuple))
    return Tally(
        votes, weights, draw(st.lists(st.sampled_from([0, 0.5, 2]), max_size=3).map(tuple))
    )


@given(st.lists(VOTES.map(Tally), max_size=6) | st.lists(tallies(), max_size=6))
def test_matrices_say_what_the_single_tallies_say(many):
    """Every vectorised property, after every vote, is that of the tally then, ties included."""
    matrices = Tallies.of(many)
    assert len(matrices) == len(many)
    for row, whole in enumerate(many):
        for n in range(matrices.total.shape[1]):
            weights = None if whole.weights is None else whole.weights[:n]
            single = Tally(whole.votes[:n], weights, whole.carried)
            for name in ("leader_votes", "runner_up_votes", "total", "parsed", "seen", "tied"):
                assert getattr(matrices, name)[row, n] == getattr(single, name)
            leader = UNPARSED if single.leader is None else single.leader
            assert matrices.leader[row, n] == leader


def test_votes_that_nothing_weighs_or_carries_stay_whole_numbers():
    """Counts are exact integers where all votes count 1."""
    assert Tallies.of([Tally((0, 1))]).leader_votes.dtype == np.int64
    assert Tallies.of([Tally((0, 1), (1.0, 0.5))]).leader_votes.dtype == np.float64


def test_weights_and_carried_votes_decide_who_leads():
    """Two weak votes lose to a strong one; carried votes count, but not as votes of this visit."""
    weighted = Tally((0, 0, 1), (0.25, 0.25, 0.75))
    assert (weighted.leader, weighted.leader_votes, weighted.runner_up_votes) == (1, 0.75, 0.5)
    carried = Tally((0,), carried=(0.0, 2.5))
    assert (carried.leader, carried.leader_votes, carried.total, carried.parsed) == (1, 2.5, 1, 1)
    assert carried.merge(0, 1) == Tally((0,), carried=(2.5, 0.0))
    assert weighted.add(1, 0.5).weights == (0.25, 0.25, 0.75, 0.5)


@pytest.mark.parametrize(
    "arguments",
    [((0,), (1.0, 1.0)), ((0,), (1.5,)), ((0,), (float("nan"),)), ((0,), None, (-1.0,))],
)
def test_weights_that_do_not_fit_are_refused(arguments):
    """A weight a vote, in [0, 1]; carried votes 0 or more."""
    with pytest.raises(DataError):
        Tally(*arguments)


def test_a_vote_without_weight_among_weighted_ones_is_refused():
    """Weighted and whole votes do not mix."""
    with pytest.raises(DataError, match="weight"):
        Tally((0,), (0.5,)).add(1)
    with pytest.raises(DataError, match="weight"):
        Tally((0,)).add(1, 0.5)


@pytest.mark.parametrize("votes", [[1, 2], [[0, -3]], [[NO_VOTE, 0]], [[0, NO_VOTE, UNPARSED]]])
def test_matrices_that_do_not_fit_are_refused(votes):
    """Wrong shapes, numbers that are no votes and gaps end in a DataError."""
    with pytest.raises(DataError):
        Tallies(np.array(votes))


@pytest.mark.parametrize(
    "module",
    [
        "voting.tally",
        "voting.replay",
        "voting.sweep",
        "voting.fixed",
        "voting.frontier",
        "voting.frontier_fit",
        "voting.frontier_curve",
        "voting.optpo",
        "voting.beta",
        "voting.budget",
        "voting.appearance",
        "voting.bounds",
        "voting.eprocess",
        "voting.ppr",
        "voting.lead",
        "voting.window",
        "voting.curtailed",
        "voting.predictive",
        "voting.dirichlet",
        "voting.rules",
        "data.answers",
    ],
)
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
