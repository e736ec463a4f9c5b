"""Read YAML as people mean it: version 1.2's core rules, no key twice, errors with their place."""

import math
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from optpo.errors import SettingsError

_NULL = re.compile(r"(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"(?:[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+)$")
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_FLOAT = re.compile(rf"(?:{_NUMBER.pattern}|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$)")


class _Loader(yaml.SafeLoader):
    """PyYAML reads version 1.1, to which 1e-5 is text, no is false, 010 is 8 and 1:30 is 90."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that is written twice; PyYAML would keep the last one silently."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Decimal, 0x or 0o; or a float."""
        text = node.value
        if not _INT.match(text):
            special = text.lower().replace(".inf", "inf").replace(".nan", "nan")
            return float(special)
        base = {"0x": 16, "0o": 8}.get(text[:2], 10)
        return int(text, base)


for _tag, _pattern, _first in (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", re.compile("<<$"), ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text.

    Raises:
        SettingsError: it is no YAML; says where in `source`.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise SettingsError([f"{source}{place}: {error.problem or error.context}"]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()) or "nested too deeply"
        raise SettingsError([f"{source}: {reason}"]) from error


def read_mapping(file: Path) -> Mapping[str, Any]:
    """The mapping in a YAML file; an empty file is an empty one.

    Raises:
        SettingsError: the file cannot be read, or holds something else.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError([f"{file} is not UTF-8 at byte {error.start}"]) from error
    except OSError as error:
        raise SettingsError([f"{file} cannot be read: {error.strerror or error}"]) from error
    value = parse_yaml(text, str(file))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingsError([f"{file} holds {value!r:.60}; it must hold settings as key: value"])
    return value


def parse_assignment(assignment: str) -> tuple[tuple[str, ...], Any]:
    """Split `a.b=value` into its path and its value, which is read as YAML.

    Raises:
        SettingsError: there is no equals sign, no key, or the value is no YAML.
    """
    dotted, equals, text = assignment.partition("=")
    path = tuple(dotted.strip().split("."))
    if not equals or not all(path):
        raise SettingsError([f"--set {assignment!r}; it must be like update.learning_rate=1e-5"])
    try:
        return path, parse_yaml(text, f"--set {assignment}")
    except SettingsError as error:
        raise SettingsError([f"{error}; put text like that in quotes of its own"]) from error


def read_number(text: str) -> float | None:
    """The finite number a text spells, as in 1e-5 between quotes; None for any other text."""
    if not _NUMBER.match(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None
