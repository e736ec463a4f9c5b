"""Results on standard output, whose reader may leave or whose disk may be full."""

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
    except BrokenPipeError:
        raise OutputClosedError from None
    except OSError as error:
        error.filename = "standard output"
        raise


def show_aside(text: str) -> None:
    """Print what is no result, on standard error."""
    print(text, file=sys.stderr, flush=True)
