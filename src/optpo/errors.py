"""The errors a person meets: each says what was wrong, where, and what would be right."""

from collections.abc import Sequence


class OptpoError(Exception):
    """Root of all errors that optpo raises on purpose; the command line returns `exit_code`."""

    exit_code = 1


class SettingsError(OptpoError, ValueError):
    """Settings that are unknown or out of range; `problems` holds every one found."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(list(problems))
        self.problems = list(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class DataError(OptpoError, ValueError):
    """Questions, votes or rollouts that cannot be read."""

    exit_code = 2


class ModelError(OptpoError, ValueError):
    """A model that cannot be loaded, or that the questions do not fit."""

    exit_code = 2


class RunDirectoryError(OptpoError, RuntimeError):
    """A run directory that is missing, damaged, of another run, or in use."""

    exit_code = 2


class EngineError(OptpoError, RuntimeError):
    """An engine that failed to sample."""


class RewardError(OptpoError, RuntimeError):
    """A reward function that raised, or rewards that are none, or none that a part can work with."""


class RunStoppedError(OptpoError):
    """A run that was asked to stop, and did so after saving its step; `optpo resume` goes on."""

    exit_code = 130


class StorageError(OptpoError, RuntimeError):
    """A run's files that cannot be written: a full disk, most often."""
