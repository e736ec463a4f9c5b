"""The name a person probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(given: object, names: Iterable[object]) -> str:
    """Return "; did you mean X?" for the name nearest to the one given, "" where none is near."""
    by_text = {str(name).casefold(): str(name) for name in names}
    near = get_close_matches(str(given).casefold(), by_text, n=1, cutoff=0.6)
    return f"; did you mean {by_text[near[0]]}?" if near else ""


def did_you_mean_among(given: str, names: Iterable[str]) -> str:
    """Return the same, but names that begin with the one given, or hold it between dashes, go first.

    So a method that several names speak of is answered by all of them, up to four.
    """
    names, part = list(names), given.casefold().replace("_", "-")
    begun = [name for name in names if part and name.startswith(part)]
    within = [name for name in names if f"-{part}-" in f"-{name}-" and name not in begun]
    meant = begun + within
    if not 1 <= len(meant) <= 4:
        return did_you_mean(given, names)
    last = meant.pop()
    return f"; did you mean {', '.join(meant)}{' or ' if meant else ''}{last}?"
