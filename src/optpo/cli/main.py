"""`optpo VERB`: choose the verb, and turn errors into one clean message and an exit code."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Union

import tyro
from tyro.conf import subcommand

from optpo import __version__
from optpo.cli.adapt import Adapt
from optpo.cli.evaluate import Evaluate
from optpo.cli.output import OutputClosedError, show, show_aside
from optpo.cli.plan import Plan
from optpo.cli.recipes import Recipes
from optpo.cli.replay import Replay
from optpo.cli.report import Report
from optpo.cli.resume import Resume
from optpo.cli.train import Train
from optpo.cli.vote import Vote
from optpo.errors import OptpoError

_DESCRIPTION = """Policy optimization of language models: sample rollouts for questions without
answers, let their answers vote, stop each question as soon as the vote is sure, and train on the
rollouts kept; or train by a verifier. `optpo VERB --help` says more; `optpo --version` prints the
version."""

# The union must be made at run time, and of types that tyro can read its help from.
_VERBS = Union[  # noqa: UP007
    Annotated[Adapt, subcommand("adapt")],
    Annotated[Train, subcommand("train")],
    Annotated[Vote, subcommand("vote")],
    Annotated[Evaluate, subcommand("evaluate")],
    Annotated[Replay, subcommand("replay")],
    Annotated[Plan, subcommand("plan")],
    Annotated[Recipes, subcommand("recipes")],
    Annotated[Report, subcommand("report")],
    Annotated[Resume, subcommand("resume")],
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns its exit code.

    0: done. 1: the run failed. 2: the call or its inputs were wrong. 130: interrupted. Results go
    to standard output or a file, everything else to standard error.
    """
    # Threads that spin while they wait make two processes on a machine many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return _run(arguments)
    except OptpoError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except OutputClosedError:
        return 1
    except OSError as error:
        reason = error.strerror or str(error)
        return _fail(f"{error.filename}: {reason}" if error.filename else reason, 1)


def _run(arguments: Sequence[str]) -> int:
    if list(arguments) == ["--version"]:
        show(f"optpo {__version__}")
        return 0
    try:
        verb = tyro.cli(
            _VERBS,
            prog="optpo",
            description=" ".join(_DESCRIPTION.split()),
            args=arguments,
            config=(tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff),
        )
    except SystemExit as stop:  # help was shown (0), or the call is wrong and was explained (2)
        show("", end="")
        return stop.code if isinstance(stop.code, int) else 2
    verb.run()
    return 0


def _fail(message: str, code: int) -> int:
    show_aside(f"optpo: {message}")
    return code


if __name__ == "__main__":
    sys.exit(main())
