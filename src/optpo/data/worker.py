"""A process beside this one that may hang or grow without harm: JSON lines in, JSON lines out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optpo.errors import OptpoError

_PROCESS = Path(__file__).with_name("worker_process.py")
_SECONDS_TO_START = 120.0


class Worker:
    """Runs the function `answer` of a file in a process of its own; one question at a time.

    It is a plain subprocess: `multiprocessing` would run the caller's main script in it again.

    Args:
        job: the file, which imports nothing of optpo.
        loads: what the file needs, for the error where it does not load.
        environment: variables over this process's own.
    """

    def __init__(self, job: Path, loads: str, environment: Mapping[str, str] | None = None) -> None:
        self.job, self.loads = job, loads
        self.environment = dict(environment or {})
        self.process: subprocess.Popen[str] | None = None

    def ask(self, *question: Any, seconds: float, clock_seconds: float) -> Any:
        """Return the answer; None if it raised or took longer, by processor time or by the clock.

        Raises:
            OptpoError: the job does not load.
        """
        if self.process is None or self.process.poll() is not None:
            self._start()
        answer = self._exchange(json.dumps([seconds, question]), clock_seconds)
        if answer is None:
            self.kill()
            return None
        return json.loads(answer)

    def kill(self) -> None:
        """End the process; the next question starts another."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe:
                    pipe.close()
            self.process = None

    def _start(self) -> None:
        self.kill()
        # -P keeps the folder of the script off the path, where our modules would be top-level ones.
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(_PROCESS), str(self.job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                **self.environment,
            },
        )
        ready = self._exchange("", _SECONDS_TO_START)
        if ready is None or json.loads(ready) != "ready":
            self.kill()
            raise OptpoError(f"{self.loads} does not load in {sys.executable}: {ready}")

    def _exchange(self, line: str, seconds: float) -> str | None:
        """Send a line and return the answer, None if the process died or was killed for it."""
        assert self.process is not None and self.process.stdin and self.process.stdout
        timer = threading.Timer(seconds, self.process.kill)
        timer.daemon = True
        timer.start()
        try:
            if line:
                self.process.stdin.write(line + "\n")
                self.process.stdin.flush()
            return self.process.stdout.readline() or None
        except OSError:
            return None
        except BaseException:
            # Interrupted before its answer came: the next question must not read that one.
            self.kill()
            raise
        finally:
            timer.cancel()
