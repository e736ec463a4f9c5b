"""SPO's value tracker against the dossier's trace."""

import json
import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import SettingsError
from optpo.memory.values import ValueMemory
from optpo.voting import VoteTracker
from tests.rewards.batches import batch_of

# The dossier's trace from S = 3 of 8: drift, reward, rho, alpha, beta, value after.
TRACE = [
    (0.0, 1, 0.96, 3.9867, 4.6933, 0.4593),
    (0.005, 0, 0.9439, 3.7629, 5.4299, 0.4093),
    (0.01, 1, 0.8909, 4.3524, 4.8375, 0.4736),
    (0.03, 0, 0.875, 3.8083, 5.2328, 0.4212),
    (0.1, 1, 0.875, 4.3323, 4.5787, 0.4862),
]
BASELINES = [0.3889, 0.4593, 0.4093, 0.4736, 0.4212]


def visit(memory, past, rewards, drifts=None, run=None):
    """A step that visits a question a list of rewards."""
    batch = batch_of([[0] * len(some) for some in rewards])
    flat = torch.tensor([float(reward) for some in rewards for reward in some])
    return memory.remember(past, run or {}, batch, flat, drifts or [None] * len(rewards))[0]


def counts(notes):
    """Alpha and beta of the Beta form."""
    return notes["weight"] * notes["value"], notes["weight"] * (1 - notes["value"])


def test_the_dossiers_trace():
    """Five visits with growing drift: baselines, Beta counts and values of the published code."""
    memory = ValueMemory(smoothed=True)
    notes = memory.begin([1, 1, 1, 0, 0, 0, 0, 0])
    assert counts(notes) == pytest.approx((3.1111, 4.8889), abs=1e-4)
    for (drift, reward, rho, alpha, beta, value), baseline in zip(TRACE, BASELINES, strict=True):
        assert float(memory.recall([notes], {})["tracked"]) == pytest.approx(baseline, abs=1e-4)
        assert VoteTracker(0.96, 0.875).kept(drift) == pytest.approx(rho, abs=1e-4)
        (notes,) = visit(memory, [notes], [[reward]], [drift])
        assert counts(notes) == pytest.approx((alpha, beta), abs=1e-4)
        assert notes["value"] == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize(
    ("right", "smoothed", "expected"),
    [
        (0, True, (0.4444, 7.5556)),
        (3, True, (3.1111, 4.8889)),
        (8, True, (7.5556, 0.4444)),
        (3, False, (3, 5)),
    ],
)
def test_the_dossiers_beginnings(right, smoothed, expected):
    """Eight initial rollouts: Jeffreys-smoothed as in the code, plain as in the paper."""
    notes = ValueMemory(smoothed=smoothed).begin([1] * right + [0] * (8 - right))
    assert counts(notes) == pytest.approx(expected, abs=1e-4)


def test_fewer_initial_rollouts_are_no_failures():
    """Three successes of three are worth 1, not the 3.5/9 of code that divides by what it asked for;
    with none at all a question begins at .5 with the weight of one."""
    assert ValueMemory().begin([1, 1, 1])["value"] == 1
    assert ValueMemory(smoothed=True).begin([1, 1, 1])["value"] == pytest.approx(3.5 / 4)
    assert counts(ValueMemory().begin([])) == (0.5, 0.5)
    assert ValueMemory().recall([{}], {})["tracked"].tolist() == [0.5]


def test_keeping_all_is_the_running_mean():
    """rho = 1 and a prior of no weight: the value before each reward is the mean of those before.

    The dossier's rewards 1,0,0,1,1,0,0,0 give .5, 1, .5, .3333, .5, .6, .5, .4286, and .375 at last.
    """
    memory, notes = ValueMemory(least_kept=1 - 1e-12, most_kept=1 - 1e-12), None
    notes, found = {"value": 0.5, "weight": 1e-9}, []
    for reward in (1, 0, 0, 1, 1, 0, 0, 0):
        found.append(notes["value"])
        (notes,) = visit(memory, [notes], [[reward]])
    expected = [0.5, 1, 0.5, 1 / 3, 0.5, 0.6, 0.5, 3 / 7, 0.375]
    assert [*found, notes["value"]] == pytest.approx(expected, abs=1e-6)


def test_keeping_nothing_is_the_last_reward():
    """rho = 0: the value is the mean of the last visit's rewards."""
    memory = ValueMemory(least_kept=0.0, most_kept=0.0)
    notes = visit(memory, [{"value": 0.9, "weight": 8.0}] * 2, [[0], [1, 0, 0, 1]])
    assert [note["value"] for note in notes] == [0, 0.5]
    assert [note["weight"] for note in notes] == [1, 4]


@given(
    st.lists(st.lists(st.sampled_from([0, 1]), min_size=1, max_size=5), min_size=1, max_size=4),
    st.lists(st.floats(0, 0.2) | st.none(), min_size=4, max_size=4),
)
def test_beta_and_average_forms_are_one(rewards, drifts):
    """For rewards of 0 and 1: alpha <- rho alpha + successes, beta <- rho beta + failures, and
    N <- rho N + n whatever the rewards are."""
    memory, past = ValueMemory(), [{"value": 0.3, "weight": 8.0}] * len(rewards)
    for notes, some, drift in zip(
        visit(memory, past, rewards, drifts[: len(rewards)]), rewards, drifts, strict=False
    ):
        rho = 0.96 if drift is None else min(max(2 ** (-drift / 0.06), 0.875), 0.96)
        assert counts(notes) == pytest.approx(
            (rho * 2.4 + sum(some), rho * 5.6 + len(some) - sum(some))
        )
        assert notes["weight"] == pytest.approx(rho * 8 + len(some))


def test_the_scalar_form():
    """Any rewards: v <- v + eta (r - v) with eta = 1 / (rho N + 1)."""
    (notes,) = visit(ValueMemory(), [{"value": 2.0, "weight": 5.0}], [[-3.5]], [0.01])
    rho = 2 ** (-0.01 / 0.06)
    assert notes["value"] == pytest.approx(2 - 5.5 / (rho * 5 + 1))


def test_the_range_of_rewards():
    """That of 0 and 1 while none lies outside; then the least and greatest of all visits and of the
    initial rollouts, a question's own. What is missing is no reward."""
    memory = ValueMemory()
    begun = [memory.begin(some) for some in ([0, 1], [-1, 0.5], [2], [])]
    notes = visit(memory, begun, [[1, 0.5], [-2], [0, math.nan], [3]])
    notes = visit(memory, notes, [[0], [0], [math.nan], [-3]])
    found = [(note["least"], note["greatest"]) for note in notes]
    assert found == [(0, 1), (-2, 1), (0, 2), (-3, 3)]
    assert [(note["least"], note["greatest"]) for note in begun[1:]] == [(-1, 1), (0, 2), (0, 1)]


def test_a_flipped_reward_touches_its_question_alone():
    """The baseline is that before the step, and another question's notes do not change."""
    memory, past = ValueMemory(), [{"value": 0.4, "weight": 8.0}] * 2
    one, other = (visit(memory, past, [[reward], [1, 0]]) for reward in (0, 1))
    assert one[1] == other[1]
    assert one[0]["value"] != other[0]["value"]
    assert one[0]["weight"] == other[0]["weight"]


def test_without_rewards_nothing_changes():
    """A question nothing was rewarded of keeps its notes; a missing reward is not a 0."""
    memory, past = ValueMemory(), [{"value": 0.4, "weight": 8.0}, {}, {"value": 0.4, "weight": 8.0}]
    notes = visit(memory, past, [[math.nan] * 2, [math.nan], [1, math.nan]], [0.01] * 3)
    assert notes[:2] == past[:2]
    assert notes[2] == visit(memory, past[2:], [[1]], [0.01])[0]


def test_a_first_visit_may_keep_all():
    """Without a drift rho is .96 as in the code, or 1 on the first visit by the setting."""
    past = [{"value": 0.5, "weight": 8.0}]
    assert visit(ValueMemory(), past, [[1]])[0]["weight"] == pytest.approx(8.68)
    memory = ValueMemory(first_kept="all")
    first = visit(memory, past, [[1]])
    assert first[0]["weight"] == 9
    assert visit(memory, first, [[1]])[0]["weight"] == pytest.approx(0.96 * 9 + 1)


@pytest.mark.parametrize(("kept", "theory"), [(0.875, 0.118), (0.96, 0.0655)])
def test_the_stationary_deviation(kept, theory):
    """At a true rate of .3 values settle at mean .3 with sd sqrt(p(1-p)(1-rho)/(1+rho)), and N at
    1/(1-rho); 500 questions over 300 visits."""
    assert math.sqrt(0.21 * (1 - kept) / (1 + kept)) == pytest.approx(theory, abs=5e-4)
    memory, draw = ValueMemory(least_kept=kept, most_kept=kept), random.Random(1)
    assert not memory.forgets
    batch, past = batch_of([[0]] * 500), [memory.begin([]) for _ in range(500)]
    for _ in range(300):
        rewards = torch.tensor([float(draw.random() < 0.3) for _ in range(500)])
        past, _ = memory.remember(past, {}, batch, rewards, [None] * 500)
    values = torch.tensor([notes["value"] for notes in past])
    assert float(values.mean()) == pytest.approx(0.3, abs=4 * theory / 500**0.5)
    assert float(values.std()) == pytest.approx(theory, rel=4 / 1000**0.5)
    assert past[0]["weight"] == pytest.approx(1 / (1 - kept), rel=1e-4)


def test_notes_survive_json():
    """Saved and loaded, the notes give the same values and the same next notes."""
    memory = ValueMemory()
    notes = visit(memory, [memory.begin([1, 0, 0]), {}], [[1], [0, 1]], [0.004, None])
    back = json.loads(json.dumps(notes))
    assert back == notes
    assert memory.recall(back, {})["tracked"].equal(memory.recall(notes, {})["tracked"])


def test_settings_out_of_range_are_all_named():
    """The tracker's problems and its own at once."""
    with pytest.raises(SettingsError, match=r"(?s)least_kept is 0.9.*initial_rollouts is -1"):
        ValueMemory(least_kept=0.9, most_kept=0.5, initial_rollouts=-1)
    assert ValueMemory().gives == {"tracked"}
    assert ValueMemory().forgets
