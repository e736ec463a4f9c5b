"""The name a person probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(given: object, names: Iterable[object]) -> str:
    """Return "; did you mean X?" for the name nearest to the one given, "" where none is near."""
    by_text = {str(name).casefold(): str(name) for name in names}
    near = get_close_matches(str(given).casefold(), by_text, n=1, cutoff=0.6)
    return f"; did you mean {by_text[near[0]]}?" if near else ""
