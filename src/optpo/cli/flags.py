"""The flags that several verbs share: which model, questions and settings, and what bounds a replay."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import UseAppendAction, arg

from optpo.errors import OptpoError, SettingsError
from optpo.recipes.nearest import did_you_mean

if TYPE_CHECKING:
    from optpo.training.settings import RunSettings

AsSettingsSay = arg(help_behavior_hint="(default: as the settings say)")

_COMPARED = ("exact", "numeric", "math", "choice")

Reward = Annotated[
    str | None,
    arg(
        metavar="exact|numeric|math|choice|reasoning-gym|MODULE:FUNCTION",
        help_behavior_hint="(default: as the settings say)",
    ),
]
"""The type of the flag --reward."""


def reward_settings(reward: str | None) -> dict[str, object]:
    """What the flag --reward sets, by dotted key.

    Raises:
        SettingsError: it is none of the words and no function's name.
    """
    if reward is None:
        return {}
    if reward in _COMPARED:
        return {"data.answers.compare": reward, "score.by": "gold"}
    if reward != "reasoning-gym" and ":" not in reward:
        words = (*_COMPARED, "reasoning-gym")
        near = did_you_mean(reward, words)
        raise SettingsError(
            [
                f"--reward is {reward!r}; it must be one of {', '.join(words)}, or a function of "
                f"yours as MODULE:FUNCTION{near}"
            ]
        )
    return {"score.by": reward}


@dataclass(frozen=True)
class SettingsFlags:
    """Settings come from the recipe, then --config, then --set and the other flags."""

    recipe: Annotated[str, arg(metavar="NAME|FILE")] = "optpo"
    """A recipe that `optpo recipes` lists, or a .yaml file of your own."""
    model: Annotated[
        str | None, arg(metavar="PATH", help_behavior_hint="(default: the embedded model)")
    ] = None
    """The model: a folder, a .gguf file, or a name on the hub."""
    data: Annotated[
        str | None, arg(metavar="FILE", help_behavior_hint="(default: the embedded questions)")
    ] = None
    """The questions: .jsonl, .parquet, a dataset's name, reasoning-gym:TASK:SIZE:SEED, or the
    embedded sets adapt and unseen."""
    seed: Annotated[int | None, AsSettingsSay, arg(metavar="N")] = None
    """Same seed, same results."""
    config: Annotated[
        tuple[tuple[Path, ...], ...],
        UseAppendAction,
        arg(metavar="FILE ...", help_behavior_hint="(repeatable)"),
    ] = ()
    """YAML files of settings, later ones over earlier ones."""
    assignments: Annotated[
        tuple[tuple[str, ...], ...],
        UseAppendAction,
        arg(name="set", metavar="A.B=VALUE ...", help_behavior_hint="(repeatable)"),
    ] = ()
    """Single settings, as update.learning_rate=1e-5; `optpo recipes NAME` lists them."""

    def settings(self, flags: Mapping[str, object] | None = None) -> "RunSettings":
        """Add everything up; `flags` are further settings by dotted key.

        Raises:
            MissingExtraError: torch or transformers is missing.
            SettingsError: everything that is wrong in the settings.
        """
        require_training()
        from optpo.recipes.load import build_settings

        own = {
            "model.name": self.model,
            "data.questions": self.data,
            "seed": self.seed,
        }
        given = {key: value for key, value in own.items() if value is not None}
        return build_settings(self.recipe, *self.layers(), {**given, **(flags or {})})

    def layers(self) -> tuple[list[Path], list[str]]:
        """The files of settings and the assignments, in the order they were given."""
        return (
            [file for files in self.config for file in files],
            [assignment for several in self.assignments for assignment in several],
        )


class MissingExtraError(OptpoError, ImportError):
    """A verb needs packages that `pip install optpo` alone does not bring."""

    exit_code = 2


def require_training() -> None:
    """Make sure that models can be run, without loading anything.

    Raises:
        MissingExtraError: they cannot; says what to install.
    """
    if missing := missing_packages():
        raise MissingExtraError(
            f"this needs {', '.join(missing)}; not installed here: pip install 'optpo[train]'"
        )


def missing_packages() -> list[str]:
    """The packages of the training extra that are missing."""
    return [
        name for name in ("torch", "transformers", "peft", "safetensors") if find_spec(name) is None
    ]


def budget_flag_problems(cap: int, floor: int, orders: int) -> list[str]:
    """What is wrong with the flags --cap, --floor and --orders of a verb that replays votes."""
    flags = {"--cap": cap, "--floor": floor, "--orders": orders}
    problems = [f"{flag} is {n}; it must be 1 or more" for flag, n in flags.items() if n < 1]
    if not problems and floor > cap:
        problems.append(f"--floor is {floor}; it must not be above --cap, {cap}")
    return problems
