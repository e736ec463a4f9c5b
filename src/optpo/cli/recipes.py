"""`optpo recipes`: what there is, and what a recipe does."""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from optpo.cli.flags import missing_packages
from optpo.cli.output import show, show_aside
from optpo.errors import SettingsError

if TYPE_CHECKING:
    from optpo.recipes.load import Recipe
    from optpo.training.settings import RunSettings

_WIDTH = 96
_FAMILIES = {
    "reference": "The reference set, learning from a verifier (optpo train)",
    "papers": "More papers, learning from a verifier (optpo train)",
    "without_labels": "Without labels (optpo adapt)",
}
"""The folders that recipes lie in, in the order they are listed."""


@dataclass(frozen=True)
class Recipes:
    """List the recipes, or say what one does: its paper, stages, settings, how it differs from grpo."""

    name: Annotated[
        str | None, Positional, arg(metavar="[NAME|FILE]", help_behavior_hint="(default: list all)")
    ] = None
    """A recipe's name, or a recipe file of your own."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Print the list, or one recipe."""
        from optpo.recipes.load import read_recipe

        if self.name is None:
            self._list()
            return
        recipe = read_recipe(self.name)
        if missing_packages():
            self._without_torch(recipe)
            return
        from optpo.cli.recipe_page import COMPARED_WITH, all_settings, differences, page, stages
        from optpo.recipes.load import build_settings, settings_to_mapping

        settings = _built(self.name)
        resolved = settings_to_mapping(settings)
        compared = None
        if recipe.name != COMPARED_WITH:
            there = settings_to_mapping(build_settings(COMPARED_WITH))
            compared = differences(resolved, there, recipe.settings)
        if not self.json:
            show("\n".join(page(recipe, settings, compared)))
            return
        told: dict[str, Any] = {
            **asdict(recipe),
            "resolved": resolved,
            "stages": [
                dict(zip(("stage", "part", "does"), row, strict=True)) for row in stages(settings)
            ],
            "ranges": {setting.name: setting.range for setting in all_settings(settings)},
            "differs_from_grpo": {
                name: {"here": here, COMPARED_WITH: there} for name, here, there in compared or ()
            },
        }
        show(json.dumps(told, indent=2))

    def _list(self) -> None:
        from optpo.recipes.load import read_recipe, recipe_names

        recipes = [read_recipe(name) for name in recipe_names()]
        if self.json:
            families = _families()
            rows = [{**asdict(recipe), "family": families[recipe.name]} for recipe in recipes]
            show(json.dumps(rows, indent=2))
        else:
            show("\n".join(_listed(recipes)))

    def _without_torch(self, recipe: "Recipe") -> None:
        if self.json:
            show(json.dumps({**asdict(recipe), "resolved": None}, indent=2))
            return
        import yaml

        show(f"{recipe.name}: {recipe.title}\n{recipe.paper}\n")
        show(textwrap.fill(recipe.description, _WIDTH, break_on_hyphens=False), end="\n\n")
        show(yaml.safe_dump(recipe.settings, sort_keys=False), end="")
        show_aside("defaults and ranges need: pip install 'optpo[train]'")


def _built(name: str) -> "RunSettings":
    """The recipe's settings; where it needs a second model, which no recipe names, one of yours."""
    from optpo.recipes.load import build_settings

    try:
        return build_settings(name)
    except SettingsError as error:
        if not any("model.guide" in problem for problem in error.problems):
            raise
        return build_settings(name, flags={"model.guide": "(yours)"})


def _families() -> dict[str, str]:
    """The folder that each recipe lies in."""
    shipped = Path(str(files("optpo.recipes")))
    return {file.stem: file.parent.name for file in shipped.rglob("*.yaml")}


def _listed(recipes: "list[Recipe]") -> Iterator[str]:
    families = _families()
    width = max(len(recipe.name) for recipe in recipes)
    others = sorted({*families.values()} - {*_FAMILIES})
    for family in (*_FAMILIES, *others):
        yield _FAMILIES.get(family, family)
        for recipe in recipes:
            if families[recipe.name] == family:
                yield f"  {recipe.name:<{width}}  {recipe.title}"
        yield ""
    yield "`optpo recipes NAME` says what one does, in which stages, its paper and its settings."
