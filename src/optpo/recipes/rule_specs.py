"""A stopping rule as it is named on the command line: `beta:confidence=0.95`."""

from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

from optpo.errors import SettingsError
from optpo.recipes.nearest import did_you_mean
from optpo.recipes.reading import parse_yaml
from optpo.recipes.registry import part_class, parts
from optpo.stopping_rules import RULES
from optpo.voting.rule import StoppingRule
from optpo.voting.sweep import level_setting


def read_rules(specs: Sequence[str]) -> list[StoppingRule]:
    """The rules that these specifications name.

    Raises:
        SettingsError: everything that is wrong in any of them, together.
    """
    rules, problems = [], []
    for spec in specs:
        try:
            rules.append(read_rule(spec))
        except SettingsError as error:
            problems += error.problems
    if problems:
        raise SettingsError(problems)
    return rules


def read_rule(spec: str) -> StoppingRule:
    """The rule of one specification: its name, then its settings, as `name:setting=value:...`.

    The name is that of any part of the stage `allocate`; values are read as YAML.

    Raises:
        SettingsError: the rule or a setting is unknown, or a value out of range.

    >>> read_rule("optpo:statistic=posterior:error=0.01").error
    0.01
    """
    name, *assignments = spec.split(":")
    names = parts()["allocate"]
    if name not in names:
        near = did_you_mean(name, names) or "."
        raise SettingsError([f"there is no rule {name!r}{near} There are: {', '.join(names)}"])
    kind = part_class("allocate", name)
    hints, known = get_type_hints(kind), {field.name: field for field in fields(kind)}
    settings: dict[str, Any] = {}
    problems = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            problems.append(f"{assignment!r} must be setting=value, as in beta:confidence=0.95")
        elif key not in known:
            near = did_you_mean(key, known) or "."
            problems.append(f"{key!r} is no setting of it{near} There are: {', '.join(known)}")
        elif key in settings:
            problems.append(f"{key} is given twice")
        else:
            try:
                settings[key] = text if str in _kinds(hints[key]) else parse_yaml(text, key)
            except SettingsError as error:
                problems += error.problems
                continue
            if not _fits(settings[key], hints[key]):
                problems.append(f"{key} = {text}: must be a number")
    missing = [key for key, field in known.items() if _required(field) and key not in settings]
    if missing and not problems:
        problems.append(f"it needs {' and '.join(missing)}, as in {name}:{missing[0]}=...")
    if not problems:
        try:
            rule: StoppingRule = kind(**settings)
        except SettingsError as error:
            problems += error.problems
        else:
            return rule
    raise SettingsError([f"rule {spec}: {problem}" for problem in problems])


def without_level(spec: str, rule: StoppingRule) -> str:
    """The specification of a rule without the setting that says how sure it wants to be.

    >>> without_level("beta:confidence=0.9:prior_rival=2", read_rule("beta"))
    'beta:prior_rival=2'
    """
    level = f"{level_setting(rule)}="
    return ":".join(part for part in spec.split(":") if not part.startswith(level))


def shipped_specs() -> list[str]:
    """Every rule of the library that works as it comes, without any setting."""
    return [
        name
        for name in RULES
        if not any(_required(field) for field in fields(part_class("allocate", name)))
    ]


def _required(field: Field[Any]) -> bool:
    return field.init and field.default is MISSING and field.default_factory is MISSING


def _fits(value: Any, hint: Any) -> bool:
    """Whether a setting that is a number has one; of all else the rule itself takes care."""
    kinds = _kinds(hint)
    if not {int, float} & set(kinds) or (value is None and NoneType in kinds):
        return True
    return type(value) in (int, float)


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) or (hint,)
