"""The stopping rules by name, and a rule as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pkgutil import resolve_name
from typing import Any

from optpo.errors import DataError
from optpo.stopping_rules import RULES
from optpo.voting.rule import StoppingRule


def rule_to_json(rule: StoppingRule) -> dict[str, Any]:
    """A shipped rule as a value that `json` can write: its name as `rule`, and its settings.

    Raises:
        DataError: it is none of the shipped rules.

    >>> from optpo.voting import FixedRule
    >>> rule_to_json(FixedRule(votes=8))
    {'rule': 'fixed', 'votes': 8, 'at_cap': 'leader'}
    """
    kind = type(rule)
    for name, place in RULES.items():
        if place == f"{kind.__module__}:{kind.__qualname__}":
            return {"rule": name, **asdict(rule)}  # type: ignore[call-overload]
    raise DataError(f"{kind.__qualname__} is none of the rules {', '.join(RULES)}")


def rule_from_json(value: Mapping[str, Any]) -> StoppingRule:
    """Read what `rule_to_json` returned; settings left out have their defaults.

    Raises:
        DataError: the rule or a setting is unknown, missing or of another type.
        SettingsError: a setting is out of range.
    """
    settings = dict(value)
    name = settings.pop("rule", None)
    if not isinstance(name, str) or name not in RULES:
        raise DataError(f"rule is {name!r}; it must be one of {', '.join(RULES)}")
    kind = resolve_name(RULES[name])
    known = [field.name for field in fields(kind)]
    if unknown := [key for key in settings if key not in known]:
        raise DataError(f"rule {name} has no {', '.join(unknown)}; it has {', '.join(known)}")
    try:
        rule: StoppingRule = kind(**settings)
    except TypeError as error:
        raise DataError(f"rule {name} cannot have the settings {settings}: {error}") from error
    return rule
