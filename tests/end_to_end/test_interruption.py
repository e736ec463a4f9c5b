"""Kill it, interrupt it, fill its disk: nothing that was saved is lost, and the end is the same."""

import random
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ENVIRONMENT, Command, command, figures, rows, small, weights


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("recipe", "overlap", "needed"), [("optpo", 0, 12), ("optpo-warm", 0, 3), ("optpo", 1, 3)]
)
def test_a_killed_run_ends_like_one_never_stopped(
    optpo: Command, tmp_path: Path, recipe: str, overlap: int, needed: int
) -> None:
    """SIGKILL at random moments, resume each time: same weights, figures and rows."""
    choice = ["--recipe", recipe, "--audit", "0.2"]
    settings = ["adapt", "--out", "whole", *choice, *small("steps=6", f"overlap={overlap}")]
    began = time.monotonic()
    assert optpo(*settings).returncode == 0
    length = time.monotonic() - began
    generator = random.Random(20)
    kills, finished = 0, 0
    arguments = [*settings[:2], "killed", *settings[3:]]
    while kills < needed:
        process = subprocess.Popen(
            command(*arguments), cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
        )
        try:
            process.wait(generator.uniform(0.2, 1.0) * length)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        else:
            # It came to its end: start afresh, so that every kill meets a run in progress.
            assert process.returncode == 0, process.stderr.read() if process.stderr else ""
            assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
            finished += 1
            # The machine may be faster now than when it was timed.
            length *= 0.7
            (tmp_path / "killed").rename(tmp_path / f"finished{finished}")
        begun = (tmp_path / "killed" / "config.yaml").exists()
        arguments = ["resume", "killed"] if begun else [*settings[:2], "killed", *settings[3:]]
    done = optpo(*arguments)
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")
    for name in ("verdicts.jsonl", "rollouts/step-00006.jsonl"):
        assert rows(tmp_path / "killed" / name) == rows(tmp_path / "whole" / name)
    assert [row["step"] for row in rows(tmp_path / "killed" / "metrics.jsonl")] == list(range(1, 7))


@pytest.mark.slow
def test_an_interrupt_finishes_the_step_and_says_how_to_go_on(
    optpo: Command, tmp_path: Path
) -> None:
    """Ctrl-C saves the step, names the command that goes on, and that ends like an unstopped run."""
    process = subprocess.Popen(
        command("adapt", "--out", "run", *small("steps=20")),
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "optpo resume run" in told
    saved = len(rows(tmp_path / "run" / "metrics.jsonl"))
    assert 1 <= saved < 20
    assert optpo("resume", "run").returncode == 0
    assert optpo("adapt", "--out", "whole", *small("steps=20")).returncode == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_a_full_disk_is_named_and_the_run_goes_on_later(optpo: Command, tmp_path: Path) -> None:
    """When a file can not be written whole the run ends with a message, and resumes once it can."""
    assert optpo("adapt", "--out", "whole", *small()).returncode == 0
    largest = max(file.stat().st_size for file in (tmp_path / "whole").rglob("*.safetensors"))

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 4096, largest - 4096))

    failed = optpo("adapt", "--out", "full", *small(), preexec_fn=limit_files)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert "full" in failed.stderr and "optpo resume" in failed.stderr
    assert optpo("resume", "full").returncode == 0
    assert weights(tmp_path / "full") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_a_directory_in_use_is_refused(optpo: Command, tmp_path: Path) -> None:
    """A second process may not touch a run in progress."""
    process = subprocess.Popen(
        command("adapt", "--out", "run", *small("steps=50")),
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (tmp_path / "run" / "config.yaml").exists():
            time.sleep(0.05)
            assert process.poll() is None
        refused = optpo("resume", "run")
    finally:
        process.kill()
        process.wait()
    assert refused.returncode == 2
    assert "in use" in refused.stderr
