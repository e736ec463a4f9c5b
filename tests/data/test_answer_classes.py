"""Answers that mean the same are votes for the same class."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.data import AnswerClasses, AnswerSettings, MathVerifier, embedded_model_path, same_answer
from optpo.errors import DataError, ModelError
from optpo.voting import UNPARSED

NUMERIC = AnswerSettings()
MATH = AnswerSettings(compare="math")


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(seconds=1.0) as verifier:
        yield verifier


class Recorder:
    """Stands in for a verifier: equal pairs are given, and questions are kept."""

    def __init__(self, *equal_pairs):
        self.equal_pairs = {frozenset(pair) for pair in equal_pairs}
        self.asked = []

    def equal(self, a, b):
        self.asked.append((a, b))
        return True if frozenset((a, b)) in self.equal_pairs else None


def classify_all(classes, answers):
    return [classes.classify(answer) for answer in answers]


def test_classes_are_numbered_as_they_appear():
    """Equal keys share a number, the label is the earliest writing, no answer is unparsed."""
    classes = AnswerClasses(NUMERIC)
    answers = ["0.5", None, "2", "1/2", "", "2.0", "x"]
    assert classify_all(classes, answers) == [0, UNPARSED, 1, 0, UNPARSED, 1, 2]
    assert classes.labels == ["0.5", "2", "x"]


def test_mathematics_merges_what_keys_cannot(verifier):
    """With compare="math" surds and sets join their class."""
    classes = AnswerClasses(MATH, verifier)
    answers = [r"\sqrt{8}", r"\{1,2\}", r"2\sqrt{2}", r"\{2,1\}", "3"]
    assert classify_all(classes, answers) == [0, 1, 0, 1, 2]


def test_an_equality_that_is_not_transitive_gives_the_same_classes_every_time(verifier):
    """1.0000001 equals 1.0 and not 1: the earliest answer of a class decides, and nothing else."""
    for _ in range(2):
        assert classify_all(AnswerClasses(MATH, verifier), ["1.0", "1.0000001", "1"]) == [0, 0, 0]
        assert classify_all(AnswerClasses(MATH, verifier), ["1", "1.0000001", "1.0"]) == [0, 1, 0]


def test_a_new_answer_joins_the_first_class_that_is_equal():
    """Where two classes would take it, the earlier one does, and each key is asked once."""
    recorder = Recorder(("a1", "c1"), ("b1", "c1"))
    classes = AnswerClasses(MATH, recorder)
    assert classify_all(classes, ["a1", "b1", "c1", "c1"]) == [0, 1, 0, 0]
    assert recorder.asked == [("a1", "b1"), ("a1", "c1")]


def test_a_comparison_that_fails_counts_as_different():
    """None from the verifier keeps answers apart."""
    assert classify_all(AnswerClasses(MATH, Recorder()), ["a1", "b1"]) == [0, 1]


def test_only_math_asks_the_verifier():
    """Under "numeric" a verifier is not used."""
    recorder = Recorder()
    classify_all(AnswerClasses(NUMERIC, recorder), ["a", "b"])
    assert recorder.asked == []


def test_merged_classes_stay_merged():
    """After a merge answers of the class that is gone count for the kept one, old and new."""
    recorder = Recorder(("b1", "d1"))
    classes = AnswerClasses(MATH, recorder)
    classify_all(classes, ["a1", "b1", "c1"])
    classes.merge(kept=0, gone=1)
    assert classify_all(classes, ["a1", "b1", "c1"]) == [0, 0, 2]
    recorder.asked.clear()
    assert classes.classify("d1") == 3
    assert ("b1", "d1") not in recorder.asked


@pytest.mark.parametrize(("kept", "gone"), [(0, 0), (0, 5), (UNPARSED, 0)])
def test_merging_what_is_no_pair_of_classes_is_refused(kept, gone):
    """A class cannot be merged with itself or with one that is not there."""
    classes = AnswerClasses(NUMERIC)
    classify_all(classes, ["1", "2"])
    with pytest.raises(DataError):
        classes.merge(kept, gone)


@given(st.lists(st.none() | st.text(max_size=4), max_size=12))
def test_classes_survive_json(answers):
    """Classes written to JSON give every answer the number it had, and new ones the next."""
    classes = AnswerClasses(NUMERIC)
    before = classify_all(classes, answers)
    again = AnswerClasses.from_json(json.loads(json.dumps(classes.to_json())), NUMERIC, None)
    assert classify_all(again, answers) == before
    assert again.labels == classes.labels
    assert again.classify("something new") == classes.classify("something new")


@pytest.mark.parametrize(
    "value", [{}, [], {"labels": ["a"], "keys": {"a": 1}}, {"labels": 3, "keys": {}}]
)
def test_json_that_is_no_classes_is_refused(value):
    """Damaged JSON ends in a DataError."""
    with pytest.raises(DataError):
        AnswerClasses.from_json(value, NUMERIC, None)


def test_an_answer_is_compared_with_the_known_one(verifier):
    """The comparison of votes, for reports; no answer is never right."""
    assert same_answer(".50", "1/2", NUMERIC)
    assert not same_answer("2", "1/2", NUMERIC)
    assert not same_answer(None, "1/2", NUMERIC)
    assert not same_answer("", "", NUMERIC)
    assert same_answer("(b)", "B", AnswerSettings(compare="choice"))
    assert same_answer(r"2\sqrt{2}", r"\sqrt{8}", MATH, verifier)


def test_a_missing_embedded_model_is_a_model_error(monkeypatch, tmp_path):
    """An installation without the model says so."""
    monkeypatch.setattr("optpo.data.embedded_model.files", lambda package: tmp_path)
    with pytest.raises(ModelError, match="missing"):
        embedded_model_path()
    (tmp_path / "embedded" / "model").mkdir(parents=True)
    assert embedded_model_path() == tmp_path / "embedded" / "model"
