"""Settings on top of settings: the recipe, then files, then assignments."""

from collections.abc import Iterable, Mapping
from typing import Any

from optpo.recipes.registry import STAGES, default_part


def merge(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the layers as one mapping, later ones over earlier ones.

    Where a layer fills a stage with another part, the settings of the part before are dropped: a
    `limit` meant for one selection is not silently the `limit` of the next.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        kept = {
            key: value
            for key, value in merged.items()
            if key not in STAGES or _same_part(key, value, layer.get(key))
        }
        merged = overlay(kept, layer)
    return merged


def _same_part(stage: str, below: Any, above: Any) -> bool:
    if not (isinstance(below, Mapping) and isinstance(above, Mapping) and "part" in above):
        return True
    return bool(above["part"] == below.get("part", default_part(stage)))


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `above` on top of `below`, key by key, section by section."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            merged[key] = overlay(under, value)
        elif not (isinstance(under, Mapping) and value is None):
            # A section whose lines are all commented out reads as null, and means no change.
            merged[key] = value
    return merged


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return the mapping in which `value` stands at `path`."""
    for key in reversed(path):
        value = {key: value}
    return dict(value)
