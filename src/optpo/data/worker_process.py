"""The process behind a `Worker`: reads questions as JSON lines, answers each in a JSON line.

Run as a script that is given the file with the function `answer` (and `load`, called once), so that
it imports what that file imports and nothing of optpo.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from runpy import run_path
from typing import Any, TextIO

# 10^{10^{10}} needs 4 GB if it is given the time; what runs here needs a tenth of this.
_BYTES = 4 << 30


def serve(answer: Callable[..., Any], questions: TextIO, answers: TextIO) -> None:
    """Answer until the questions end; one beyond its processor time ends the process.

    A line holds that time and the question; what raises is answered by null.
    """
    for line in questions:
        seconds, question = json.loads(line)
        if hasattr(signal, "setitimer"):
            # Nothing handles this signal, so it kills the process even inside one long operation.
            signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            result = json.dumps(answer(*question))
        except Exception:
            result = "null"
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, 0)
        print(result, file=answers, flush=True)


def main() -> None:
    """Take over standard output for answers, so that nothing else can print into it."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # An interrupt at the terminal reaches the whole group; the parent decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
    except (ImportError, ValueError, OSError):
        pass  # a system without such limits has the one on time
    try:
        job = run_path(sys.argv[1])
        job["load"]()
    except ImportError as error:
        print(json.dumps(str(error)), file=answers, flush=True)
        return
    print(json.dumps("ready"), file=answers, flush=True)
    serve(job["answer"], sys.stdin, answers)


if __name__ == "__main__":
    main()
