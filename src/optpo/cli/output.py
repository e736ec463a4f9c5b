"""Results on standard output, whose reader may leave or whose disk may be full."""

import os
import sys


class OutputClosedError(Exception):
    """Whoever read standard output has gone, as `head` does: there is nobody left to tell."""


def show(text: str, end: str = "\n") -> None:
    """Print at once, so that a full disk is noticed here and not at exit.

    Raises:
        OutputClosedError: nobody reads any more.
        OSError: it cannot be written.
    """
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        # Python flushes what is left once more at exit, and must not fail then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise OutputClosedError from None
        error.filename = "standard output"
        raise


def show_aside(text: str) -> None:
    """Print what is no result, on standard error."""
    print(text, file=sys.stderr, flush=True)
