"""The soft share, and what stopping early does to it."""

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import SettingsError
from optpo.rewards.soft_share import SoftShareReward
from optpo.voting import LeadRule, Tally
from tests.rewards.batches import batch_of

# The last class is unparsed.
SHARES = {0: 0.5, 1: 0.3, -1: 0.2}

ragged_votes = st.lists(
    st.lists(st.integers(-1, 3), min_size=1, max_size=7), min_size=1, max_size=5
)


def stopped_votes(decides, cap):
    """All courses a vote can take: (votes, label or -1); `decides` says what a tally's label is."""
    courses, open_votes = [], [()]
    while open_votes:
        votes = open_votes.pop()
        label = decides(Tally(votes))
        if label is not None or len(votes) == cap:
            courses.append((votes, -1 if label is None else label))
        else:
            open_votes += [(*votes, vote) for vote in SHARES]
    return courses


def mean_rewards(reward, courses, place):
    """The mean reward of the rollout at `place` given its answer, over all courses that have it."""
    courses = [course for course in courses if len(course[0]) > place]
    rewards = reward(batch_of([votes for votes, _ in courses], [label for _, label in courses]))
    sums, weights, begin = Counter(), Counter(), 0
    for votes, _ in courses:
        chance = math.prod(SHARES[vote] for vote in votes)
        sums[votes[place]] += chance * float(rewards[begin + place])
        weights[votes[place]] += chance
        begin += len(votes)
    return {vote: sums[vote] / weights[vote] for vote in SHARES}


def first_to_three(tally):
    return tally.leader if tally.leader_votes >= 3 else None


def lead_of_two(tally):
    decision = LeadRule(by=2, floor=3, cap=7).decide(tally)
    return decision.leader if decision.kind == "decided" else None


EXACT = pytest.approx({0: 0.5, 1: 0.3, -1: 0.0}, abs=1e-6)


@pytest.mark.parametrize("cap", [5, 8])
@pytest.mark.parametrize("place", [0, 1])
def test_without_the_last_vote_it_is_unbiased_where_k_votes_decide(cap, place):
    """First to 3 votes, any cap: over all courses the mean reward of an answer is its probability."""
    courses = stopped_votes(first_to_three, cap)
    assert mean_rewards(SoftShareReward("last"), courses, place) == EXACT
    assert mean_rewards(SoftShareReward("none"), courses, place)[0] > 0.51


@pytest.mark.parametrize("decides", [first_to_three, lead_of_two])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_first_votes_are_unbiased_under_any_rule(decides, place):
    """Within the floor of 3 the mean reward is the probability, however the vote goes on."""
    courses = stopped_votes(decides, cap=7)
    assert mean_rewards(SoftShareReward("floor", floor=3), courses, place) == EXACT


def test_what_stays_biased():
    """Under a lead the last vote takes part of the leader's excess along, not all of it; and a
    rollout behind the floor meets only questions that the floor did not settle."""
    courses = stopped_votes(lead_of_two, cap=7)
    means = {
        name: mean_rewards(SoftShareReward(name, floor=3), courses, 0)[0]
        for name in ("none", "last", "floor")
    }
    assert means["none"] > means["last"] > means["floor"] + 0.005
    assert mean_rewards(SoftShareReward("floor", floor=3), courses, 4)[0] < 0.45


def test_the_excess_of_the_docstring():
    """A lead of 3 at shares .6 and .4: .650 with all votes, .634 without the last, by recursion."""
    open_votes, shares = {(0, 0): 1.0}, [0.0, 0.0]
    for _ in range(400):
        ahead = Counter()
        for ((a, b), chance), first in itertools.product(open_votes.items(), (True, False)):
            now, part = (a + first, b + (not first)), chance * (0.6 if first else 0.4)
            if abs(now[0] - now[1]) < 3:
                ahead[now] += part
                continue
            shares[0] += part * now[0] / sum(now)
            shares[1] += part * (now[0] - first) / (sum(now) - 1)
        open_votes = ahead
    assert shares == pytest.approx([0.650, 0.634], abs=5e-4)


@given(
    ragged_votes,
    st.sampled_from(["none", "last", "floor"]),
    st.integers(2, 5),
    st.data(),
)
def test_any_group_sizes_equal_a_loop(votes, correction, floor, data):
    """For groups of any size the rewards are what a loop over rollouts counts."""
    labels = data.draw(st.lists(st.integers(-1, 2), min_size=len(votes), max_size=len(votes)))
    found = SoftShareReward(correction, floor)(batch_of(votes, labels)).tolist()
    expected = []
    for group, label in zip(votes, labels, strict=True):
        counted = len(group)
        if correction == "floor":
            counted = min(floor, counted)
        elif correction == "last" and label >= 0:
            counted -= 1
        for place, vote in enumerate(group):
            others = [other for n, other in enumerate(group[:counted]) if n != place]
            agreeing = others.count(vote) if vote >= 0 else 0
            expected.append(agreeing / len(others) if others else math.nan)
    assert found == pytest.approx(expected, nan_ok=True)


def test_undecided_questions_have_a_soft_label_unless_refused():
    """An undecided question is rewarded as well, and has no reward where the setting says so."""
    batch = batch_of([[0, 0, 1], [0, 1, 1]], [0, -1])
    soft = SoftShareReward("none")(batch)
    hard = SoftShareReward("none", undecided="none")(batch)
    assert soft.tolist() == [0.5, 0.5, 0, 0, 0.5, 0.5]
    assert hard[:3].equal(soft[:3])
    assert hard[3:].isnan().all()
    assert hard.dtype == torch.float32


def test_a_floor_of_one_is_refused():
    """One vote has no other to agree with."""
    with pytest.raises(SettingsError, match="floor is 1"):
        SoftShareReward("floor", floor=1)
