"""What a run shows and where its metrics go; implemented in `reporting`, or by the user."""

from collections.abc import Mapping
from typing import Any, Protocol


class RunView(Protocol):
    """A person's view of a run in progress."""

    def start(self, config_summary: Mapping[str, Any]) -> None:
        """The run begins."""
        ...

    def progress(self, stage: str, done: int, total: int, detail: str) -> None:
        """`done` of `total` questions of a stage have a verdict; `detail` names what is counted."""
        ...

    def evaluation(self, row: Mapping[str, Any]) -> None:
        """A row of evaluations.jsonl."""
        ...

    def step(self, row: Mapping[str, Any]) -> None:
        """A row of metrics.jsonl."""
        ...

    def guard(self, message: str) -> None:
        """A guard acted, or the run was asked to stop."""
        ...


class Tracker(Protocol):
    """Somewhere metrics are sent to."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """One step's numbers."""
        ...

    def close(self) -> None:
        """The run has ended."""
        ...
