"""The recipes that are shipped, the registry, and recipes of the user's own."""

import re
from dataclasses import MISSING, fields
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import optpo.recipes
from optpo.advantages.gae import GaeAdvantage
from optpo.errors import SettingsError
from optpo.objectives.penalty import KlPenalty
from optpo.objectives.supervised import SupervisedObjective
from optpo.recipes import (
    build_settings,
    read_recipe,
    recipe_names,
    settings_from_mapping,
    settings_to_mapping,
)
from optpo.recipes.registry import STAGES, default_part, part_class, part_name, parts
from optpo.selection.decided import AgreeingSelection, DecidedSelection
from optpo.training.settings import RunSettings, UniformPrompts
from optpo.voting import RULES, FixedRule, OptpoRule

SHIPPED = [
    "adacot", "bapo", "bnpo", "cispo", "dapo-bytedance", "dapo-direct-advantage", "dppo-divergence",
    "dr-grpo", "drpo", "espo", "grpo", "gspo", "gtpo", "hapo-heterogeneous", "hapo-history", "hbpo",
    "opo", "optpo", "optpo-ppo", "optpo-sft", "optpo-snr", "optpo-soft", "optpo-spo", "optpo-warm",
    "otr", "p3o", "ppo", "ppo-max", "reinforce", "reinforce-plus-plus",
    "reinforce-plus-plus-baseline", "remax", "restrain", "riskpo", "rloo", "rto", "scrl",
    "spo-single-stream", "t-ppo", "ttrl",
]  # fmt: skip
NEEDED = {"rto": ["model.guide=somewhere"]}


def test_every_shipped_file_is_a_recipe() -> None:
    """Each YAML file of the package, however deep, is listed under the name it gives itself."""
    folder = Path(optpo.recipes.__file__).parent
    found = sorted(file.stem for file in folder.rglob("*.y*ml"))
    assert found == SHIPPED == recipe_names()
    assert [read_recipe(name).name for name in found] == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_recipe_builds_and_says_what_it_does(name: str) -> None:
    """A shipped recipe has words for people, and settings that hold."""
    recipe = read_recipe(name)
    assert min(len(recipe.title), len(recipe.paper)) > 10
    assert {"ttrl", "grpo"} & set(re.findall("[a-z]+", recipe.description)) or name == "grpo"
    assert re.search(r"arXiv \d{4}\.\d{5}|19\d\d", recipe.paper)
    settings = build_settings(name, assignments=NEEDED.get(name, []))
    assert settings.recipe == name
    assert settings_from_mapping(settings_to_mapping(settings)) == settings


@pytest.mark.parametrize("name", SHIPPED)
def test_stages_are_named_by_part(name: str) -> None:
    """A recipe that says something of a stage names the part it means."""
    settings = read_recipe(name).settings
    assert all("part" in settings[stage] for stage in STAGES if stage in settings)


def test_what_the_recipes_fill_the_stages_with() -> None:
    """The recipes differ where their methods do."""
    names = ("optpo", "optpo-ppo", "optpo-sft", "optpo-warm", "ttrl")
    optpo_, ppo, sft, warm, ttrl = map(build_settings, names)
    rule = OptpoRule(p0=0.5, candidates=4, error=0.05, floor=8, cap=64)
    assert [rule] * 3 == [optpo_.allocate, ppo.allocate, sft.allocate]
    assert FixedRule(votes=64) == ttrl.allocate
    assert warm.tracker.most_kept > 0 == optpo_.tracker.most_kept
    assert isinstance(ppo.advantage, GaeAdvantage)
    assert AgreeingSelection() == sft.select
    assert SupervisedObjective() == sft.objective
    assert DecidedSelection(limit=32) == ttrl.select
    assert KlPenalty(0.001) == ttrl.penalty
    assert "reference" not in optpo_.needs


def test_first_part_of_a_stage_is_its_default() -> None:
    """The registry's default part, read without torch, is what RunSettings is made with."""
    settings = RunSettings()
    for stage in STAGES:
        assert part_name(stage, getattr(settings, stage)) == default_part(stage)


def test_every_part_loads() -> None:
    """Every registered name leads to a class whose defaults hold, and back to the name."""
    names = {stage: list(parts()[stage]) for stage in STAGES}
    assert names.pop("allocate") == list(RULES)
    for stage, named in names.items():
        for name in named:
            kind = part_class(stage, name)
            needed = {
                field.name: 1
                for field in fields(kind)
                if field.default is MISSING and field.default_factory is MISSING
            }
            assert part_name(stage, kind(**needed)) == name


def test_a_part_without_a_name_is_refused() -> None:
    """Settings with an unregistered part cannot be written; the message says how to name it."""
    settings = RunSettings(mask=UniformPrompts())  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"mask is filled by UniformPrompts.*optpo\.parts"):
        settings_to_mapping(settings)


@pytest.fixture
def other_packages(monkeypatch: pytest.MonkeyPatch):
    """Lets a test install entry points."""

    def install(**named: str) -> None:
        entries = [EntryPoint(name, value, "optpo.parts") for name, value in named.items()]
        monkeypatch.setattr("importlib.metadata.entry_points", lambda group: entries)
        parts.cache_clear()

    yield install
    parts.cache_clear()


def test_other_packages_add_parts(other_packages) -> None:
    """A part of another package is used by its name like one of ours."""
    other_packages(**{"allocate.plain": "optpo.voting.fixed:FixedRule"})
    settings = build_settings("optpo", [], ["allocate.part=plain", "allocate.votes=5"])
    assert FixedRule(votes=5) == settings.allocate


def test_entry_points_that_clash_are_refused(other_packages) -> None:
    """Another package cannot take the name of a part, nor invent a stage."""
    other_packages(**{"allocate.fixed": "a:B", "selct.some": "a:B"})
    with pytest.raises(SettingsError) as caught:
        parts()
    assert "takes the name of optpo.voting.fixed:FixedRule" in caught.value.problems[0]
    assert "did you mean select?" in caught.value.problems[1]


def test_a_broken_part_says_so(other_packages) -> None:
    """A part that cannot be imported, or is no dataclass, is a problem of the settings."""
    other_packages(**{"select.gone": "no_such_package:X", "select.odd": "json:dumps"})
    with pytest.raises(SettingsError, match=r"select\.part 'gone'.*cannot be loaded"):
        build_settings("optpo", [], ["select.part=gone"])
    with pytest.raises(SettingsError, match=r"select\.part 'odd'.*is no dataclass"):
        build_settings("optpo", [], ["select.part=odd"])


def test_a_part_that_lacks_what_its_stage_calls_is_refused(other_packages) -> None:
    """Before anything is sampled, by name; a field of settings is as good as a property."""
    other_packages(
        **{
            "objective.prompts": "optpo.training.prompts:UniformPrompts",
            "memory.mask": "optpo.masks.none:NoMask",
            "mask.rule": "optpo.voting.fixed:FixedRule",
            "prompts.rule": "optpo.voting.fixed:FixedRule",
            "select.mask": "optpo.masks.none:NoMask",
        }
    )
    with pytest.raises(SettingsError) as caught:
        build_settings(
            "grpo",
            [],
            ["objective.part=prompts", "memory.part=mask", "mask.part=rule", "prompts.part=rule",
             "select.part=mask"],
        )  # fmt: skip
    found = "\n".join(sorted(caught.value.problems))
    assert re.search(r"part 'mask' .* must have gives and .* and remember to fill memory", found)
    assert re.search(r"part 'prompts' .* must have aggregate and __call__ to fill", found)
    assert re.search(r"part 'rule' .* must have __call__ to fill mask", found)
    assert re.search(r"part 'rule' .* must have needs and .* and choose to fill prompts", found)
    assert re.search(r"part 'mask' .* must have needs to fill select", found)


def test_unknown_recipe_names_the_nearest() -> None:
    """A misspelt recipe is told the right name and all there are."""
    with pytest.raises(SettingsError, match=r"did you mean optpo-ppo.*optpo-warm, .*ttrl"):
        read_recipe("optpo_ppo")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("spo", "spo-single-stream or optpo-spo"),
        ("dapo", "dapo-bytedance or dapo-direct-advantage"),
        ("HAPO", "hapo-heterogeneous or hapo-history"),
        ("reinforce_plus", "reinforce-plus-plus or reinforce-plus-plus-baseline"),
        ("single-stream", "spo-single-stream"),
        ("dppo", "dppo-divergence"),
        ("op", "opo"),  # Six begin so: the nearest.
        ("grop", "grpo"),
    ],
)
def test_a_part_of_a_recipes_name_means_all_that_hold_it(given: str, meant: str) -> None:
    """Names of methods that collide are all told, before a name that is only spelt alike."""
    with pytest.raises(SettingsError, match=f"no recipe '{given}'; did you mean {meant}\\?"):
        read_recipe(given)


@pytest.mark.parametrize("given", ["", "-", "zzz"])
def test_a_recipe_like_no_other_means_none(given: str) -> None:
    """Nothing is guessed; all names follow."""
    with pytest.raises(SettingsError, match=rf"no recipe '{given}'\. There are: adacot"):
        read_recipe(given)


def test_a_recipe_file_is_a_recipe(tmp_path: Path) -> None:
    """A path to the user's own recipe stands where a name can; what it leaves out is empty."""
    file = tmp_path / "mine.yaml"
    file.write_text("settings:\n  allocate: {part: fixed, votes: 9}\n")
    assert (read_recipe(str(file)).name, read_recipe(str(file)).title) == ("mine", "")
    settings = build_settings(str(file))
    assert (settings.recipe, settings.allocate) == ("mine", FixedRule(votes=9))


def test_a_damaged_recipe_names_every_problem(tmp_path: Path) -> None:
    """A recipe file with a wrong frame says what is wrong, all at once."""
    file = tmp_path / "mine.yaml"
    file.write_text("titel: x\nname: [1]\nsettings: 3\n")
    with pytest.raises(SettingsError) as caught:
        read_recipe(str(file))
    assert len(caught.value.problems) == 3
    assert "titel is no key of a recipe; did you mean title?" in caught.value.problems[0]
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_recipe(str(tmp_path / "gone.yaml"))
