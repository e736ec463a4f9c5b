"""A function of the user's that scores rollouts, called as TRL calls its reward functions."""

import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from difflib import get_close_matches
from importlib import import_module
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import Any

from optpo.data.questions import Question
from optpo.errors import RewardError, SettingsError
from optpo.rollout import Rollout

FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""How a function is named: module:function."""

_OWN = ("prompts", "completions", "completion_ids", "id", "gold", "answers")


class RewardFunction:
    """Scores all rollouts of a step by one call of a function.

    It is called by keywords, each a list with one entry a rollout: `prompts` and `completions` (text;
    of a question in chat messages lists of {"role", "content"}), `completion_ids` (tokens), `id` and
    `gold` of the question, `answers` (what was found in the completion, or None), and every further
    column of the questions (None where a question lacks it; a column named like one of these is not
    passed). A function without **kwargs gets those of them that it names. It returns a list, tuple
    or array with one number or None (no score) a rollout. What it prints goes to standard error:
    standard output is the command's own.

    Args:
        name: module:function.
        full: the score from which on a rollout is right.
        questions: by id, those that rollouts are of.
        folder: where the module is looked for before what is installed; None: the current folder.

    Raises:
        SettingsError: there is no such function, or it asks for what is not there.
    """

    def __init__(
        self,
        name: str,
        full: float,
        questions: Mapping[str, Question],
        folder: str | None = None,
    ) -> None:
        self.name, self._full, self.questions = name, full, questions
        self._columns = sorted(
            {column for question in questions.values() for column in question.columns} - {*_OWN}
        )
        self._function = _found(name, folder or os.getcwd())  # noqa: PTH109 - sys.path holds text
        offered = (*_OWN, *self._columns)
        # Which columns there are is not known where there are no questions, and nothing is asked.
        self._passed = _accepted(name, self._function, offered) if questions else []

    @property
    def full(self) -> float:
        """The score from which on a rollout is right."""
        return self._full

    def judges(self, question: Question) -> bool:
        """Always: the function is asked."""
        return True

    def score(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """A score a rollout, in order.

        Raises:
            RewardError: the function raised, or returned anything but a number or None a rollout.
        """
        if not rollouts:
            return []
        given = self._arguments(rollouts)
        try:
            with redirect_stdout(sys.stderr):
                returned = self._function(**{name: given[name] for name in self._passed})
        # A function that leaves by sys.exit would end the run without a word, as if it were done.
        except (Exception, SystemExit) as error:
            raise RewardError(
                f"reward function {self.name} raised {type(error).__name__}: {error}"
                f"{_place(error)}; it was given {len(rollouts)} rollouts, the first of question "
                f"{rollouts[0].prompt_id!r}"
            ) from error
        scores = _as_list(returned)
        if scores is None or len(scores) != len(rollouts):
            what = _shown(returned) if scores is None else f"{len(scores)} scores"
            raise RewardError(
                f"reward function {self.name} returned {what} for {len(rollouts)} rollouts; it must "
                "return a list with one number or None for each"
            )
        return [
            self._checked(score, place, rollout)
            for place, (score, rollout) in enumerate(zip(scores, rollouts, strict=True))
        ]

    def _arguments(self, rollouts: Sequence[Rollout]) -> dict[str, list[Any]]:
        asked = [self.questions[rollout.prompt_id] for rollout in rollouts]
        own = {
            "prompts": [_prompt(question) for question in asked],
            "completions": [
                _completion(question, rollout.text)
                for question, rollout in zip(asked, rollouts, strict=True)
            ],
            "completion_ids": [list(rollout.tokens) for rollout in rollouts],
            "id": [question.id for question in asked],
            "gold": [question.gold for question in asked],
            "answers": [rollout.answer for rollout in rollouts],
        }
        columns = {name: [q.columns.get(name) for q in asked] for name in self._columns}
        return {**own, **columns}

    def _checked(self, score: Any, place: int, rollout: Rollout) -> float | None:
        if score is None:
            return None
        number = _as_number(score)
        if number is None:
            raise RewardError(
                f"reward function {self.name} returned {_shown(score)} at index {place} (question "
                f"{rollout.prompt_id!r}, rollout {rollout.index}); it must be a finite number, or "
                "None for no score"
            )
        return number


def _prompt(question: Question) -> Any:
    if isinstance(question.prompt, str):
        return question.prompt
    return [vars(message).copy() for message in question.prompt]


def _completion(question: Question, text: str) -> Any:
    return text if isinstance(question.prompt, str) else [{"role": "assistant", "content": text}]


def _as_list(returned: Any) -> list[Any] | None:
    if isinstance(returned, list | tuple):
        return list(returned)
    # Arrays of NumPy and tensors, without loading either.
    if len(getattr(returned, "shape", ())) == 1 and callable(getattr(returned, "tolist", None)):
        return list(returned.tolist())
    return None


def _as_number(score: Any) -> float | None:
    if getattr(score, "shape", None) == () and callable(getattr(score, "item", None)):
        score = score.item()
    if not isinstance(score, Real):
        return None
    try:
        number = float(score)
    except OverflowError:
        return None
    return number if isfinite(number) else None


def _found(name: str, folder: str) -> Callable[..., Any]:
    module_name, _, path = name.partition(":")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        with redirect_stdout(sys.stderr):
            found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise _unfound(
                name, f"module {module_name} needs {error.name}, which is missing"
            ) from error
        files = [file.stem for file in Path(folder).glob("*.py")]
        near = get_close_matches(module_name, files, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise _unfound(
            name, f"there is no module {module_name} in {folder} or installed{meant}"
        ) from error
    except (Exception, SystemExit) as error:
        told = f"{type(error).__name__}: {error}{_place(error)}"
        raise _unfound(name, f"module {module_name} cannot be imported: {told}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, [own for own in dir(found) if own[0] != "_"], n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise _unfound(name, f"{module_name} has no {part}{meant}")
        found = getattr(found, part)
    if not callable(found) or inspect.iscoroutinefunction(found):
        kind = "an async function" if callable(found) else f"{type(found).__name__}"
        raise _unfound(name, f"it is {kind}; it must be a function that returns scores")
    return found  # type: ignore[no-any-return]


def _accepted(name: str, function: Callable[..., Any], offered: Sequence[str]) -> list[str]:
    """Which of the arguments offered the function takes."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return list(offered)
    missing = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and (parameter.name not in offered or parameter.kind is parameter.POSITIONAL_ONLY)
    ]
    if missing:
        raise _unfound(
            name, f"it asks for {', '.join(missing)}; by keyword there are {', '.join(offered)}"
        )
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return list(offered)
    named = {parameter.name for parameter in parameters}
    return [argument for argument in offered if argument in named]


def _unfound(name: str, why: str) -> SettingsError:
    return SettingsError([f"reward function {name}: {why}"])


def _place(error: BaseException) -> str:
    """Where in the user's file it happened."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or frames[-1].filename == __file__:
        return ""
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
