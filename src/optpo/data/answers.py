"""From a rollout's text to its answer, and from an answer to the key that equal answers share."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from optpo.errors import SettingsError

Extract = Literal["auto", "boxed", "answer-is", "last-number", "marker", "choice", "whole"]
_MARKED = ("boxed", "marker", "answer-is")
Compare = Literal["exact", "numeric", "math", "choice"]

_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]*)?|\.[0-9]+)"
_SCIENTIFIC = rf"{_DECIMAL}(?:[eE][-+]?[0-9]+)?"
_SIGNED = rf"[-+]?{_SCIENTIFIC}"

_NUMBER = re.compile(rf"({_SIGNED})(?:/({_SIGNED}))?(\\?%)?")
_LATEX_FRACTION = re.compile(
    rf"([-+]?)\\frac(?:\{{({_SIGNED})\}}\{{({_SIGNED})\}}|([0-9])([0-9]))(\\?%)?"
)
# A sign belongs to the number unless something is subtracted there; 12 in "x12" is no number.
_NUMBER_IN_TEXT = re.compile(
    r"(?<![A-Za-z0-9_])(?:(?<![\w)\]}])[-+])?"
    rf"{_INTEGER}(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?:/[0-9]+)?(?:\\?%)?"
    r"|(?<![\w.])(?:(?<![\w)\]}])[-+])?\.[0-9]+(?:\\?%)?"
)
_BRACES = re.compile(r"\\boxed\s{0,8}\{|\\.|[{}]", re.DOTALL)
_ANSWER_IS = re.compile(r"\banswer[\s*_]{0,8}(?:is|[:=])[\s:*_]*", re.IGNORECASE)
_END_OF_SENTENCE = re.compile(r"\n|[.!?;](?=\s|$)")
_WORDS = re.compile(r"[^\W\d_]{2,}(?:[ '-][^\W\d_]+)*")
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"))
_CHOICE_AT_START = re.compile(r"[\s(*_$]*([A-J])(?![\w'])|[\s(*_$]*([a-j])[\s)*_$.:]*$")
_CHOICE_ALONE = re.compile(r"[\s({*_$]*([A-Ja-j])[\s)}*_$.:]*")
_LATEX_COMMAND = re.compile(r"\\[a-z]+\s{0,8}\{?")
_CHOICE_IN_BRACKETS = re.compile(r"\(([A-J])\)")
_CHOICE_ON_LINE = re.compile(r"^[ \t*_]*([A-J])[*_]*(?:[.:)]|[ \t]*$)", re.MULTILINE)

# Numbers are written out exactly up to this many digits; a key must not take gigabytes to build.
_DIGITS = 400


@dataclass(frozen=True)
class AnswerSettings:
    r"""How the answer is found in a rollout, and when two answers are the same.

    Args:
        extract: where the answer stands. "boxed": the last complete \boxed{...}; "marker": after
            the last `marker`, to the end of its line; "answer-is": after the last "answer is" or
            "answer:", to the end of the sentence; "last-number"; "choice": a letter from A to J,
            as in "(B)", "B." or "answer: B"; "whole": the text; "auto": the first of boxed,
            marker, answer-is and last-number (where letters are compared: choice) that finds
            something.
        marker: the text before the answer, as "####" in GSM8K.
        compare: "exact": the same text; "numeric": the same number (1/2, 0.5, .50; 1,000 and 1000;
            50% only equals 50.0%: it is neither 50 nor 0.5) or the same cleaned text; "math": as
            numeric, and what a `MathVerifier` finds equal; "choice": the same letter.

    Raises:
        SettingsError: a value is unknown, or the marker empty.
    """

    extract: Extract = "auto"
    marker: str = "####"
    compare: Compare = "numeric"

    def __post_init__(self) -> None:
        problems = [
            f"{name} = {value!r}: must be one of {', '.join(allowed)}"
            for name, value, allowed in (
                ("extract", self.extract, get_args(Extract)),
                ("compare", self.compare, get_args(Compare)),
            )
            if value not in allowed
        ]
        if not self.marker.strip():
            problems.append(f"marker = {self.marker!r}: must hold text")
        if problems:
            raise SettingsError(problems)

    def extract_answer(self, text: str) -> str | None:
        r"""Return the answer in a rollout's text, or None; never raises.

        >>> AnswerSettings().extract_answer(r"So it is \boxed{\frac{1}{2}}.")
        '\\frac{1}{2}'
        """
        ways: dict[str, Callable[[str], str | None]] = {
            "boxed": _boxed,
            "marker": self._after_marker,
            "answer-is": _answer_is,
            "last-number": _last_number,
            "choice": _choice,
            "whole": str,
        }
        for way in self._ways:
            answer = (ways[way](text) or "").strip()
            if answer:
                return answer
        return None

    @property
    def _ways(self) -> tuple[str, ...]:
        """The ways to try, in turn."""
        if self.extract != "auto":
            return (self.extract,)
        # Among letters a number is no answer.
        return (*_MARKED, "choice" if self.compare == "choice" else "last-number")

    def canonical_key(self, answer: str) -> str:
        """Return the key that answers share when they are the same; never raises.

        >>> settings = AnswerSettings()
        >>> settings.canonical_key(".50") == settings.canonical_key("1/2") == "1/2"
        True
        """
        if self.compare == "exact":
            return answer.strip()
        if self.compare == "choice":
            letter = _choice(answer)
            return letter if letter is not None else _cleaned(answer)
        cleaned = _cleaned(answer)
        number = _rational(re.sub(r"^[A-Za-z]\s*=\s*", "", cleaned))
        return number if number is not None else cleaned

    def _after_marker(self, text: str) -> str | None:
        _, marker, after = text.rpartition(self.marker)
        # The answer may stand on the next line, but not further down.
        return after.strip().partition("\n")[0] if marker else None


def _boxed(text: str) -> str | None:
    # One pass with a stack: a rollout may repeat "\boxed{" thousands of times without closing it.
    opened: list[tuple[int, bool]] = []
    start, found = -1, None
    for match in _BRACES.finditer(text):
        token = match.group()
        if token.endswith("{") and token != r"\{":
            opened.append((match.end(), token != "{"))
        elif token == "}" and opened:
            begin, is_box = opened.pop()
            content = text[begin : match.start()] if is_box and begin > start else ""
            if content.strip():
                start, found = begin, content
    return found


def _answer_is(text: str) -> str | None:
    for match in reversed([*_ANSWER_IS.finditer(text)]):
        # A sentence that is longer than this is no answer.
        after = text[match.end() : match.end() + 1000]
        sentence = _END_OF_SENTENCE.split(after, maxsplit=1)[0].strip(" \t\r*_")
        if sentence:
            return sentence
    return None


def _last_number(text: str) -> str | None:
    found = None
    for match in _NUMBER_IN_TEXT.finditer(text.replace("\u2212", "-")):
        found = match.group()
    return found


def _choice(text: str) -> str | None:
    """Return the letter a text chooses, the surest way of saying so first."""
    answer_is = [text[match.end() : match.end() + 100] for match in _ANSWER_IS.finditer(text)]
    for said in (_boxed(text) or "", *reversed(answer_is)):
        plain = _LATEX_COMMAND.sub("", said).strip("{} ").partition("\n")[0]
        match = _CHOICE_AT_START.match(plain)
        if match:
            return (match[1] or match[2]).upper()
    alone = _CHOICE_ALONE.fullmatch(_LATEX_COMMAND.sub("", text))
    if alone:
        return alone[1].upper()
    found = _CHOICE_IN_BRACKETS.findall(text) or _CHOICE_ON_LINE.findall(text)
    return found[-1] if found else None


def _cleaned(answer: str) -> str:
    """Return the answer without what does not change its meaning: wrappers, spacing commands."""
    text = answer.replace("\u2212", "-").strip().rstrip(".").strip()
    for opening, closing in _WRAPPERS:
        inside = text[len(opening) : len(text) - len(closing)]
        if text == f"{opening}{inside}{closing}" and inside.strip():
            text = inside.strip()
    box = _boxed(text)
    if box is not None and text == f"\\boxed{{{box}}}":
        text = box.strip()
    text = re.sub(r"\\[dt]frac(?![a-zA-Z])", r"\\frac", text)
    text = re.sub(r"\\(?:left|right)(?![a-zA-Z])|\\[!,;:]|\\\s|~", "", text)
    text = re.sub(r"\{,\}", ",", text)
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    text = " ".join(text.split())
    # Words are the same in any case; single letters and formulas are not.
    return text.casefold() if _WORDS.fullmatch(text) else text


def _rational(text: str) -> str | None:
    """Return the normal form p/q of a number, with "%" kept, or None for anything else."""
    if len(text) > _DIGITS:
        return None
    text = re.sub(r"^([-+]?)\s*(?:\\?[$\u00a3\u20ac])\s*", r"\1", text)
    text = re.sub(r"\s*([/%])\s*", r"\1", text)
    latex = _LATEX_FRACTION.fullmatch(text)
    plain = _NUMBER.fullmatch(text)
    if latex:
        sign, above, below = latex[1], latex[2] or latex[4], latex[3] or latex[5]
        percent = latex[6]
    elif plain:
        sign, above, below, percent = "", plain[1], plain[2] or "1", plain[3]
    else:
        return None
    numerator, denominator = _fraction(above), _fraction(below)
    if numerator is None or not denominator:
        return None
    value = numerator / denominator * (-1 if sign == "-" else 1)
    return f"{value}{'%' if percent else ''}"


def _fraction(text: str) -> Fraction | None:
    mantissa, _, exponent = text.replace(",", "").lower().partition("e")
    if exponent and (len(exponent) > 5 or abs(int(exponent)) > _DIGITS):
        return None
    return Fraction(mantissa) * Fraction(10) ** int(exponent or 0)
