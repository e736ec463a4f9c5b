"""From a mapping to typed settings and back, with every problem named by its dotted key."""

import math
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from cattrs import ClassValidationError, Converter
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from optpo.errors import SettingsError
from optpo.recipes.nearest import did_you_mean
from optpo.recipes.reading import read_number
from optpo.recipes.registry import STAGES, default_part, part_class, part_name, parts

Settings = TypeVar("Settings")
"""A dataclass of settings in which every stage it has is filled by a part."""

Path = tuple[str, ...]

# Optional[int] and int | None are instances of two classes up to Python 3.13.
_UNIONS = (UnionType, type(Union[int, None]))  # noqa: UP007


def to_mapping(settings: object) -> dict[str, Any]:
    """All settings as plain YAML types, each stage with the name of its `part`.

    Raises:
        SettingsError: a stage is filled by a part that has no name.
    """
    mapping: dict[str, Any] = _plain(settings)
    for stage in _stages(type(settings)):
        mapping[stage] = {"part": part_name(stage, getattr(settings, stage)), **mapping[stage]}
    return mapping


def from_mapping(mapping: Mapping[str, Any], kind: type[Settings]) -> Settings:
    """The settings of this kind that a mapping says; defaults where it says nothing.

    Raises:
        SettingsError: unknown keys, wrong types and values out of range, all of them together.
    """
    rest = deepcopy(dict(mapping))
    faults: list[_Fault] = []
    while True:
        try:
            settings = _converter.structure(rest, kind)
        except ClassValidationError as error:
            found = list(_faults(error, (), kind))
        else:
            break
        # What is wrong keeps the rest from being built and checked: take it out and look again.
        faults += [fault for fault in found if not fault.follows_from(faults)]
        removed = [_remove(rest, path) for path in {fault.path for fault in found}]
        if not all(removed):
            break
    if faults:
        raise SettingsError([fault.problem for fault in faults])
    return settings


def _stages(kind: type[Any]) -> list[str]:
    """The stages among the settings of a kind: a setting of that name holds a part."""
    return [field.name for field in fields(kind) if field.name in STAGES]


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else value


def _remove(mapping: dict[str, Any], path: Path) -> bool:
    """Take out what stands at `path`; False where nothing does."""
    for key in path[:-1]:
        mapping = mapping.get(key, {})
    return bool(path) and mapping.pop(path[-1], _NOTHING) is not _NOTHING


_NOTHING = object()


class _WrongTypeError(ValueError):
    def __init__(self, value: object, expected: str) -> None:
        super().__init__(value, expected)
        self.value = value
        self.expected = expected


def _boolean(value: Any, _: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if isinstance(value, str) and value.casefold() in words:
        return words[value.casefold()]
    raise _WrongTypeError(value, "true or false")


def _number(value: Any, _: Any) -> float:
    given = read_number(value) if isinstance(value, str) else value
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise _WrongTypeError(value, "a number")
    try:
        number = float(given)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _WrongTypeError(value, "a finite number")
    return number


def _whole_number(value: Any, kind: Any) -> int:
    if type(value) is int:
        return value
    try:
        number = _number(value, kind)
    except _WrongTypeError:
        raise _WrongTypeError(value, "a whole number") from None
    if not number.is_integer():
        raise _WrongTypeError(value, "a whole number")
    return int(number)


def _text(value: Any, _: Any) -> str:
    if isinstance(value, str):
        return value
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    raise _WrongTypeError(value, f"text; between quotes it is: '{value}'" if plain else "text")


def _one_of(value: Any, kind: Any) -> Any:
    for allowed in get_args(kind):
        if type(allowed) is type(value) and allowed == value:
            return allowed
    names = ", ".join(map(str, get_args(kind)))
    near = did_you_mean(value, get_args(kind)) if isinstance(value, str) else ""
    raise _WrongTypeError(value, f"one of {names}{near}")


def _optional(value: Any, kind: Any) -> Any:
    if value is None:
        return None
    (inner,) = (argument for argument in get_args(kind) if argument is not NoneType)
    try:
        return _converter.structure(value, inner)
    except _WrongTypeError as error:
        raise _WrongTypeError(error.value, f"{error.expected}, or null") from None


def _entries(value: Any, kind: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _WrongTypeError(value, f"a list; with one entry it is: [{value}]")
    try:
        return tuple(_converter.structure(entry, get_args(kind)[0]) for entry in value)
    except _WrongTypeError as error:
        raise _WrongTypeError(value, f"a list, each entry {error.expected}") from None


def _is_choice(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _is_optional(kind: Any) -> bool:
    arguments = get_args(kind)
    return isinstance(kind, _UNIONS) and len(arguments) == 2 and NoneType in arguments


def _is_entries(kind: Any) -> bool:
    return get_origin(kind) is tuple and get_args(kind)[1:] == (...,)


def _section(kind: type[Any]) -> Any:
    overrides = {stage: override(struct_hook=_stage(stage)) for stage in _stages(kind)}
    structure = make_dict_structure_fn(kind, _converter, **overrides)  # type: ignore[arg-type]

    def section(value: Any, _: Any) -> Any:
        if value is not None and not isinstance(value, Mapping):
            raise _WrongTypeError(value, "a section of settings")
        return structure(value or {}, kind)

    return section


def _stage(stage: str) -> Any:
    def structure(value: Any, _: Any) -> Any:
        if value is not None and not isinstance(value, Mapping):
            part = value if value in tuple(parts()[stage]) else default_part(stage)
            raise _WrongTypeError(value, f"a section such as {{part: {part}}}")
        settings = dict(value or {})
        part = part_class(stage, settings.pop("part", default_part(stage)))
        return _converter.structure(settings, part)

    return structure


_converter = Converter(forbid_extra_keys=True, detailed_validation=True)
_converter.register_structure_hook(bool, _boolean)
_converter.register_structure_hook(int, _whole_number)
_converter.register_structure_hook(float, _number)
_converter.register_structure_hook(str, _text)
_converter.register_structure_hook_func(_is_choice, _one_of)
_converter.register_structure_hook_func(_is_optional, _optional)
_converter.register_structure_hook_func(_is_entries, _entries)
_converter.register_structure_hook_factory(is_dataclass, _section)


@dataclass(frozen=True)
class _Fault:
    """A problem, and the key to take out so that the rest can be looked at."""

    path: Path
    problem: str

    def follows_from(self, earlier: "list[_Fault]") -> bool:
        """Whether it is about a key that an earlier fault took out, and thus about its default."""
        return any(
            fault.path[:-1] == self.path and re.search(rf"\b{fault.path[-1]}\b", self.problem)
            for fault in earlier
            if fault.path
        )


def _faults(error: BaseException, path: Path, whole: type[Any]) -> Iterator[_Fault]:
    dotted = ".".join(path)
    if isinstance(error, ClassValidationError):
        attributes, others = error.group_exceptions()
        for inner, note in attributes:
            yield from _faults(inner, (*path, note.name), whole)
        for inner in others:
            yield from _faults(inner, path, whole)
    elif isinstance(error, ForbiddenExtraKeysError):
        for key in sorted(map(str, error.extra_fields)):
            yield _Fault((*path, key), _unknown((*path, key), error.cl, whole))
    elif isinstance(error, SettingsError):
        # A part's own message begins with the name of its setting.
        for problem in error.problems:
            yield _Fault(path, ".".join((*path, problem)))
    elif isinstance(error, _WrongTypeError):
        problem = f"{dotted} is {_shown(error.value)}; it must be {error.expected}"
        yield _Fault(path, problem)
    elif isinstance(error, KeyError):
        yield _Fault(path[:-1], f"{dotted} is missing")
    else:
        yield _Fault(path, f"{dotted}: {error}")


def _unknown(path: Path, kind: type[Any], whole: type[Any]) -> str:
    *section, key = path
    names = [field.name for field in fields(kind)]
    stage = section[0] if len(section) == 1 and section[0] in STAGES else None
    if stage:
        names = ["part", *names]
    near = did_you_mean(key, names) or _elsewhere(key, stage, whole)
    return f"{'.'.join(path)} is no setting{near or '.'} There are: {', '.join(names)}"


def _elsewhere(key: str, stage: str | None, whole: type[Any]) -> str:
    """Where a setting of this name is: in another part of the stage, or in another section."""
    for part in parts()[stage] if stage else ():
        if key in {field.name for field in fields(part_class(str(stage), part))}:
            return f"; it belongs to {stage}.part {part}."
    for section in fields(whole):
        default = section.default_factory
        if is_dataclass(default) and key in {setting.name for setting in fields(default)}:
            return f"; did you mean {section.name}.{key}?"
    return ""


def _shown(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
