"""The levels a stopping rule can be set to, from hasty to patient."""

from dataclasses import fields, replace
from typing import Any

from optpo.voting.rule import StoppingRule

_ERRORS = (0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)

LEVELS: dict[str, tuple[float, ...]] = {
    "error": _ERRORS,
    "confidence": tuple(round(1 - error, 3) for error in _ERRORS),
    "by": tuple(range(1, 11)),
    "window": tuple(range(2, 11)),
    "votes": (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128),
}
"""The setting that says how sure a rule wants to be, and values of it."""


def level_setting(rule: StoppingRule) -> str | None:
    """The name of the setting that is the rule's level, None where it has none.

    >>> from optpo.voting import BetaRule
    >>> level_setting(BetaRule())
    'confidence'
    """
    settings: Any = rule
    return next((field.name for field in fields(settings) if field.name in LEVELS), None)


def at_every_level(rule: StoppingRule) -> list[StoppingRule]:
    """The rule at each of its levels, from hasty to patient; itself alone where it has none."""
    name = level_setting(rule)
    settings: Any = rule
    return [rule] if name is None else [replace(settings, **{name: at}) for at in LEVELS[name]]
