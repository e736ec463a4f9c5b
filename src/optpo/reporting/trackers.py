"""Sends a run's numbers to a tracker as well: TensorBoard, Weights & Biases or Trackio."""

import difflib
import importlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from optpo.errors import SettingsError
from optpo.training.view import Tracker

_PROJECT = "optpo"


def open_trackers(
    names: Sequence[str], run_directory: Path, config: Mapping[str, Any]
) -> list[Tracker]:
    """Open the named trackers: `tensorboard`, `wandb`, `trackio`.

    Raises SettingsError, before anything is opened, with one problem for each name that is unknown
    or whose package is not installed.
    """
    modules: dict[str, ModuleType] = {}
    problems: list[str] = []
    for name in dict.fromkeys(names):
        try:
            modules[name] = _load(name)
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(problems)
    opened: list[Tracker] = []
    try:
        for name, module in modules.items():
            opened.append(_TRACKERS[name](module, run_directory, config))
    except BaseException:
        for tracker in opened:
            tracker.close()
        raise
    return opened


class _TensorBoard:
    """Event files in `tensorboard/` of the run directory, written without torch or TensorFlow."""

    def __init__(self, _: ModuleType, run_directory: Path, config: Mapping[str, Any]) -> None:
        files = importlib.import_module("tensorboard.summary.writer.event_file_writer")
        self._events = importlib.import_module("tensorboard.compat.proto.event_pb2")
        self._summaries = importlib.import_module("tensorboard.compat.proto.summary_pb2")
        self._writer = files.EventFileWriter(str(run_directory / "tensorboard"))
        self._write_config(config)

    def log(self, values: Mapping[str, float], step: int) -> None:
        value = self._summaries.Summary.Value
        self._add([value(tag=tag, simple_value=number) for tag, number in values.items()], step)

    def close(self) -> None:
        self._writer.close()

    def _add(self, values: list[Any], step: int) -> None:
        summary = self._summaries.Summary(value=values)
        self._writer.add_event(
            self._events.Event(wall_time=time.time(), step=step, summary=summary)
        )

    def _write_config(self, config: Mapping[str, Any]) -> None:
        tensors = importlib.import_module("tensorboard.compat.proto.tensor_pb2")
        types = importlib.import_module("tensorboard.compat.proto.types_pb2")
        # Four spaces before each line: the text page reads Markdown, and this is a code block.
        text = json.dumps(config, indent=2, default=str, ensure_ascii=False)
        block = "\n".join("    " + line for line in text.splitlines())
        tensor = tensors.TensorProto(dtype=types.DT_STRING, string_val=[block.encode()])
        metadata = self._summaries.SummaryMetadata(
            plugin_data=self._summaries.SummaryMetadata.PluginData(plugin_name="text")
        )
        self._add(
            [self._summaries.Summary.Value(tag="config", tensor=tensor, metadata=metadata)], 0
        )


class _WeightsAndBiases:
    """One run of the project `optpo`; the tool's own settings (WANDB_MODE ...) hold."""

    def __init__(self, wandb: ModuleType, run_directory: Path, config: Mapping[str, Any]) -> None:
        run_directory.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=_PROJECT, name=run_directory.name, dir=str(run_directory), config=dict(config)
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    """One run of the local Trackio project `optpo`."""

    def __init__(self, trackio: ModuleType, run_directory: Path, config: Mapping[str, Any]) -> None:
        self._trackio = trackio
        trackio.init(project=_PROJECT, name=run_directory.name, config=dict(config))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        self._trackio.finish()


_TRACKERS: dict[str, Callable[[ModuleType, Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
    "trackio": _Trackio,
}


def _load(name: str) -> ModuleType:
    if name not in _TRACKERS:
        near = difflib.get_close_matches(name, _TRACKERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SettingsError([f"unknown tracker {name!r}{hint} (there are: {', '.join(_TRACKERS)})"])
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SettingsError(
            [f"tracker {name!r} needs a package that is missing: pip install 'optpo[{name}]'"]
        ) from error
