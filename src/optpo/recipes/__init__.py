"""Recipes: the parts that fill the stages, by name, with their settings; no torch until built."""

from optpo.recipes.load import (
    Recipe,
    build_settings,
    build_vote_settings,
    read_recipe,
    recipe_names,
    settings_from_mapping,
    settings_to_mapping,
)

__all__ = [
    "Recipe",
    "build_settings",
    "build_vote_settings",
    "read_recipe",
    "recipe_names",
    "settings_from_mapping",
    "settings_to_mapping",
]
