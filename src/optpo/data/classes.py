"""The answer classes of one question: which answers are votes for the same thing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optpo.data.answers import AnswerSettings
from optpo.data.mathematics import MathVerifier
from optpo.errors import DataError
from optpo.voting.tally import UNPARSED


class AnswerClasses:
    """Numbers the distinct answers to one question 0, 1, 2, ... in the order they appear.

    An answer belongs to the class of its canonical key. With compare="math" and a verifier, an
    answer with a new key is first compared with the earliest answer of every class, in class order,
    and joins the first that is equal. Equality of mathematics is not transitive, so this fixed
    order is what makes the classes a function of the answers in index order. A comparison that
    fails or takes too long counts as different.

    Args:
        settings: how answers are compared.
        verifier: needed for more than keys with compare="math"; unused otherwise.

    Attributes:
        labels: the earliest answer of each class, as it was written; the index is the class number.
    """

    def __init__(self, settings: AnswerSettings, verifier: MathVerifier | None = None) -> None:
        self.settings = settings
        self.verifier = verifier if settings.compare == "math" else None
        self.labels: list[str] = []
        self._class_of_key: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What goes to another process: all but the verifier, whose processes are this one's."""
        return {**self.__dict__, "verifier": None}

    def classify(self, answer: str | None) -> int:
        """Return the class of an answer, a new one if need be; `UNPARSED` for None or blanks."""
        if answer is None or not answer.strip():
            return UNPARSED
        key = self.settings.canonical_key(answer)
        if key not in self._class_of_key:
            self._class_of_key[key] = self._equal_class(answer)
        return self._class_of_key[key]

    def merge(self, kept: int, gone: int) -> None:
        """Let answers of class `gone` count as class `kept`; no other class changes its number.

        Give the tally the same: `tally.merge(kept, gone)`.

        Raises:
            DataError: the two are the same, or one of them is no class.
        """
        if kept == gone or not {kept, gone} <= set(self._class_of_key.values()):
            raise DataError(f"cannot merge class {gone} into {kept}: name two classes in use")
        for key, number in self._class_of_key.items():
            if number == gone:
                self._class_of_key[key] = kept

    def to_json(self) -> dict[str, Any]:
        """Return the classes as a value that `json` can write, without settings and verifier."""
        return {"labels": list(self.labels), "keys": dict(self._class_of_key)}

    @classmethod
    def from_json(
        cls, value: Mapping[str, Any], settings: AnswerSettings, verifier: MathVerifier | None
    ) -> AnswerClasses:
        """Read what `to_json` returned.

        Raises:
            DataError: it is something else.
        """
        classes = cls(settings, verifier)
        try:
            classes.labels = [str(label) for label in value["labels"]]
            classes._class_of_key = {str(key): int(value["keys"][key]) for key in value["keys"]}
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not the classes of a question: {value!r}") from error
        if not set(classes._class_of_key.values()) <= set(range(len(classes.labels))):
            raise DataError(f"a class without a label: {value!r}")
        return classes

    def _equal_class(self, answer: str) -> int:
        if self.verifier is not None:
            for number in sorted(set(self._class_of_key.values())):
                if self.verifier.equal(self.labels[number], answer):
                    return number
        self.labels.append(answer.strip())
        return len(self.labels) - 1


def same_answer(
    answer: str | None,
    gold: str,
    settings: AnswerSettings,
    verifier: MathVerifier | None = None,
) -> bool:
    """Say whether an answer is the known one, by the same comparison as votes; None never is."""
    classes = AnswerClasses(settings, verifier)
    known = classes.classify(gold)
    return known != UNPARSED and classes.classify(answer) == known
