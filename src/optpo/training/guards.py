"""Guards: signs of a run going wrong, and the update they hold back."""

from dataclasses import dataclass

from optpo.errors import SettingsError

FEWEST_FOR_SHARES = 8
"""Of fewer questions, one or two make a share that says nothing."""


@dataclass(frozen=True)
class GuardSettings:
    """A step that crosses one of these lines is not trained on, and the log says so.

    A run ends early when `patience` steps in a row were held back: the policy stands still, and
    sampling it further would change nothing.

    `entropy_floor` nats a token, estimated from the sampled log-probs: below it the policy has
    collapsed and only sharpens further. `max_flip_rate` share of labels that changed since the
    question's last visit: above it the labels follow the noise. `max_undecided` share of
    questions without a decided label. Both shares are looked at in steps of 8 questions or more.
    Non-finite losses are always skipped, whatever is set here.
    """

    entropy_floor: float = 0.005
    max_flip_rate: float = 0.5
    max_undecided: float = 0.9
    patience: int = 3

    def __post_init__(self) -> None:
        problems = []
        if self.entropy_floor < 0:
            problems.append(f"entropy_floor is {self.entropy_floor}; it must be 0 (off) or more")
        if self.patience < 1:
            problems.append(f"patience is {self.patience}; it must be 1 or more")
        shares = {"max_flip_rate": self.max_flip_rate, "max_undecided": self.max_undecided}
        problems += [
            f"{name} is {value}; it must lie between 0 and 1 (off)"
            for name, value in shares.items()
            if not 0 <= value <= 1
        ]
        if problems:
            raise SettingsError(problems)

    def alarms(
        self, questions: int, entropy: float, flip_rate: float | None, undecided_share: float
    ) -> list[str]:
        """What is wrong with a step of so many questions, in words; empty when it may be trained on."""
        alarms = []
        # Written so that an entropy that is no number raises the alarm too.
        if not entropy >= self.entropy_floor:
            alarms.append(
                f"entropy {entropy:.4f} nats a token is below entropy_floor {self.entropy_floor}"
            )
        if questions < FEWEST_FOR_SHARES:
            return alarms
        if flip_rate is not None and flip_rate > self.max_flip_rate:
            alarms.append(
                f"{flip_rate:.0%} of labels changed since the last visit, "
                f"above max_flip_rate {self.max_flip_rate}"
            )
        if undecided_share > self.max_undecided:
            alarms.append(
                f"{undecided_share:.0%} of questions are undecided, "
                f"above max_undecided {self.max_undecided}"
            )
        return alarms
