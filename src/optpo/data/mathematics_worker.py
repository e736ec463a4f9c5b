"""The process behind `MathVerifier`: reads pairs of answers as JSON lines, says if they are equal.

Run as a script, so that it imports math-verify and nothing of optpo.
"""

import json
import os
import signal
import sys
from typing import Any, TextIO

# 10^{10^{10}} needs 4 GB if it is given the time; the whole library needs a tenth of this.
_BYTES = 4 << 30


def equal(a: str, b: str) -> bool | None:
    """Say whether two answers are the same mathematics, None where one cannot be read."""
    from math_verify import parse, verify

    # Its own time limits are off: they need the main thread and run twice.
    parsed: list[Any] = [
        parse(f"${answer.strip().strip('$')}$", parsing_timeout=None) for answer in (a, b)
    ]
    if not all(parsed):
        return None
    return bool(verify(parsed[0], parsed[1], timeout_seconds=None))


def serve(seconds: float, questions: TextIO, answers: TextIO) -> None:
    """Answer until the questions end; a question beyond its processor time ends the process."""
    for line in questions:
        if hasattr(signal, "setitimer"):
            # Nothing handles this signal, so it kills the process even inside one long operation.
            signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            result = equal(*json.loads(line))
        except Exception:
            result = None
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(result), file=answers, flush=True)


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
        equal("1", "1")
    except ImportError as error:
        print(json.dumps(str(error)), file=answers, flush=True)
        return
    print(json.dumps("ready"), file=answers, flush=True)
    serve(float(sys.argv[1]), sys.stdin, answers)


if __name__ == "__main__":
    main()
