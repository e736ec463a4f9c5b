"""Questions of reasoning-gym and its scorers, with their traps closed."""

import json
import subprocess
import sys

import pytest

from optpo.data import (
    AnswerSettings,
    ScoreSettings,
    load_questions,
    open_scorer,
    reasoning_tasks,
)
from optpo.data.reasoning_tasks import METADATA, reasoning_points
from optpo.errors import DataError, SettingsError
from optpo.rollout import Rollout


def rollout(question, answer):
    return Rollout(question.id, 0, 0, (1,), (2,), (-1.0,), "stop", answer or "", answer)


def scores(questions, answers, **settings):
    by_id = {question.id: question for question in questions}
    scorer = open_scorer(ScoreSettings(**settings), by_id, AnswerSettings(), None)
    return scorer.score([rollout(q, a) for q, a in zip(questions, answers, strict=True)])


def problem(name):
    with pytest.raises(DataError) as raised:
        load_questions(name)
    return str(raised.value)


def test_a_name_gives_questions_with_stable_ids_and_their_entries():
    """Size and seed are read, the entry survives JSON, and gold is the task's own answer."""
    questions = load_questions("reasoning-gym:chain_sum:5:7")
    assert [question.id for question in questions] == [f"chain_sum-7-{n}" for n in range(5)]
    assert questions == load_questions("reasoning-gym:chain_sum:500:7", limit=5)
    assert json.loads(json.dumps(questions[0].columns)) == questions[0].columns
    assert questions[0].columns["reasoning_gym"] == "chain_sum"
    terms = questions[0].columns[METADATA]["expression"]
    assert terms in questions[0].prompt
    assert eval(terms) == int(questions[0].gold)


def test_sets_of_near_seeds_share_no_question():
    """In reasoning-gym seed 1 is seed 0 moved on by one; a held-out set of it would be the same."""
    first, second = (load_questions(f"reasoning-gym:lcm:200:{seed}") for seed in (0, 1))
    shared = {q.prompt for q in first} & {q.prompt for q in second}
    assert len(shared) < 10


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reasoning-gym:chainsum", "no task 'chainsum'; did you mean chain_sum"),
        ("reasoning-gym:composite", "no task 'composite'"),
        ("reasoning-gym:", "must be like reasoning-gym:TASK:SIZE:SEED"),
        ("reasoning-gym:lcm:many", "must be like reasoning-gym:TASK:SIZE:SEED"),
        ("reasoning-gym:lcm:5:1:2", "must be like reasoning-gym:TASK:SIZE:SEED"),
        ("reasoning-gym:lcm:0", "size is 0"),
        ("reasoning-gym:lcm:2000000", "size is 2000000"),
        ("reasoning_gym:lcm", "are named reasoning-gym:TASK:SIZE:SEED"),
    ],
)
def test_a_wrong_name_says_what_is_right(name, message):
    """Unknown tasks, and sizes and seeds that are no numbers."""
    assert message in problem(name)


def test_a_missing_extra_is_named(monkeypatch):
    """Without reasoning-gym the message says what to install."""
    monkeypatch.setattr(reasoning_tasks, "find_spec", lambda name: None)
    for name in ("_worker", "_tasks"):  # as they are before they have been asked anything
        monkeypatch.setattr(reasoning_tasks, name, getattr(reasoning_tasks, name).__wrapped__)
    assert "pip install 'optpo[reasoning-gym]'" in problem("reasoning-gym:lcm")


def test_tasks_that_go_through_sets_are_the_same_in_every_process():
    """isomorphic_strings differs from process to process by Python's own hashes."""
    code = (
        "from optpo.data import load_questions\n"
        "print([q.prompt for q in load_questions('reasoning-gym:isomorphic_strings:3')])"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert told[0] == told[1]
    assert told[0].strip() == str(
        [question.prompt for question in load_questions("reasoning-gym:isomorphic_strings:3")]
    )


# Tuples compared (arc_1d, rearc), whole-number keys (graph tasks), formulas (countdown).
@pytest.mark.parametrize(
    "task", ["chain_sum", "rearc", "arc_agi", "countdown", "syllogism", "gcd", "futoshiki"]
)
def test_known_answers_get_full_points_and_nonsense_none(task):
    """After a round trip through JSON too, as a run keeps its questions."""
    questions = load_questions(f"reasoning-gym:{task}:3")
    assert scores(questions, [question.gold for question in questions]) == [1, 1, 1]
    assert scores(questions, ["zzz", "", None]) == [0, 0, 0]


def test_a_scorer_that_takes_any_text_for_true_is_not_believed():
    """game_of_life_halting gives 1.0 to "zzz": there the known answer decides."""
    questions = load_questions("reasoning-gym:game_of_life_halting:12")
    assert {question.gold for question in questions} == {"True", "False"}
    assert scores(questions, ["zzz"] * 12) == [0] * 12
    assert scores(questions, ["true"] * 12) == [float(q.gold == "True") for q in questions]
    assert scores(questions, ["False"] * 12) == [float(q.gold == "False") for q in questions]


def test_a_scorer_that_raises_gives_nothing():
    """prime_factorization raises on what is no number."""
    questions = load_questions("reasoning-gym:prime_factorization:2")
    assert scores(questions, ["zzz", questions[1].gold]) == [0, 1]


def test_points_below_full_count_only_where_asked():
    """A number that is off in advanced_geometry earns 0.01 there."""
    questions = load_questions("reasoning-gym:advanced_geometry:1")
    assert scores(questions, ["zzz"]) == [0]
    assert scores(questions, ["zzz"], partial_credit=True) == [0.01]


def test_an_answer_that_burns_time_gets_nothing(monkeypatch):
    """countdown evaluates what it is given; the next answer finds a working scorer."""
    monkeypatch.setattr("optpo.data.reasoning_tasks._SECONDS_TO_SCORE", 0.5)
    (question,) = load_questions("reasoning-gym:countdown:1")
    entry = (question.prompt, question.gold, question.columns[METADATA])
    assert reasoning_points("countdown", *entry, "10**10**10") == 0
    assert reasoning_points("countdown", *entry, question.gold) == 1
    assert reasoning_points("countdown", *entry, "1+" * 20_000 + "1") == 0


def test_tasks_without_a_known_answer_are_judged_by_their_scorer_alone():
    """graph_color has many answers and names none: gold cannot judge it."""
    (question,) = load_questions("reasoning-gym:graph_color:1")
    assert question.gold is None
    puzzle = question.columns[METADATA]["puzzle"]
    neighbours = {
        v: {a + b - v for a, b in puzzle["edges"] if v in (a, b)} for v in puzzle["vertices"]
    }
    colours = {}
    for vertex, near in neighbours.items():
        taken = {colours.get(other) for other in near}
        colours[str(vertex)] = colours[vertex] = next(
            colour for colour in puzzle["color_options"] if colour not in taken
        )
    answer = json.dumps({str(vertex): colours[vertex] for vertex in puzzle["vertices"]})
    assert scores([question], [answer]) == [1]
    assert scores([question], [answer], by="gold") == [None]
    by_gold = open_scorer(ScoreSettings(by="gold"), {}, AnswerSettings(), None)
    by_task = open_scorer(ScoreSettings(by="reasoning-gym"), {}, AnswerSettings(), None)
    assert not by_gold.judges(question)
    assert by_task.judges(question)


def test_settings_that_are_wrong_are_named():
    """Neither a known word nor a function's name, and no finite number."""
    with pytest.raises(SettingsError) as raised:
        ScoreSettings(by="golden", full=float("nan"))
    assert len(raised.value.problems) == 2
