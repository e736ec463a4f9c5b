"""`optpo recipes`: what there is, and what a recipe does."""

import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from tyro.conf import Positional, arg

from optpo.cli.flags import missing_packages
from optpo.cli.output import show, show_aside

_WIDTH = 96


@dataclass(frozen=True)
class Recipes:
    """List the recipes, or say what one does: its paper, stages and settings."""

    name: Annotated[
        str | None, Positional, arg(metavar="[NAME|FILE]", help_behavior_hint="(default: list all)")
    ] = None
    """A recipe's name, or a recipe file of your own."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Print the list, or one recipe."""
        from optpo.recipes.load import read_recipe, recipe_names

        if self.name is None:
            recipes = [read_recipe(name) for name in recipe_names()]
            if self.json:
                show(json.dumps([asdict(recipe) for recipe in recipes], indent=2))
                return
            for recipe in recipes:
                show(f"{recipe.name:<12} {recipe.title}\n{'':<12} {recipe.paper}")
            show("\n`optpo recipes NAME` says what one does and lists its settings.")
            return
        recipe = read_recipe(self.name)
        resolved = None if missing_packages() else _resolved(self.name)
        if self.json:
            show(json.dumps({**asdict(recipe), "resolved": resolved}, indent=2))
            return
        show(f"{recipe.name}: {recipe.title}\n{recipe.paper}\n")
        show(textwrap.fill(recipe.description, _WIDTH), end="\n\n")
        if resolved is None:
            import yaml

            show(yaml.safe_dump(recipe.settings, sort_keys=False), end="")
            show_aside("defaults and ranges need: pip install 'optpo[train]'")
            return
        show("All settings; * where the recipe itself says so.\n")
        show("\n".join(_explained(resolved, recipe.settings)))


def _resolved(name: str) -> dict[str, Any]:
    from optpo.recipes.load import build_settings, settings_to_mapping

    return settings_to_mapping(build_settings(name))


def _explained(resolved: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[str]:
    """The settings as lines, section by section, with what their docstrings say."""
    from optpo.recipes.load import settings_from_mapping

    settings = settings_from_mapping(resolved)
    single = {key: value for key, value in resolved.items() if not isinstance(value, dict)}
    yield from _section("", settings, single, said)
    for key, values in resolved.items():
        if isinstance(values, dict):
            yield from _section(key, getattr(settings, key), values, said.get(key) or {})


def _section(
    path: str, settings: object, values: Mapping[str, Any], said: Mapping[str, Any]
) -> Iterator[str]:
    summary, explained = _docstring(type(settings))
    if path:
        yield path
    yield from textwrap.wrap(summary, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    inner = []
    for key, value in values.items():
        if isinstance(value, dict):
            inner.append(key)
            continue
        dotted = f"{path}.{key}" if path else key
        line = f"  {'*' if key in said else ' '} {dotted:<28} {json.dumps(value)}"
        yield line
        yield from textwrap.wrap(
            explained.get(key, ""), _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8
        )
    yield ""
    for key in inner:
        part = getattr(settings, key)
        yield from _section(f"{path}.{key}", part, values[key], said.get(key) or {})


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
    return " ".join(prose.split()), explained
