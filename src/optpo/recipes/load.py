"""Recipes by name, and the settings that a recipe, files and assignments add up to."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optpo.errors import SettingsError
from optpo.recipes.layers import merge, nested, overlay
from optpo.recipes.nearest import did_you_mean, did_you_mean_among
from optpo.recipes.reading import parse_assignment, read_mapping

if TYPE_CHECKING:
    from optpo.sampling.vote_settings import VoteSettings
    from optpo.training.settings import RunSettings

_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Recipe:
    """One part a stage with its settings, and what that amounts to.

    Attributes:
        name: what it is called on the command line.
        title: one line.
        paper: where it comes from.
        description: what it does, in plain words.
        settings: what differs from the defaults of `RunSettings`.
    """

    name: str
    title: str
    paper: str
    description: str
    settings: dict[str, Any]


def recipe_names() -> list[str]:
    """The recipes that come with the library."""
    shipped = Path(str(files("optpo.recipes")))
    return sorted(file.stem for file in shipped.rglob("*.yaml"))


def read_recipe(name: str) -> Recipe:
    """Read a recipe: one that comes with the library, or a file of the user's own.

    Needs no torch; the settings are checked when they are built.

    Raises:
        SettingsError: there is none of that name, or it is no recipe.
    """
    if name in recipe_names():
        (file,) = Path(str(files("optpo.recipes"))).rglob(f"{name}.yaml")
    else:
        file = Path(name).expanduser()
        if file.suffix not in _SUFFIXES:
            raise SettingsError(
                [
                    f"there is no recipe {name!r}{did_you_mean_among(name, recipe_names()) or '.'} "
                    f"There are: {', '.join(recipe_names())}; or name a recipe's .yaml file"
                ]
            )
    return _recipe(read_mapping(file), file)


def build_settings(
    recipe_name: str,
    config_files: Sequence[Path] = (),
    assignments: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
) -> "RunSettings":
    """Add up settings: the recipe, then each file, then all assignments and flags.

    Args:
        recipe_name: a recipe's name, or its file.
        config_files: YAML files of settings, or of recipes.
        assignments: `a.b=value` each, the value read as YAML.
        flags: values by dotted key, as flags of the command line give them.

    The embedded unseen questions belong to the embedded model and questions: where another model or
    other questions are named and no unseen ones, there are none.
    Where no model is named, the settings that suit the embedded one lie below the recipe.

    Raises:
        SettingsError: everything that is wrong in any of them, together.
    """
    problems: list[str] = []
    layers = _layers(recipe_name, config_files, assignments, flags or {}, problems)
    with _collected(problems):
        settings = settings_from_mapping(_with_full_paths(_with_embedded(layers)))
    if problems:
        raise SettingsError(problems)
    return settings


def build_vote_settings(
    recipe_name: str,
    config_files: Sequence[Path] = (),
    assignments: Sequence[str] = (),
    flags: Mapping[str, object] | None = None,
) -> "VoteSettings":
    """The same for a vote against a server. Needs no torch.

    What a recipe or a file says of training is passed over; an assignment of it is an error.

    Raises:
        SettingsError: everything that is wrong in any of them, together.
    """
    from optpo.recipes.structure import from_mapping
    from optpo.sampling.vote_settings import VoteSettings

    problems: list[str] = []
    *below, assigned = _layers(recipe_name, config_files, assignments, flags or {}, problems)
    names = {field.name for field in fields(VoteSettings)}
    used = [{key: value for key, value in layer.items() if key in names} for layer in below]
    with _collected(problems):
        settings = from_mapping(_with_full_paths(merge([*used, assigned])), VoteSettings)
    if problems:
        raise SettingsError(problems)
    return settings


def _layers(
    recipe_name: str,
    config_files: Sequence[Path],
    assignments: Sequence[str],
    flags: Mapping[str, object],
    problems: list[str],
) -> list[Mapping[str, Any]]:
    """The recipe, each file, and all assignments and flags; adds to `problems` what is wrong."""
    layers: list[Mapping[str, Any]] = []
    assigned: list[tuple[tuple[str, ...], Any]] = []
    with _collected(problems):
        recipe = read_recipe(recipe_name)
        layers += [{"recipe": recipe.name}, recipe.settings]
    for file in config_files:
        with _collected(problems):
            layers.append(_config(file))
    for assignment in assignments:
        with _collected(problems):
            assigned.append(parse_assignment(assignment))
    for key, value in flags.items():
        path = tuple(key.split("."))
        if path in dict(assigned):
            problems.append(f"{key} is given twice: by its flag and by --set")
        assigned.append((path, value))
    # One layer, so that a part and its settings may be assigned in any order.
    layers.append(_joined(assigned))
    return layers


def settings_to_mapping(settings: "RunSettings | VoteSettings") -> dict[str, Any]:
    """All settings as plain YAML types, each stage with the name of its `part`.

    Raises:
        SettingsError: a stage is filled by a part that has no name.
    """
    from optpo.recipes.structure import to_mapping

    return to_mapping(settings)


def settings_from_mapping(mapping: Mapping[str, Any]) -> "RunSettings":
    """The settings that `settings_to_mapping` wrote, exactly.

    Raises:
        SettingsError: unknown keys, wrong types and values out of range, all of them together.
    """
    from optpo.recipes.structure import from_mapping
    from optpo.training.settings import RunSettings

    return from_mapping(mapping, RunSettings)


@contextmanager
def _collected(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        problems.extend(error.problems)


def _with_embedded(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All layers, over the settings that suit the embedded model where no other is named."""
    from optpo.data.questions import EMBEDDED

    mapping = merge(layers)
    sections = (mapping.get("model"), mapping.get("data"))
    model, data = (section if isinstance(section, dict) else {} for section in sections)
    own_model = model.get("name") is not None
    below: list[Mapping[str, Any]] = []
    if not own_model:
        below.append(read_mapping(Path(str(files("optpo.data"))) / "embedded" / "settings.yaml"))
    if own_model or data.get("questions", EMBEDDED[0]) not in EMBEDDED:
        below.append({"data": {"unseen": None}})
    return merge([*below, *layers])


def _with_full_paths(mapping: dict[str, Any]) -> dict[str, Any]:
    """Files and the folder of a reward function by their full path, so that a run can be resumed
    from anywhere; other names as they are.
    """
    from optpo.data.questions import EMBEDDED
    from optpo.data.reward_function import FUNCTION

    score = mapping.get("score")
    if isinstance(score, dict) and FUNCTION.fullmatch(str(score.get("by"))):
        mapping = overlay({"score": {"folder": "."}}, mapping)
    full: dict[str, Any] = {}
    named = (
        ("model", "name"), ("model", "guide"), ("data", "questions"), ("data", "unseen"),
        ("score", "folder"),
    )  # fmt: skip
    for section, key in named:
        values = mapping.get(section)
        name = values.get(key) if isinstance(values, dict) else None
        if isinstance(name, str) and name not in EMBEDDED and Path(name).expanduser().exists():
            path = str(Path(name).expanduser().resolve())
            full = overlay(full, {section: {key: path}})
    return overlay(mapping, full)


def _joined(assigned: Sequence[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for path, value in assigned:
        joined = overlay(joined, nested(path, value))
    return joined


def _config(file: Path) -> Mapping[str, Any]:
    value = read_mapping(file)
    return _recipe(value, file).settings if "settings" in value else value


def _recipe(value: Mapping[str, Any], file: Path) -> Recipe:
    """Check the frame of a recipe; what it leaves out but its settings is empty."""
    names = ("name", "title", "paper", "description", "settings")
    problems = [
        f"{file}: {key} is no key of a recipe{did_you_mean(key, names) or '.'} "
        f"There are: {', '.join(names)}"
        for key in value
        if key not in names
    ]
    settings = value.get("settings")
    if "settings" not in value or not isinstance(settings, dict | None):
        problems.append(f"{file}: a recipe must have a section settings")
    texts = {"name": file.stem, "title": "", "paper": "", "description": ""}
    for key in texts:
        given = value.get(key, texts[key])
        if not isinstance(given, str):
            problems.append(f"{file}: {key} is {given!r}; it must be text")
        texts[key] = " ".join(str(given).split())
    if problems:
        raise SettingsError(problems)
    return Recipe(**texts, settings=dict(settings or {}))
