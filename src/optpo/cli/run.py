"""What the verbs that make a run share: their flags, its folder, its report."""

import json
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import UseAppendAction, arg

from optpo.cli.flags import AsSettingsSay, SettingsFlags
from optpo.cli.output import show
from optpo.errors import DataError, EngineError, ModelError, RewardError, SettingsError

if TYPE_CHECKING:
    from optpo.training.run_directory import RunDirectory
    from optpo.training.settings import RunSettings


@dataclass(frozen=True)
class RunFlags(SettingsFlags):
    """The flags of a run."""

    unseen: Annotated[
        str | None,
        arg(metavar="FILE|none", help_behavior_hint="(default: embedded ones, else none)"),
    ] = None
    """Questions that are only watched, to see what carries over."""
    out: Annotated[
        Path | None, arg(metavar="DIR", help_behavior_hint="(default: runs/RECIPE-DATE-TIME)")
    ] = None
    """The run's folder: new or empty."""
    steps: Annotated[int | None, AsSettingsSay, arg(metavar="N")] = None
    """Training steps."""
    audit: Annotated[float | None, AsSettingsSay, arg(metavar="SHARE")] = None
    """Share of questions whose vote is taken on to the cap, to check the verdict."""
    tracker: Annotated[
        tuple[tuple[str, ...], ...],
        UseAppendAction,
        arg(metavar="NAME ...", help_behavior_hint="(repeatable)"),
    ] = ()
    """Also send metrics to tensorboard, wandb or trackio."""
    json: bool = False
    """Print the summary as JSON."""

    def run_settings(self, flags: Mapping[str, object] | None = None) -> "RunSettings":
        """Add everything up; `flags` are further settings by dotted key.

        Raises:
            MissingExtraError: torch or transformers is missing.
            SettingsError: everything that is wrong in the settings.
        """
        given: dict[str, object] = {"steps": self.steps, "audit": self.audit}
        given = {name: value for name, value in given.items() if value is not None}
        if self.unseen is not None:
            given["data.unseen"] = None if self.unseen.lower() == "none" else self.unseen
        if names := [name for names in self.tracker for name in names]:
            given["trackers"] = names
        return self.settings({**given, **(flags or {})})


def begin(settings: "RunSettings", out: Path | None, *, as_json: bool) -> None:
    """Run in a run directory of its own, which is removed where nothing could be begun."""
    from optpo.recipes.load import settings_to_mapping
    from optpo.training.distributed import join_processes
    from optpo.training.run_directory import RunDirectory

    processes = join_processes(settings.model.device)
    # One process makes a folder, and the others are told.
    own = out or (_new_directory(settings.recipe) if processes.first else Path())
    path = processes.same(own)
    directory = (
        RunDirectory.create(path, settings_to_mapping(settings))
        if processes.first
        else RunDirectory(path)
    )
    try:
        run(settings, directory, as_json=as_json)
    except (DataError, EngineError, ModelError, SettingsError):
        # The inputs were wrong and nothing was done: leave no run behind that never began.
        if directory.writes:
            _remove_unbegun(directory.path)
        raise


def run(settings: "RunSettings", directory: "RunDirectory", *, as_json: bool) -> None:
    """Run, or go on with, what is in the directory; write the report and print the summary.

    Where the directory is only looked on at, by a process beside the first, nothing is shown.
    """
    from optpo.recipes.load import settings_to_mapping
    from optpo.reporting.html import write_report
    from optpo.reporting.terminal import open_view, summary_lines
    from optpo.reporting.trackers import open_trackers
    from optpo.training.loop import adapt

    report = directory.path / "report.html"
    try:
        with ExitStack() as stack:
            stack.callback(directory.close)
            shown = sys.stderr
            if not directory.writes:
                shown = stack.enter_context(Path(os.devnull).open("w"))
            view = stack.enter_context(open_view(shown))
            config = settings_to_mapping(settings)
            trackers = settings.trackers if directory.writes else ()
            summary = adapt(
                settings,
                directory,
                view,
                lambda: open_trackers(trackers, directory.path, config),
            )
            if not directory.writes:
                return
            write_report([directory.path], report)
    except RewardError as error:
        raise RewardError(
            f"{error}. What was saved is intact: when the reward function is mended, go on by "
            f"`optpo resume {directory.path}`; with other settings, begin a new run"
        ) from error
    except OSError as error:
        error.filename = error.filename or str(directory.path)
        raise
    if as_json:
        show(json.dumps({"directory": str(directory.path), **summary}, indent=2))
        return
    kind = "trained" if settings.learns_from_gold else "adapted"
    lines = [
        *summary_lines(summary),
        f"{f'{kind} model:':<30}{directory.path / 'final'}",
        f"{'report:':<30}{report}",
    ]
    show("\n".join(lines))


def _new_directory(recipe: str) -> Path:
    """Make a folder named for recipe and time, and for a number if others began in that second."""
    name, number = f"{Path(recipe).stem}-{datetime.now():%Y%m%d-%H%M%S}", 1
    path = Path("runs", name)
    path.parent.mkdir(exist_ok=True)
    while True:
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            path = path.with_name(f"{name}-{number}")
        else:
            return path


def _remove_unbegun(path: Path) -> None:
    from optpo.training.run_directory import CONFIG, LOCK

    if {entry.name for entry in path.iterdir()} <= {CONFIG, LOCK}:
        for name in (CONFIG, LOCK):
            (path / name).unlink(missing_ok=True)
        path.rmdir()
