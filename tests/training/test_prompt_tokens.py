"""From questions to the tokens a policy is asked with."""

import copy
import math

import pytest

from optpo.data import ChatMessage, Question
from optpo.errors import DataError, ModelError
from optpo.training.questions import prompt_tokens, thought_needed
from optpo.training.settings import DataSettings, ModelSettings

TEMPLATE = (
    "{% for message in messages %}<s> {{ message.role }} {{ message.content }} {% endfor %}"
    "{% if add_generation_prompt %}w90{% endif %}"
)
PLAIN = Question("plain", "w8 w9")
CHAT = Question("chat", (ChatMessage("w10", "w11"), ChatMessage("w12", "w13 w14")))
UNKNOWN = 95


@pytest.fixture
def chatting(policy):
    """A policy whose tokenizer has a chat template."""
    policy.tokenizer = copy.deepcopy(policy.tokenizer)
    policy.tokenizer.chat_template = TEMPLATE
    return policy


def tokens(policy, questions, chat="auto", template="{prompt}", max_new_tokens=10):
    return prompt_tokens(
        policy, questions, ModelSettings(chat=chat), DataSettings(template=template), max_new_tokens
    )


@pytest.mark.parametrize("chat", ["auto", "never"])
def test_a_plain_prompt_without_a_chat_template(policy, chat):
    """The prompt's own tokens, by question id."""
    assert tokens(policy, [PLAIN], chat) == {"plain": (8, 9)}


@pytest.mark.parametrize("chat", ["auto", "always"])
def test_a_plain_prompt_becomes_a_users_message(chatting, chat):
    """Where there is a chat template the prompt is wrapped in it, once, with the turn of the answer
    opened; the role "user" is no word of this tokenizer."""
    assert tokens(chatting, [PLAIN], chat) == {"plain": (1, UNKNOWN, 8, 9, 90)}


def test_a_plain_prompt_may_stay_plain(chatting):
    """`never` leaves a plain prompt as it is, and messages are still messages."""
    found = tokens(chatting, [PLAIN, CHAT], "never")
    assert found == {"plain": (8, 9), "chat": (1, 10, 11, 1, 12, 13, 14, 90)}


def test_special_tokens_are_not_doubled(chatting):
    """The chat template writes the begin-of-text token itself; the tokenizer adds no second one."""
    from tokenizers.processors import TemplateProcessing

    chatting.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    assert tokens(chatting, [PLAIN], "never") == {"plain": (1, 8, 9)}
    assert tokens(chatting, [PLAIN], "always")["plain"].count(1) == 1


def test_the_template_goes_around_plain_prompts(chatting):
    """`{prompt}` is replaced, also inside the chat markup; braces of a prompt are left alone."""
    found = tokens(chatting, [PLAIN, CHAT], template="w20 {prompt} w21")
    assert found["plain"] == (1, UNKNOWN, 20, 8, 9, 21, 90)
    assert found["chat"] == (1, 10, 11, 1, 12, 13, 14, 90)
    braces = Question("braces", "w8 {x}")
    assert tokens(chatting, [braces], "never", "w20 {prompt}") == {"braces": (20, 8, UNKNOWN)}


def test_markup_without_a_chat_template_is_an_error(policy):
    """`always`, and a question of messages, need a chat template, and say so."""
    with pytest.raises(ModelError, match=r"model\.chat is 'always'"):
        tokens(policy, [PLAIN], "always")
    with pytest.raises(ModelError, match="question 'chat' is a list of chat messages"):
        tokens(policy, [PLAIN, CHAT])


def test_prompts_that_cannot_fit_are_named(policy):
    """Prompt and answer must fit the context of 512; the first five that do not are named, the rest
    counted, and the way out given, before anything is sampled."""
    long = [Question(f"long {n}", "w8 " * (503 + n)) for n in range(8)]
    fits = Question("fits", "w8 " * 502)
    assert len(tokens(policy, [fits])["fits"]) == 502
    with pytest.raises(ModelError) as caught:
        tokens(policy, [fits, *long])
    lines = str(caught.value).splitlines()
    assert len(lines) == 7
    assert "'long 0' has 503 tokens" in lines[0]
    assert "context of 512" in lines[0]
    assert "3 more" in lines[5]
    assert "sample.max_new_tokens=2" in lines[6]


def test_a_prompt_without_tokens_is_an_error(policy):
    """Nothing could be predicted from nothing."""
    with pytest.raises(ModelError, match="'blank' has no tokens"):
        tokens(policy, [Question("blank", " ")])


def test_whether_thinking_is_needed_is_read_from_a_column():
    """True, false or nothing; whatever else is there is named, of all questions at once."""
    said = {"a": True, "b": False, "c": None}
    questions = [Question(name, "w8", columns={"needed": said[name]}) for name in said]
    found = thought_needed([*questions, PLAIN])
    assert [found["a"], found["b"]] == [1, 0]
    assert math.isnan(found["c"]) and math.isnan(found["plain"])
    wrong = [
        Question("d", "w8", columns={"needed": "no"}),
        Question("e", "w8", columns={"needed": 1}),
    ]
    with pytest.raises(DataError, match=r"true, false or null; .* 'd' \('no'\), 'e' \(1\)"):
        thought_needed([*questions, *wrong])
