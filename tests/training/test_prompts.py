"""Which questions a step asks."""

import json

import pytest

from optpo.data import ChatMessage, Question
from optpo.errors import SettingsError
from optpo.training.prompt_state import PromptStore
from optpo.training.prompts import (
    DynamicPrompts,
    PrioritizedPrompts,
    UniformPrompts,
)
from optpo.training.questions import with_suffix

NAMES = [f"q{number}" for number in range(12)]


def test_dynamic_prompts_ask_those_asked_least_often():
    """Every question comes once before any comes twice, none twice in a step, and where all were
    asked there is nothing left."""
    prompts, store, asked = DynamicPrompts(questions_per_step=5), PromptStore(), []
    for _ in range(3):
        chosen = prompts.choose([name for name in NAMES if name not in asked], store, 0, 1)
        assert not {*chosen} & {*asked}
        asked += chosen
    assert [*map(len, (asked, {*asked}))] == [12, 12]
    assert prompts.choose([], store, 0, 1) == []
    for name in asked[:5]:
        store.visit(name, None)
    assert not {*prompts.choose(NAMES, store, 0, 2)} & {*asked[:5]}


def test_dynamic_prompts_do_not_depend_on_the_order():
    """The same questions in another order, the same choice; another seed, another choice."""
    prompts, store = DynamicPrompts(questions_per_step=5), PromptStore()
    chosen = prompts.choose(NAMES, store, 0, 1)
    assert prompts.choose(NAMES[::-1], store, 0, 1) == chosen
    assert prompts.choose(NAMES, store, 1, 1) != chosen


def test_prioritized_prompts_prefer_the_uncertain():
    """A question worth .5 is drawn far more often than solved ones; over 400 steps of one out of
    twelve its share is that of the weights, .55 of 1.1, and all come sooner or later."""
    prompts, store = PrioritizedPrompts(questions_per_step=1), PromptStore()
    for name in NAMES:
        store.note(name, {"value": 0.5 if name == "q3" else 1.0})
    drawn = [prompts.choose(NAMES, store, 0, step)[0] for step in range(1, 401)]
    # Four standard deviations of a share of .5 in 400.
    assert drawn.count("q3") / 400 == pytest.approx(0.55 / 1.1, abs=0.1)
    assert {*drawn} == {*NAMES}
    assert PrioritizedPrompts().choose(NAMES, store, 0, 1)[0] in NAMES
    assert sorted(PrioritizedPrompts().choose(NAMES, store, 0, 1)) == sorted(NAMES)


def test_prioritized_prompts_read_a_value_by_the_rewards_of_the_run():
    """With rewards of -1 and 1 the middle is 0; another question's rewards show that, also when
    the store was saved and loaded."""
    prompts, store = PrioritizedPrompts(questions_per_step=1), PromptStore()
    middle, lost = {"value": 0.0}, {"value": -1.0, "least": -1.0, "greatest": 1.0}
    for name in NAMES:
        store.note(name, middle if name == "q3" else lost)
    loaded = PromptStore.from_json(json.loads(json.dumps(store.to_json())))
    drawn = [prompts.choose(NAMES, loaded, 0, step)[0] for step in range(1, 401)]
    assert drawn.count("q3") / 400 == pytest.approx(0.55 / 1.1, abs=0.1)
    assert drawn == [prompts.choose(NAMES, store, 0, step)[0] for step in range(1, 401)]


def test_budgets_are_announced_behind_the_question():
    """A suffix a budget; it stands behind a plain prompt, or behind the last message of a chat."""
    prompts = UniformPrompts(budgets=(10, 20), sentence=" In {budget}.")
    assert prompts.suffixes == (" In 10.", " In 20.")
    assert UniformPrompts().suffixes == ()
    assert with_suffix(Question("q", "Why?"), " In 10.").prompt == "Why? In 10."
    chat = Question("q", (ChatMessage("system", "Be brief."), ChatMessage("user", "Why?")))
    assert [m.content for m in with_suffix(chat, "!").prompt] == ["Be brief.", "Why?!"]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (lambda: UniformPrompts(questions_per_step=-1), "questions_per_step is -1"),
        (lambda: DynamicPrompts(questions_per_step=0), "questions_per_step is 0; it must be 1"),
        (lambda: DynamicPrompts(most_refills=-1), "most_refills is -1"),
        (lambda: PrioritizedPrompts(explore=0), "explore is 0"),
        (lambda: UniformPrompts(budgets=(5, 0)), "budgets is"),
        (lambda: UniformPrompts(sentence="Hurry"), "must contain {budget}"),
    ],
)
def test_settings_out_of_range(part, message):
    with pytest.raises(SettingsError, match=message):
        part()
