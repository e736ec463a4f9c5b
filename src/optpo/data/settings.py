"""Which questions, and how they are asked and their answers read."""

from dataclasses import dataclass, field

from optpo.data.answers import AnswerSettings
from optpo.errors import SettingsError


@dataclass(frozen=True)
class DataSettings:
    """Which questions to adapt to, which unseen ones to watch, and how answers are read.

    `questions` and `unseen` are files of JSON Lines or Parquet, datasets as hub/name:split, tasks of
    reasoning-gym as reasoning-gym:TASK:SIZE:SEED, or the embedded sets "adapt" and "unseen".
    `template` is put around every plain prompt; `{prompt}` stands for it.
    """

    questions: str = "adapt"
    unseen: str | None = "unseen"
    limit: int | None = None
    template: str = "{prompt}"
    answers: AnswerSettings = field(default_factory=AnswerSettings)

    def __post_init__(self) -> None:
        problems = []
        if self.limit is not None and self.limit < 1:
            problems.append(f"limit is {self.limit}; it must be 1 or more, or null for all")
        if "{prompt}" not in self.template:
            problems.append(f"template is {self.template!r}; it must contain {{prompt}}")
        if problems:
            raise SettingsError(problems)
