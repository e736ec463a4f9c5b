"""What a verifier gives a rollout: by its question's known answer, a task's scorer, or a function."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

from optpo.data.answers import AnswerSettings
from optpo.data.classes import same_answer
from optpo.data.mathematics import MathVerifier
from optpo.data.questions import Question
from optpo.data.reasoning_tasks import METADATA, TASK, reasoning_points
from optpo.data.reward_function import FUNCTION, RewardFunction
from optpo.errors import DataError, SettingsError
from optpo.rollout import Rollout

_BY = ("auto", "gold", "reasoning-gym")


@dataclass(frozen=True)
class ScoreSettings:
    """What scores rollouts, where a part asks for scores, and which score is a right answer's.

    Args:
        by: "gold" gives 1 to an answer that equals the question's known one (as data.answers
            compares) and 0 to others; "reasoning-gym" gives what the question's own task there
            gives; "auto" takes the latter for questions of such tasks and gold for the others;
            "module:function" is a function of your own.
        full: a rollout is right, in accuracies, if its score is at least this.
        partial_credit: let reasoning-gym's scores below 1 count. They are 0 without, because some
            tasks give points to any nonsense.
        folder: where a function's module is looked for before what is installed; none: the folder
            that the run is begun in.

    Raises:
        SettingsError: `by` is none of these, or `full` no finite number.
    """

    by: str = "auto"
    full: float = 1.0
    partial_credit: bool = False
    folder: str | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.by not in _BY and not FUNCTION.fullmatch(self.by):
            problems.append(
                f"by is {self.by!r}; it must be one of {', '.join(_BY)}, or a function of yours "
                "as module:function"
            )
        if not isfinite(self.full):
            problems.append(f"full is {self.full}; it must be a finite number")
        if problems:
            raise SettingsError(problems)


class Scorer(Protocol):
    """Gives rollouts of known questions their scores."""

    @property
    def full(self) -> float:
        """The score from which on a rollout is right."""
        ...

    def judges(self, question: Question) -> bool:
        """Whether rollouts of this question can have a score."""
        ...

    def score(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        """A score a rollout, in order; None for one that has none."""
        ...


def open_scorer(
    settings: ScoreSettings,
    questions: Mapping[str, Question],
    answers: AnswerSettings,
    verifier: MathVerifier | None,
) -> Scorer:
    """The scorer that the settings ask for.

    Args:
        settings: which.
        questions: by id, those that rollouts are of.
        answers: how answers are compared with gold.
        verifier: compares mathematics, where `answers` asks for that.

    Raises:
        SettingsError: there is no such function, or it asks for what is not there.
    """
    if settings.by in _BY:
        return _AnswerScorer(settings, questions, answers, verifier)
    return RewardFunction(settings.by, settings.full, questions, settings.folder)


def require_judged(scorer: Scorer, questions: Iterable[Question], source: str) -> None:
    """Make sure that the scorer can judge rollouts of some question.

    Raises:
        DataError: it can of none; says what would be right.
    """
    if not any(scorer.judges(question) for question in questions):
        raise DataError(
            f"no question of {source} has a known answer (gold) or a task that scores it; a function "
            "of yours may: --reward MODULE:FUNCTION"
        )


class _AnswerScorer:
    """Scores the answer found in a rollout, by gold or by the task it belongs to."""

    def __init__(
        self,
        settings: ScoreSettings,
        questions: Mapping[str, Question],
        answers: AnswerSettings,
        verifier: MathVerifier | None,
    ) -> None:
        self.settings, self.questions = settings, questions
        self.answers, self.verifier = answers, verifier
        self._known: dict[tuple[str, str | None], float | None] = {}

    @property
    def full(self) -> float:
        return self.settings.full

    def judges(self, question: Question) -> bool:
        return self._is_of_a_task(question) or self._has_gold(question)

    def score(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        return [self._scored(rollout.prompt_id, rollout.answer) for rollout in rollouts]

    def _is_of_a_task(self, question: Question) -> bool:
        return self.settings.by != "gold" and TASK in question.columns

    def _has_gold(self, question: Question) -> bool:
        return self.settings.by != "reasoning-gym" and question.gold is not None

    def _scored(self, name: str, answer: str | None) -> float | None:
        if (name, answer) not in self._known:
            self._known[name, answer] = self._score(self.questions[name], answer)
        return self._known[name, answer]

    def _score(self, question: Question, answer: str | None) -> float | None:
        if self._is_of_a_task(question):
            task, metadata = question.columns[TASK], question.columns.get(METADATA, {})
            points = reasoning_points(task, str(question.prompt), question.gold, metadata, answer)
            return points if self.settings.partial_credit or points >= 1 else 0.0
        if not self._has_gold(question):
            return None
        assert question.gold is not None
        return float(same_answer(answer, question.gold, self.answers, self.verifier))
