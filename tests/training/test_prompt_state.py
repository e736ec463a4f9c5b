"""What a run remembers of its questions, and which ones it asks when."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.training.prompt_state import (
    Probe,
    PromptState,
    PromptStore,
    is_audited,
    questions_of_step,
)

NAMES = [f"q{n}" for n in range(12)]


def asked(names, size, seed, steps):
    return [questions_of_step(names, size, seed, step) for step in range(1, steps + 1)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 12])
def test_each_question_once_an_epoch(size):
    """Where steps fill an epoch exactly, every epoch asks every question once, in another order."""
    epochs = []
    for epoch in range(3):
        per_epoch = 12 // size
        steps = asked(NAMES, size, 0, 3 * per_epoch)[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert all(len(step) == size for step in steps)
        order = [name for step in steps for name in step]
        assert sorted(order) == sorted(NAMES)
        epochs.append(order)
    assert epochs[0] != epochs[1] != epochs[2]


@given(size=st.integers(1, 12), seed=st.integers(0, 99))
def test_an_epoch_ends_with_a_smaller_step(size, seed):
    """Where sizes do not divide, the epoch's last step has what is left: none twice, none left out."""
    per_epoch = math.ceil(12 / size)
    steps = asked(NAMES, size, seed, 2 * per_epoch)
    for epoch in (steps[:per_epoch], steps[per_epoch:]):
        assert sorted(name for step in epoch for name in step) == sorted(NAMES)
        assert all(len(step) == size for step in epoch[:-1])


def test_questions_are_a_function_of_seed_and_step():
    """The same seed and step ask the same, in whatever order questions come; another seed not."""
    first = asked(NAMES, 5, 3, 9)
    assert asked(NAMES, 5, 3, 9) == first
    assert asked(NAMES[::-1], 5, 3, 9) == first
    assert asked(NAMES, 5, 4, 9) != first


@pytest.mark.parametrize("size", [0, 12, 100])
def test_zero_or_many_means_all(size):
    """0 questions a step, and more than there are, ask all of them in every step."""
    assert [sorted(step) for step in asked(NAMES, size, 0, 2)] == [sorted(NAMES)] * 2


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_the_audit_takes_its_share(share):
    """Over 4,000 questions the audited share is the one asked for; 0 is none and 1 is all."""
    chosen = [is_audited(f"q{n}", share, 0, step) for n in range(400) for step in range(1, 11)]
    assert sum(chosen) / 4000 == pytest.approx(share, abs=0.02 if 0 < share < 1 else 0)


def test_the_audit_is_independent_of_the_draw_of_questions():
    """Which questions are audited changes from step to step and with the seed, not with the run."""
    by_step = [{n for n in range(200) if is_audited(f"q{n}", 0.5, 0, step)} for step in (1, 2)]
    assert by_step[0] != by_step[1]
    assert by_step[0] == {n for n in range(200) if is_audited(f"q{n}", 0.5, 0, 1)}
    assert by_step[0] != {n for n in range(200) if is_audited(f"q{n}", 0.5, 1, 1)}


def test_labels_flip_only_between_decided_visits():
    """The first label, and a visit that decided nothing, are no flip; a changed label is one."""
    store = PromptStore()
    visits = [(None, None), ("4", None), ("4", False), (None, None), ("5", True), ("4", True)]
    assert [store.visit("q", label) for label, _ in visits] == [flip for _, flip in visits]
    assert store["q"] == PromptState(visits=6, flips=2, label="4")
    assert store["never asked"] == PromptState()


def test_the_store_survives_json():
    """What is saved with a checkpoint comes back."""
    store = PromptStore()
    for name, label in (("a", "1"), ("b", None), ("a", "2")):
        store.visit(name, label)
    store.remember(
        "a", {"1": 0.7 * 3, "2": 4.0}, (Probe((3, 4), (-0.1, -2.5)), Probe((5,), (0.0,))), 2
    )
    back = PromptStore.from_json(json.loads(json.dumps(store.to_json())))
    assert back.to_json() == store.to_json()
    assert back.visit("a", "1") is True


def test_a_question_rests_and_is_asked_again():
    """After a visit that sends it to rest for two it sits out two steps and is asked in the third."""
    store = PromptStore()
    store.remember("calm", {}, (), rest=2)
    asked_for = []
    for _ in range(4):
        asked_for.append(store.awake(["calm", "lively"]))
        store.rest(["calm", "lively"])
    assert asked_for == [["lively"], ["lively"], ["calm", "lively"], ["calm", "lively"]]


def test_where_all_rest_all_are_asked():
    """A step is never empty, and a rest cut short is over."""
    store = PromptStore()
    store.remember("calm", {}, (), rest=1)
    assert store.awake(["calm"]) == ["calm"]
    store.rest(["calm"])
    assert store.awake(["calm", "lively"]) == ["calm", "lively"]
