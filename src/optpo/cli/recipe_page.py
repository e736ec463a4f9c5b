"""What `optpo recipes NAME` says of a recipe: its stages, settings, and how it differs from grpo."""

import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

from optpo.cli.setting_ranges import ranges

COMPARED_WITH = "grpo"
"""The recipe that others are compared with."""

_WIDTH = 96
_NOTHING = "\N{EN DASH}"


@dataclass(frozen=True)
class Setting:
    """One setting: its dotted name, value and default, and what it may be."""

    name: str
    value: Any
    default: Any
    range: str


def stages(settings: Any) -> list[tuple[str, str, str]]:
    """Stage, part, and the part's docstring in one sentence, in the order of a step."""
    from optpo.recipes.registry import STAGES, part_name

    filled = [(stage, getattr(settings, stage)) for stage in STAGES if hasattr(settings, stage)]
    return [(stage, part_name(stage, part), _first_sentence(type(part))) for stage, part in filled]


def all_settings(settings: Any, above: str = "") -> Iterator[Setting]:
    """Every single setting, section by section; a section's own before those of its sections.

    The first of a stage's is which part fills it.
    """
    from optpo.recipes.registry import STAGES, default_part, part_name, parts

    allowed = ranges(settings)
    inner = []
    if (stage := above.rstrip(".")) in STAGES:
        names = " | ".join(parts()[stage])
        part = part_name(stage, settings)
        yield Setting(f"{stage}.part", part, default_part(stage), names)
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            inner.append((f"{above}{field.name}.", value))
        elif field.name != "recipe":
            default = value if field.default is MISSING else field.default
            if field.default_factory is not MISSING:
                default = field.default_factory()
            yield Setting(f"{above}{field.name}", value, default, allowed.get(field.name, ""))
    for name, section in inner:
        yield from all_settings(section, name)


def differences(
    here: Mapping[str, Any], there: Mapping[str, Any], said: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Setting, its value here and its value there, both resolved; None where it does not exist.

    Where a stage is filled by another part, the part is named, and of the settings that only one of
    the two has those that the recipe itself has `said`.
    """
    found = []
    for key in [*here, *(key for key in there if key not in here)]:
        ours, theirs, own = here.get(key), there.get(key), said.get(key)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            own = own if isinstance(own, Mapping) else {}
            if ours.get("part") != theirs.get("part"):
                kept = {"part", *own} | (ours.keys() & theirs.keys())
                ours = {name: value for name, value in ours.items() if name in kept}
                theirs = {name: value for name, value in theirs.items() if name in ours}
            inner = differences(ours, theirs, own)
            found += [(f"{key}.{name}", *values) for name, *values in inner]
        elif ours != theirs and key != "recipe":
            found.append((key, ours, theirs))
    return found


def page(recipe: Any, settings: Any, compared: list[tuple[str, Any, Any]] | None) -> Iterator[str]:
    """The lines of a recipe's page; `compared` are its differences, None for grpo itself."""
    yield f"{recipe.name}: {recipe.title}"
    yield recipe.paper
    yield ""
    yield from textwrap.wrap(recipe.description, _WIDTH, break_on_hyphens=False)
    yield ""
    yield "Stages of a step, each with its part"
    for stage, part, what in stages(settings):
        head = f"  {stage:<10}{part:<22}"
        yield from textwrap.wrap(what, _WIDTH, initial_indent=head, subsequent_indent=" " * 34)
    yield ""
    if compared is not None:
        yield from _comparison(recipe.name, compared)
        yield ""
    yield "All settings, with their ranges as the others stand; * where the recipe itself says so."
    yield ""
    yield from _explained(settings, recipe.settings)


def _comparison(name: str, compared: list[tuple[str, Any, Any]]) -> Iterator[str]:
    if not compared:
        yield f"Its settings are those of {COMPARED_WITH}."
        return
    yield f"How it differs from {COMPARED_WITH}"
    rows = [
        (key, *(_NOTHING if value is None else _shown(value) for value in values))
        for key, *values in compared
    ]
    first, second = (max(len(row[place]) for row in [*rows, ("", name, "")]) for place in (0, 1))
    yield f"  {'':<{first}}  {name:<{second}}  {COMPARED_WITH}"
    for key, here, there in rows:
        yield f"  {key:<{first}}  {here:<{second}}  {there}"


def _explained(settings: Any, said: Mapping[str, Any]) -> Iterator[str]:
    section = None
    for setting in all_settings(settings):
        above, _, name = setting.name.rpartition(".")
        if above != section:
            if section is not None:
                yield ""
            section = above
            kind = type(_at(settings, above))
            prose, explained = _docstring(kind)
            if above:
                yield above
            yield from _indented(prose, 4)
        mark = "*" if _is_said(said, setting.name) else " "
        line = f"  {mark} {setting.name:<28} {_shown(setting.value):<12} {setting.range}"
        if setting.value != setting.default:
            line += f" (default: {_shown(setting.default)})"
        yield from textwrap.wrap(line, _WIDTH, subsequent_indent=" " * 46)
        yield from _indented(explained.get(name, ""), 8)


def _at(settings: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        settings = getattr(settings, name)
    return settings


def _is_said(said: Mapping[str, Any], dotted: str) -> bool:
    value: Any = said
    for name in dotted.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return True


def _indented(text: str, by: int) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=" " * by, subsequent_indent=" " * by)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _first_sentence(kind: type[Any]) -> str:
    prose, _ = _docstring(kind)
    return re.split(r"(?<=[.]) (?=[A-Z`(-])", prose, maxsplit=1)[0]


def _docstring(kind: type[Any]) -> tuple[str, dict[str, str]]:
    """A settings class's docstring: as one paragraph, and what is said of single settings.

    Where settings are explained one by one under "Args:", the paragraph is the first line only.
    """
    text = inspect.getdoc(kind) or ""
    prose, _, arguments = text.partition("\nArgs:\n")
    arguments = re.split(r"\n(?=\S)", arguments)[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
    explained = {name: " ".join(said.split()) for name, said in entries}
    if explained:
        prose = prose.partition("\n\n")[0]
    # What is raised is said by the ranges.
    prose = re.split(r"\n\s*Raises\b", prose, maxsplit=1)[0]
    return " ".join(prose.split()), explained
