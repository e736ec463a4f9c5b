"""Which questions a step asks: parts of the stage prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from optpo.errors import SettingsError
from optpo.needs import Need
from optpo.selection.prioritized_draw import draw_questions
from optpo.training.prompt_state import PromptStore, questions_of_step, rank


class Prompts(Protocol):
    """Chooses the questions of a step, and how often it may choose more for the same step."""

    @property
    def needs(self) -> frozenset[Need]:
        """What it reads of the questions' notes, which a memory part then keeps."""
        ...

    @property
    def questions_per_step(self) -> int:
        """How many a step; 0: all."""
        ...

    @property
    def most_refills(self) -> int:
        """How often more are chosen where too few questions have rewards that differ."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Texts that a question's rollouts are asked with in turn, behind its own; none: as it is."""
        ...

    def choose(self, names: Sequence[str], store: PromptStore, seed: int, step: int) -> list[str]:
        """Of these questions those of step `step` (from 1).

        A pure function of its arguments, so that a resumed run asks the same.
        """
        ...


@dataclass(frozen=True)
class UniformPrompts:
    """Every question once an epoch, in an order drawn anew each epoch; 0 a step means all.

    With `budgets` the rollout of index i is asked with the budget of number i modulo how many there
    are, announced behind the question by `sentence`, in which {budget} stands for it (HBPO,
    2507.15844).
    """

    questions_per_step: int = 0
    budgets: tuple[int, ...] = ()
    sentence: str = "\nAnswer within {budget} tokens."

    needs: ClassVar[frozenset[Need]] = frozenset()
    most_refills: ClassVar[int] = 0

    def __post_init__(self) -> None:
        problems = _problems(self.questions_per_step)
        if any(budget < 1 for budget in self.budgets):
            problems.append(f"budgets is {list(self.budgets)}; each must be 1 or more")
        if self.sentence and "{budget}" not in self.sentence:
            problems.append(
                f"sentence is {self.sentence!r}; it must contain {{budget}} or be empty"
            )
        if problems:
            raise SettingsError(problems)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The sentence with each budget."""
        return tuple(self.sentence.replace("{budget}", str(budget)) for budget in self.budgets)

    def choose(self, names: Sequence[str], store: PromptStore, seed: int, step: int) -> list[str]:
        """The next of the epoch."""
        return questions_of_step(names, self.questions_per_step, seed, step)


@dataclass(frozen=True)
class DynamicPrompts:
    """Questions are asked until so many of a step have rewards that differ (DAPO, 2503.14476).

    Those asked least often come first. Where fewer than `questions_per_step` of the questions asked
    have something to teach, as many more are asked, at most `most_refills` times. Unlike DAPO, which
    trains on exactly so many, a step trains on all that it has paid for.
    """

    questions_per_step: int = 16
    most_refills: int = 10

    needs: ClassVar[frozenset[Need]] = frozenset()
    suffixes: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        problems = []
        if self.questions_per_step < 1:
            problems.append(
                f"questions_per_step is {self.questions_per_step}; it must be 1 or more"
            )
        if self.most_refills < 0:
            problems.append(f"most_refills is {self.most_refills}; it must be 0 or more")
        if problems:
            raise SettingsError(problems)

    def choose(self, names: Sequence[str], store: PromptStore, seed: int, step: int) -> list[str]:
        """Those asked least often so far."""
        order = sorted(
            names, key=lambda name: (visits := store[name].visits, rank(seed, visits, name))
        )
        return order[: self.questions_per_step]


@dataclass(frozen=True)
class PrioritizedPrompts:
    """Questions whose outcome is most uncertain are drawn most often (SPO, 2509.13232, item 8).

    The chance of a question is proportional to sqrt(v (1 - v)) + `explore`, v the place of its
    tracked value between the least and the greatest reward of all questions so far, those of 0 and 1
    where none lies outside. They are drawn without replacement; 0 a step means all.
    """

    questions_per_step: int = 0
    explore: float = 0.05

    needs: ClassVar[frozenset[Need]] = frozenset({"tracked"})
    most_refills: ClassVar[int] = 0
    suffixes: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        problems = _problems(self.questions_per_step)
        if self.explore <= 0:
            problems.append(f"explore is {self.explore}; it must be above 0")
        if problems:
            raise SettingsError(problems)

    def choose(self, names: Sequence[str], store: PromptStore, seed: int, step: int) -> list[str]:
        """A weighted draw."""
        notes = [store[name].notes for name in names]
        chosen = draw_questions(
            names,
            [of.get("value") for of in notes],
            self.questions_per_step or len(names),
            seed=seed,
            step=step,
            explore=self.explore,
            least=min((of.get("least", 0.0) for of in notes), default=0.0),
            greatest=max((of.get("greatest", 1.0) for of in notes), default=1.0),
        )
        return [names[place] for place in chosen]


def _problems(questions_per_step: int) -> list[str]:
    if questions_per_step >= 0:
        return []
    return [f"questions_per_step is {questions_per_step}; it must be 0 (all) or more"]
