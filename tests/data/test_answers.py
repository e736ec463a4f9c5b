r"""Answers found in text, and the keys equal answers share."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from optpo.data import AnswerSettings
from optpo.errors import SettingsError

ANYTHING = st.text(st.characters(), max_size=200) | st.lists(
    st.sampled_from(
        [*"0123456789.,/%-+eE(){}$ \n*AB:", "\\boxed{", "\\frac", "####", "answer is", "\\text{"]
    ),
    max_size=40,
).map("".join)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}", "5"),
        (r"\boxed{1} no, \boxed{2}.", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {x^{2^{3}}}", "x^{2^{3}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ 1 \right.}", r"\left\{ 1 \right."),
        (r"\boxed{x = \boxed{5}}", "5"),
        (r"\boxed{3} and then \boxed{4", "3"),
        (r"{ \boxed{3}", "3"),
        (r"\boxed{3} \boxed{ }", "3"),
        (r"\boxed{", None),
        ("The answer is 5", None),
    ],
)
def test_boxed_takes_the_last_complete_box(text, answer):
    r"""The last \boxed{} with balanced braces, also nested, escaped or cut off."""
    assert AnswerSettings(extract="boxed").extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 42.", "42"),
        ("the answer is 3.5. So it goes", "3.5"),
        ("Final Answer: x\nmore", "x"),
        ("**Answer:** **12**", "12"),
        ("**Answer**: 7", "7"),
        ("The answer is:\n\n$8$", "$8$"),
        ("answer is 1\nNo, the answer is 2", "2"),
        ("answer = (1, 2); done", "(1, 2)"),
        ("The answer is 5. The answer is", "5"),
        ("I cannot answer", None),
        ("the answering machine is on", None),
    ],
)
def test_answer_is_takes_the_rest_of_the_sentence(text, answer):
    """The last "answer is" or "answer:" that something follows."""
    assert AnswerSettings(extract="answer-is").extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3 + 4 = 7.", "7"),
        ("it is -5", "-5"),
        ("it is \u22125", "-5"),
        ("10-3", "3"),
        ("x=-2", "-2"),
        ("1,234,567 people", "1,234,567"),
        ("12,345", "12,345"),
        ("1, 2", "2"),
        ("about 3.14.", "3.14"),
        ("a half, .5", ".5"),
        ("3/4 of it", "3/4"),
        ("50% off", "50%"),
        ("6.02e23 things", "6.02e23"),
        ("see x2", None),
        ("none", None),
    ],
)
def test_last_number_takes_the_last_number(text, answer):
    """Signs, separators, fractions and percent belong to it; a digit in a name is no number."""
    assert AnswerSettings(extract="last-number").extract_answer(text) == answer


@pytest.mark.parametrize(
    ("marker", "text", "answer"),
    [
        ("####", "#### 1\n#### 2 \nbye", "2"),
        ("####", "####\n5\n6", "5"),
        ("####", "####  ", None),
        ("####", "5", None),
        ("A>", "A> 3", "3"),
    ],
)
def test_marker_takes_the_line_after_the_last_marker(marker, text, answer):
    """The text after the last marker, up to the end of its line."""
    assert AnswerSettings("marker", marker).extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(B)", "B"),
        ("B.", "B"),
        ("B", "B"),
        ("b", "B"),
        ("$B$", "B"),
        ("answer: B", "B"),
        ("The answer is (c).", "C"),
        ("The answer is B because A is wrong", "B"),
        (r"\boxed{\text{D}}", "D"),
        (r"The answer is $\boxed{C}$", "C"),
        ("**Answer:** **E**", "E"),
        ("(A) or (B)? I take (B)", "B"),
        ("I think\nC. Paris", "C"),
        ("(A) is wrong, so\nanswer: J", "J"),
        ("A dog ate it", None),
        ("The answer is a dog", None),
        ("The answer is Berlin", None),
        ("I am not sure", None),
        ("K", None),
        ("", None),
    ],
)
def test_choice_takes_the_letter(text, letter):
    """A letter from A to J where one is chosen, never an article or a pronoun."""
    assert AnswerSettings(extract="choice").extract_answer(text) == letter


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"#### 1, the answer is 2, \boxed{3}, 4", "3"),
        ("the answer is 2, 4\n#### 1", "1"),
        ("the answer is 2\n4", "2"),
        ("4", "4"),
        ("none", None),
    ],
)
def test_auto_tries_the_surest_way_first(text, answer):
    """Boxed before marker before "answer is" before the last number."""
    assert AnswerSettings().extract_answer(text) == answer


def test_whole_takes_the_text():
    """The whole text, without the blanks around it; blanks alone are no answer."""
    assert AnswerSettings("whole").extract_answer(" a b\n") == "a b"
    assert AnswerSettings("whole").extract_answer(" \n") is None


SAME_NUMBER = [
    ["1/2", "0.5", ".50", "+0.5", r"\frac{1}{2}", r"\dfrac12", "$0.5$", "2/4", " 0.5. ", "x = 1/2"],
    ["1000", "1,000", "1,000.0", "1e3", r"\$1,000", "$1000$", r"1{,}000", r"\boxed{1000}"],
    ["-1/3", "\u22121/3", r"-\frac{1}{3}", r"\frac{-1}{3}", "1/-3"],
    ["50%", r"50\%", "50.0 %", "50.0%"],
    ["50", "50.0"],
    ["0", "-0", "0.0", "0/5"],
    ["1,2"],
    ["(1,2)", "(1,2) "],
    ["12"],
    ["1 1/2"],
    ["3/2"],
    ["Paris", "paris", "PARIS.", r"\text{Paris}"],
    ["x"],
    ["X"],
    [r"\Delta"],
    [r"\delta"],
    ["1/0"],
    ["0/0"],
    ["1e999999999"],
    ["1e99999999"],
    ["10^{10^{10}}"],
]


@pytest.mark.parametrize("compare", ["numeric", "math"])
def test_equal_numbers_share_a_key_and_others_do_not(compare):
    """One key a row of the table, and no two rows with the same."""
    settings = AnswerSettings(compare=compare)
    keys = [{settings.canonical_key(answer) for answer in row} for row in SAME_NUMBER]
    assert [len(row) for row in keys] == [1] * len(SAME_NUMBER)
    assert len(set().union(*keys)) == len(SAME_NUMBER)


@given(st.fractions(), st.integers(1, 9))
def test_a_number_has_one_key_however_it_is_written(value, factor):
    """An expanded fraction, in plain text or LaTeX, has the key of the reduced one."""
    above, below = value.numerator * factor, value.denominator * factor
    keys = {
        AnswerSettings().canonical_key(text)
        for text in (str(value), f"{above}/{below}", rf"\frac{{{above}}}{{{below}}}")
    }
    assert keys == {str(value)}


def test_exact_compares_text():
    """Under "exact" only blanks around the answer are forgiven."""
    settings = AnswerSettings(compare="exact")
    assert settings.canonical_key(" 0.5 ") == "0.5"
    assert settings.canonical_key(".5") == ".5"


def test_choice_compares_letters():
    """Under "choice" every way to write a letter is that letter, other text stays itself."""
    settings = AnswerSettings(compare="choice")
    assert {settings.canonical_key(text) for text in ("(B)", "b", "B.", "B. Paris")} == {"B"}
    assert settings.canonical_key("Paris") == "paris"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B. Paris", "B"),
        ("I choose (B).", "B"),
        ("Option 2 is wrong, 3 as well: so (D)", "D"),
        (r"\boxed{C}, not A", "C"),
        ("#### A", "A"),
        ("The answer is (B).", "B"),
        ("42", None),
    ],
)
def test_auto_finds_letters_where_letters_are_compared(text, answer):
    """No number is taken for the answer of a multiple-choice question."""
    settings = AnswerSettings(compare="choice")
    found = settings.extract_answer(text)
    assert (None if found is None else settings.canonical_key(found)) == answer


@pytest.mark.parametrize("extract", ["auto", "choice", "whole", "boxed", "answer-is", "marker"])
@pytest.mark.parametrize("compare", ["exact", "numeric", "choice"])
@given(text=ANYTHING)
@example(text="10^{10^{10}}")
@example(text="1e999999999")
@example(text="1e9999")
@example(text="1e-99999/1e99999")
@example(text="9" * 5000)
@example(text="1" * 399 + "/" + "0." + "0" * 300 + "1")
def test_no_text_makes_it_raise(extract, compare, text):
    """Any text gives an answer that is not blank, or None, and any answer gives a key."""
    settings = AnswerSettings(extract, compare=compare)
    answer = settings.extract_answer(text)
    assert answer is None or answer.strip()
    assert isinstance(settings.canonical_key(text), str)


@pytest.mark.parametrize("extract", ["auto", "choice"])
@pytest.mark.parametrize(
    "piece", ["\\boxed{", "answer:", "1,", "9", "{", "\\text{", "answer ", " ", "(A ", "1e", "* "]
)
def test_a_rollout_that_repeats_itself_does_not_hang(extract, piece):
    """A hundred thousand repetitions cost what their length costs (the suite has a time limit)."""
    settings = AnswerSettings(extract, compare="numeric")
    text = piece * 100_000
    answer = settings.extract_answer(text)
    assert answer is None or answer in text
    assert isinstance(settings.canonical_key(text), str)


def test_unknown_settings_are_all_named():
    """One error for an unknown way, an unknown comparison and an empty marker."""
    with pytest.raises(SettingsError) as raised:
        AnswerSettings(extract="box", marker=" ", compare="same")
    assert [line.split(" = ")[0] for line in raised.value.problems] == [
        "extract",
        "compare",
        "marker",
    ]
