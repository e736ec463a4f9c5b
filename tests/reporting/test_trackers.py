"""Trackers: what they are sent, and what is said when one cannot be had."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from optpo.errors import SettingsError
from optpo.reporting.trackers import open_trackers


def test_tensorboard_reads_back_what_was_logged(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tracker,) = open_trackers(["tensorboard"], tmp_path, {"seed": 3, "allocate": {"cap": 64}})
    for step in (1, 2):
        tracker.log({"accuracy": 0.25 * step, "entropy": 1.0}, step)
    tracker.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"accuracy", "entropy"}
    assert [(e.step, e.value) for e in events.Scalars("accuracy")] == [(1, 0.25), (2, 0.5)]
    (config,) = events.Tensors("config")
    assert b'"cap": 64' in config.tensor_proto.string_val[0]


def test_tensorboard_needs_neither_torch_nor_tensorflow(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    program = (
        "import sys; from pathlib import Path\n"
        "from optpo.reporting.trackers import open_trackers\n"
        f"tracker, = open_trackers(['tensorboard'], Path({str(tmp_path)!r}), {{}})\n"
        "tracker.log({'a': 1.0}, 1); tracker.close()\n"
        "sys.exit('torch' in sys.modules or 'tensorflow' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


class Recorder(ModuleType):
    """Stands in for a tracker's package and keeps the calls."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []

    def init(self, **settings: Any) -> "Recorder":
        self.calls.append(("init", settings))
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append(("log", (values, step)))

    def finish(self) -> None:
        self.calls.append(("finish", None))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_other_trackers_are_called_as_they_ask(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Recorder(name)
    monkeypatch.setitem(sys.modules, name, package)
    (tracker,) = open_trackers([name], tmp_path / "first", {"seed": 3})
    tracker.log({"accuracy": 0.5}, 4)
    tracker.close()
    (_, settings), *rest = package.calls
    assert settings["project"] == "optpo"
    assert settings["name"] == "first"
    assert settings["config"] == {"seed": 3}
    assert rest == [("log", ({"accuracy": 0.5}, 4)), ("finish", None)]


def test_every_problem_is_told_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SettingsError) as caught:
        open_trackers(["tensorboard", "wandb", "tensorbord"], tmp_path, {})
    missing, unknown = caught.value.problems
    assert "pip install 'optpo[wandb]'" in missing
    assert "did you mean 'tensorboard'?" in unknown
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_fails_to_open_closes_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Recorder("trackio"), Recorder("wandb")

    def refuse(**_: Any) -> Recorder:
        raise OSError("no key")

    second.init = refuse  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "trackio", first)
    monkeypatch.setitem(sys.modules, "wandb", second)
    with pytest.raises(OSError, match="no key"):
        open_trackers(["trackio", "wandb"], tmp_path, {})
    assert first.calls[-1] == ("finish", None)


def test_the_room_imports_nothing_heavy() -> None:
    program = (
        "import sys, optpo.reporting\n"
        "heavy = {'torch', 'matplotlib', 'jinja2', 'rich', 'tensorboard', 'scipy', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
