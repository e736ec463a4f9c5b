"""The command line as a process of its own, with or without torch."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import optpo.errors

_SOURCE = Path(optpo.errors.__file__).parents[1]
_CALL = """
import sys
from importlib.machinery import PathFinder

class Without:
    find_distributions = PathFinder.find_distributions
    invalidate_caches = PathFinder.invalidate_caches

    def find_spec(name, path=None, target=None):
        return None if name in {missing!r} else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
from optpo.cli.main import main
code = main(sys.argv[1:])
print("loaded:", *sorted({{name.partition(".")[0] for name in sys.modules}}), file=sys.stderr)
sys.exit(code)
"""

Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def optpo_process(tmp_path: Path) -> Call:
    """Runs `optpo ARGUMENTS` in an empty folder; the last line of stderr lists what was loaded."""

    def call(*arguments: str, missing: tuple[str, ...] = (), stdout: object = subprocess.PIPE):
        path = os.pathsep.join(filter(None, [str(_SOURCE), os.environ.get("PYTHONPATH")]))
        return subprocess.run(
            [sys.executable, "-c", _CALL.format(missing=missing), *arguments],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": path,
                "OMP_NUM_THREADS": "1",
                "COLUMNS": "100",
                # Output is buffered for most people, and fails at another moment then.
                "PYTHONUNBUFFERED": "",
            },
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )

    return call
