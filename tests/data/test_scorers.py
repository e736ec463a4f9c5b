"""Scores by gold and by functions of the user's, and every way such a function can be wrong."""

import sys

import numpy
import pytest
import torch

from optpo.data import (
    AnswerSettings,
    ChatMessage,
    MathVerifier,
    Question,
    ScoreSettings,
    open_scorer,
)
from optpo.errors import RewardError, SettingsError
from optpo.rollout import Rollout

QUESTIONS = {
    "a": Question("a", "1+1?", "2", {"level": 1}),
    "b": Question("b", (ChatMessage("user", "1+2?"),), None, {"topic": "sums", "answers": "mine"}),
}


def rollout(name, answer, index=0, text=None):
    return Rollout(
        name, index, 0, (1,), (7, 8), (-1.0, -1.0), "stop", text or f"so {answer}", answer
    )


ROLLOUTS = [rollout("a", "2"), rollout("b", "3"), rollout("a", None, 1, "no idea")]


@pytest.fixture
def scorer(tmp_path, monkeypatch):
    """Writes a module with a function `score` of this body, and opens a scorer by it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def open_by(body, name="score"):
        monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
        (tmp_path / "my_rewards.py").write_text(body)
        sys.path_importer_cache.clear()
        return open_scorer(
            ScoreSettings(by=f"my_rewards:{name}"), QUESTIONS, AnswerSettings(), None
        )

    return open_by


@pytest.mark.parametrize(
    ("compare", "gold", "answer", "score"),
    [
        ("exact", "0.5", "0.5", 1),
        ("exact", "0.5", "1/2", 0),
        ("numeric", "0.5", "1/2", 1),
        ("numeric", r"\sqrt{8}", r"2\sqrt{2}", 0),
        ("choice", "B", "(B) because", 1),
        ("choice", "B", "C", 0),
        ("numeric", "0.5", None, 0),
        ("numeric", None, "1/2", None),
    ],
)
def test_gold_scores_by_the_comparison_of_the_settings(compare, gold, answer, score):
    """1 for an answer equal to gold, 0 for others and for none, no score without gold."""
    question = Question("q", "?", gold)
    scorer = open_scorer(ScoreSettings(), {"q": question}, AnswerSettings(compare=compare), None)
    assert scorer.score([rollout("q", answer)]) == [score]
    assert scorer.judges(question) is (gold is not None)


def test_mathematics_is_compared_by_the_verifier():
    """sqrt(8) is 2 sqrt(2)."""
    questions = {"q": Question("q", "?", r"\sqrt{8}")}
    with MathVerifier() as verifier:
        scorer = open_scorer(
            ScoreSettings(by="gold"), questions, AnswerSettings(compare="math"), verifier
        )
        assert scorer.score([rollout("q", r"2\sqrt{2}"), rollout("q", "3")]) == [1, 0]


def test_a_function_is_called_once_with_lists_as_trl_does(scorer):
    """Prompts, completions, tokens, then gold, answers and every column; chat stays chat."""
    by = scorer(
        "calls = []\n"
        "def score(prompts, completions, completion_ids, **kwargs):\n"
        "    calls.append((prompts, completions, completion_ids, kwargs))\n"
        "    return [1, None, 0.5]\n"
    )
    assert by.score(ROLLOUTS) == [1.0, None, 0.5]
    assert by.judges(QUESTIONS["b"])
    ((prompts, completions, ids, others),) = sys.modules["my_rewards"].calls
    assert prompts == ["1+1?", [{"role": "user", "content": "1+2?"}], "1+1?"]
    assert completions == ["so 2", [{"role": "assistant", "content": "so 3"}], "no idea"]
    assert ids == [[7, 8]] * 3
    assert others == {
        "id": ["a", "b", "a"],
        "gold": ["2", None, "2"],
        "answers": ["2", "3", None],
        "level": [1, None, 1],
        "topic": [None, "sums", None],
    }
    assert by.score([]) == []


def test_a_function_gets_what_it_names(scorer):
    """Without **kwargs only the arguments it has are passed."""
    by = scorer(
        "def score(answers, gold, weight=2):\n"
        "    return [weight * (a == g) for a, g in zip(answers, gold)]\n"
    )
    assert by.score(ROLLOUTS) == [2, 0, 0]


def test_objects_that_are_called_and_attributes_of_them_are_found(scorer):
    """module:object and module:object.method are functions too."""
    body = (
        "class Judge:\n"
        "    def __call__(self, completions): return [len(c) for c in completions]\n"
        "    def strict(self, completions): return [0 for c in completions]\n"
        "judge = Judge()\n"
    )
    assert scorer(body, "judge").score(ROLLOUTS[:1]) == [4]
    assert scorer(body, "judge.strict").score(ROLLOUTS[:1]) == [0]


@pytest.mark.parametrize(
    "returned",
    [
        "numpy.array([1, 0, 2])",
        "torch.tensor([1.0, 0.0, 2.0])",
        "(True, numpy.float32(0), torch.tensor(2))",
        "[1, numpy.bool_(False), 2]",
    ],
)
def test_arrays_tensors_and_their_numbers_are_read(scorer, returned):
    """Whatever a list of numbers is written as."""
    by = scorer(f"import numpy, torch\ndef score(**kwargs):\n    return {returned}")
    found = by.score(ROLLOUTS)
    assert found == [1, 0, 2]
    assert {type(score) for score in found} == {float}
    assert numpy and torch


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("[1, 2]", "returned 2 scores for 3 rollouts"),
        ("None", "returned NoneType None for 3 rollouts; it must return a list"),
        ("1.0", "returned float 1.0 for 3 rollouts"),
        ("'abc'", "returned str 'abc' for 3 rollouts"),
        ("{0: 1, 1: 1, 2: 1}", "returned dict {0: 1, 1: 1, 2: 1} for 3 rollouts"),
        ("(n for n in range(3))", "returned generator"),
        ("numpy.ones((3, 1))", "returned ndarray"),
        ("numpy.float64(1)", "returned float64"),
        ("[1, float('nan'), 1]", "returned float nan at index 1 (question 'b', rollout 0)"),
        ("[1, 1, float('inf')]", "returned float inf at index 2 (question 'a', rollout 1)"),
        ("['1', 1, 1]", "returned str '1' at index 0"),
        ("[[1], 1, 1]", "returned list [1] at index 0"),
        ("[1j, 1, 1]", "returned complex 1j at index 0"),
        ("[10**400, 1, 1]", "returned int 1000"),
        ("[1 / 0, 1, 1]", "raised ZeroDivisionError: division by zero (my_rewards.py, line 3)"),
        ("kwargs['gold'][1].strip()", "raised AttributeError: 'NoneType'"),
        ("sys.exit(0)", "raised SystemExit: 0 (my_rewards.py, line 3); it was given 3 rollouts"),
    ],
)
def test_what_is_no_list_of_scores_names_function_index_and_value(scorer, returned, message):
    """Nothing of it becomes a reward."""
    by = scorer(f"import numpy, sys\ndef score(**kwargs):\n    return {returned}")
    with pytest.raises(RewardError) as raised:
        by.score(ROLLOUTS)
    assert str(raised.value).startswith(f"reward function my_rewards:score {message}")


def test_an_interrupt_is_not_the_functions_fault(scorer):
    """Somebody who stops a run while the function works stops the run."""
    with pytest.raises(KeyboardInterrupt):
        scorer("def score(**kwargs):\n    raise KeyboardInterrupt").score(ROLLOUTS)


@pytest.mark.parametrize(
    ("body", "name", "message"),
    [
        ("def scores(**k): pass", "score", "my_rewards has no score; did you mean scores?"),
        ("score = 3", "score", "it is int; it must be a function"),
        ("async def score(**k): pass", "score", "it is an async function"),
        ("def score(levels): pass", "score", "it asks for levels; by keyword there are prompts,"),
        ("def score(prompts, /): pass", "score", "it asks for prompts"),
        ("1 / 0", "score", "module my_rewards cannot be imported: ZeroDivisionError"),
        ("import sys; sys.exit('bye')", "score", "cannot be imported: SystemExit: bye (my_rew"),
        ("def score(:", "score", "module my_rewards cannot be imported: SyntaxError"),
        ("import nowhere", "score", "module my_rewards needs nowhere, which is missing"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_at_once(scorer, body, name, message):
    """Before any rollout is sampled."""
    with pytest.raises(SettingsError, match="reward function my_rewards:score: ") as raised:
        scorer(body, name)
    assert message in str(raised.value)


def test_where_there_are_no_questions_nothing_is_asked_for(scorer):
    """An empty held-out set has no columns, and is no reason to refuse a function."""
    scorer("def score(level): return level")
    by = open_scorer(ScoreSettings(by="my_rewards:score"), {}, AnswerSettings(), None)
    assert by.score([]) == []


def test_a_module_that_is_not_there_hints_at_near_ones(scorer):
    """The files of the current folder are looked at."""
    scorer("def score(**kwargs): pass")
    for name in ("my_reward:score", "my_reward.inner:score"):
        with pytest.raises(SettingsError) as raised:
            open_scorer(ScoreSettings(by=name), {}, AnswerSettings(), None)
        assert "there is no module my_reward" in str(raised.value)
        assert "did you mean my_rewards?" in str(raised.value)
