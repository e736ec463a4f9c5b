"""From recipe, files and assignments to settings, and to a mapping and back."""

from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from optpo.advantages.centred import CentredAdvantage
from optpo.advantages.gae import GaeAdvantage
from optpo.data import AnswerSettings
from optpo.errors import SettingsError
from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.critic import CriticLoss
from optpo.objectives.penalty import KlPenalty
from optpo.objectives.supervised import SupervisedObjective
from optpo.recipes import build_settings, settings_from_mapping, settings_to_mapping
from optpo.sampling.engine import SampleSettings
from optpo.selection.decided import AgreeingSelection, DecidedSelection
from optpo.training.settings import DataSettings, LoraSettings, ModelSettings, RunSettings
from optpo.training.update_settings import UpdateSettings
from optpo.voting import FixedRule, OptpoRule


def assigned(*assignments: str, recipe: str = "optpo") -> RunSettings:
    """The settings of a recipe with these assignments."""
    return build_settings(recipe, [], assignments)


def problems(*assignments: str) -> list[str]:
    """What is wrong with these assignments."""
    with pytest.raises(SettingsError) as caught:
        assigned(*assignments)
    return caught.value.problems


text = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(str.strip)
positive = st.floats(1e-300, 1e300)
whole = st.integers(1, 10**12)
run_settings = st.builds(
    RunSettings,
    recipe=text,
    seed=st.integers(),
    steps=whole,
    model=st.builds(
        ModelSettings,
        name=st.none() | text,
        device=text,
        trust_remote_code=st.booleans(),
        lora=st.builds(LoraSettings, rank=whole, alpha=positive),
    ),
    data=st.builds(
        DataSettings,
        questions=text,
        unseen=st.none() | text,
        limit=st.none() | whole,
        answers=st.builds(AnswerSettings, marker=text),
    ),
    allocate=st.builds(FixedRule, votes=st.integers(3, 99))
    | st.builds(OptpoRule, error=st.floats(1e-9, 0.49), candidates=st.integers(3, 99)),
    sample=st.builds(SampleSettings, stop=st.lists(text).map(tuple)),
    select=st.builds(DecidedSelection, limit=whole) | st.builds(AgreeingSelection),
    advantage=st.builds(GaeAdvantage, lam=st.floats(0, 1), whiten=st.booleans())
    | st.builds(CentredAdvantage, centre=st.sampled_from(["mean", "leave-one-out"])),
    objective=st.builds(ClippedObjective, clip_high=positive) | st.builds(SupervisedObjective),
    penalty=st.builds(KlPenalty, coefficient=positive, weighted=st.booleans()),
    critic=st.builds(CriticLoss, clip=positive),
    update=st.builds(UpdateSettings, learning_rate=positive, epochs=whole),
    audit=st.floats(0, 1),
    trackers=st.lists(text).map(tuple),
)


@given(run_settings)
def test_round_trip_through_yaml(settings: RunSettings) -> None:
    """Settings written to config.yaml, as PyYAML does, are read back exactly as they were."""
    mapping = settings_to_mapping(settings)
    written = yaml.safe_dump(mapping, sort_keys=False)
    assert yaml.safe_load(written) == mapping
    assert settings_from_mapping(yaml.safe_load(written)) == settings


def test_the_mapping_is_complete() -> None:
    """Every setting is in the mapping with its part, so that a later default changes no old run."""
    mapping = settings_to_mapping(RunSettings())
    assert list(mapping) == list(RunSettings.__dataclass_fields__)
    assert list(mapping["allocate"]) == ["part", *(field.name for field in fields(OptpoRule))]
    assert mapping["model"]["lora"] == {"rank": 0, "alpha": 32.0}


def test_later_layers_win(tmp_path: Path) -> None:
    """Recipe, then each file in order, then assignments; what a layer leaves out stays."""
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("steps: 3\nseed: 3\nupdate: {epochs: 3, minibatches: 3}\n")
    # A whole recipe may be a layer too.
    two.write_text("name: two\nsettings:\n  seed: 4\n  update:\n    minibatches: 4\n")
    settings = build_settings("ttrl", [one, two], ["update.minibatches=5"])
    assert (settings.steps, settings.seed) == (3, 4)
    recipe = build_settings("ttrl")
    assert settings.update == replace(recipe.update, epochs=3, minibatches=5)
    assert DecidedSelection(limit=32) == settings.select
    assert build_settings("ttrl", [two, one]).seed == 3


def test_an_empty_section_changes_nothing(tmp_path: Path) -> None:
    """A section whose lines are commented out, and an empty file, are no settings and no error."""
    file = tmp_path / "config.yaml"
    file.write_text("select:\n  # limit: 3\nmodel:\n")
    assert build_settings("ttrl", [file]) == build_settings("ttrl")
    file.write_text("# nothing\n")
    assert build_settings("ttrl", [file]) == build_settings("ttrl")


def test_another_part_drops_the_settings_of_the_part_before() -> None:
    """ttrl's limit of 32 belongs to its selection, and does not move to another one."""
    assert AgreeingSelection() == assigned("select.part=agreeing", recipe="ttrl").select
    assert OptpoRule() == assigned("allocate.part=optpo", recipe="ttrl").allocate


def test_naming_the_same_part_keeps_its_settings(tmp_path: Path) -> None:
    """A layer that says again which part fills a stage changes only what it says besides."""
    assert DecidedSelection(limit=32) == assigned("select.part=decided", recipe="ttrl").select
    assert assigned("select.part=decided") == assigned()
    file = tmp_path / "config.yaml"
    file.write_text("allocate: {floor: 9}\n")
    settings = build_settings("optpo-ppo", [file], ["allocate.part=optpo"])
    assert OptpoRule(floor=9) == settings.allocate


def test_a_part_and_its_settings_come_in_any_order() -> None:
    """Assignments stand beside each other: the part may be named after its settings."""
    one = assigned("allocate.part=fixed", "allocate.votes=5")
    assert one == assigned("allocate.votes=5", "allocate.part=fixed")
    assert FixedRule(votes=5) == one.allocate


def test_all_problems_at_once(tmp_path: Path) -> None:
    """Files, assignments, unknown keys, wrong types and ranges are reported in one error."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1\nb: 2\n")
    with pytest.raises(SettingsError) as caught:
        build_settings(
            "otpo",
            [bad, tmp_path / "gone.yaml"],
            [
                "steps",
                "stepz=3",
                "steps=0",
                "update.learning_rate=fast",
                "update.epochs=0",
                "allocate.p0=1.5",
                "allocate.candidates=1",
                "model.lora.rank=-1",
                "select.part=decidd",
            ],
        )
    found = sorted(caught.value.problems)
    expected = [
        "--set 'steps'; it must be like",
        f"{bad}, line 2, column 2: ",
        f"{tmp_path / 'gone.yaml'} cannot be read: No such file or directory",
        "allocate.candidates = 1: must be a whole number, 2 or more",
        "allocate.p0 = 1.5: must be above",
        "model.lora.rank is -1; it must be 0",
        "select.part is 'decidd'; it must be one of decided, agreeing, all; did you mean decided?",
        "steps is 0; it must be 1 or more",
        "stepz is no setting; did you mean steps? There are: recipe, seed, steps, ",
        "there is no recipe 'otpo'; did you mean optpo?",
        "update.epochs is 0; it must be 1 or more",
        "update.learning_rate is 'fast'; it must be a number",
    ]
    # Epochs could only be checked with a learning rate: the second look must find it.
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


def test_no_problem_follows_from_another() -> None:
    """A key with a wrong type is not also reported for what its default would do."""
    assert problems("allocate.floor=x", "allocate.cap=4") == [
        "allocate.floor is 'x'; it must be a whole number"
    ]


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("allocate.flor=3", "allocate.flor is no setting; did you mean floor?"),
        ("learning_rate=1", "learning_rate is no setting; did you mean update.learning_rate?"),
        ("Steps=3", "Steps is no setting; did you mean steps?"),
        ("allocate.votes=3", "allocate.votes is no setting; it belongs to allocate.part fixed."),
        ("model.lora.rnak=3", "model.lora.rnak is no setting; did you mean rank?"),
        ("zzz=3", "zzz is no setting. There are: recipe, "),
        ("allocate=fixed", "allocate is 'fixed'; it must be a section such as {part: fixed}"),
        ("update=3", "update is 3; it must be a section of settings"),
        ("steps=true", "steps is true; it must be a whole number"),
        ("steps=1.5", "steps is 1.5; it must be a whole number"),
        ("update.learning_rate=.inf", "update.learning_rate is inf; it must be a finite number"),
        ("update.learning_rate=.nan", "update.learning_rate is nan; it must be a finite number"),
        ("update.learning_rate=", "update.learning_rate is null; it must be a number"),
        ("data.limit=many", "data.limit is 'many'; it must be a whole number, or null"),
        ("data.unseen=7", "data.unseen is 7; it must be text; between quotes it is: '7', or null"),
        ("sample.stop=END", "sample.stop is 'END'; it must be a list; with one entry it is: [END]"),
        ("sample.stop=[1]", "sample.stop is [1]; it must be a list, each entry text"),
        ("update.decay=cosin", "update.decay is 'cosin'; it must be one of none, cosine; did you"),
        ("model.chat=no", "model.chat is 'no'; it must be one of auto, always, never"),
        ("model.trust_remote_code=2", "model.trust_remote_code is 2; it must be true or false"),
        ("sample.stop=['']", "sample.stop holds an empty string"),
        ("allocate.part=[a]", "allocate.part is ['a']; it must be one of optpo, fixed"),
        ("a..b=1", "--set 'a..b=1'; it must be like update.learning_rate=1e-5"),
        ("steps=[", "--set steps=[, line 1, column 2: "),
        ("update={epochs: 1, epochs: 2}", "--set update={epochs: 1, epochs: 2}, line 1, column 13"),
    ],
)
def test_a_message_says_what_was_given_and_what_it_must_be(assignment, expected) -> None:
    """One mistake is one message, with the full key, the value, and the way out."""
    (problem,) = problems(assignment)
    assert problem[: len(expected)] == expected


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e-5", 1e-5), ("1E-5", 1e-5), ("'1e-5'", 1e-5), (".5", 0.5), ("1", 1.0), ("+2.5", 2.5)],
)
def test_numbers_as_people_write_them(written: str, value: float) -> None:
    """1e-5, which PyYAML alone reads as text, is a number, and always a float."""
    rate = assigned(f"update.learning_rate={written}").update.learning_rate
    assert (rate, type(rate)) == (value, float)


@pytest.mark.parametrize(
    ("written", "value"),
    [("010", 10), ("1e3", 1000), ("0x10", 16), ("0o10", 8), ("7.0", 7), ("'12'", 12)],
)
def test_whole_numbers_as_people_write_them(written: str, value: int) -> None:
    """010 is ten and 1e3 a thousand, and always an int."""
    steps = assigned(f"steps={written}").steps
    assert (steps, type(steps)) == (value, int)


@pytest.mark.parametrize(
    ("written", "value"),
    [("yes", True), ("on", True), ("true", True), ("no", False), ("OFF", False)],
)
def test_yes_and_no(written: str, value: bool) -> None:
    """Where true or false is meant, yes and no are understood ..."""
    assert assigned(f"model.trust_remote_code={written}").model.trust_remote_code is value


@pytest.mark.parametrize("written", ["no", "off", "y", "1:30", "2026-01-01", "1_0", "="])
def test_text_stays_text(written: str) -> None:
    """... and where text is meant, what YAML 1.1 takes for something else stays text."""
    assert assigned(f"data.answers.marker={written}").data.answers.marker == written


def test_own_questions_are_not_watched_with_the_embedded_ones() -> None:
    """The embedded unseen questions go with the embedded model and questions only."""
    assert assigned().data.unseen == "unseen"
    assert assigned("data.questions=unseen").data.unseen == "unseen"
    assert assigned("data.questions=mine.jsonl").data.unseen is None
    assert assigned("model.name=mine").data.unseen is None
    assert assigned("model.name=mine", "data.unseen=unseen").data.unseen == "unseen"
    assert build_settings("optpo", [], [], {"model.name": "mine"}).data.unseen is None


def test_settings_of_the_embedded_model_are_its_own() -> None:
    """What suits the embedded model goes below every layer, and away with another model."""
    suits = yaml.safe_load((files("optpo.data") / "embedded" / "settings.yaml").read_text())
    rate = float(suits["update"]["learning_rate"])
    assert assigned().update.learning_rate == rate
    assert assigned("update.learning_rate=1e-9").update.learning_rate == 1e-9
    assert assigned("model.name=mine").update == UpdateSettings()


def test_a_flag_and_an_assignment_for_one_setting_are_refused() -> None:
    """A value given twice is refused, as one of the two would be ignored."""
    with pytest.raises(SettingsError, match="steps is given twice"):
        build_settings("optpo", [], ["steps=3"], {"steps": 4})
    assert build_settings("optpo", [], ["steps=3"], {"seed": 4}) == replace(
        assigned("steps=3"), seed=4
    )


def test_flags_are_values_and_not_yaml() -> None:
    """A path that looks like a number or like YAML stays the text it is."""
    name = "2024: [x"
    assert build_settings("optpo", [], [], {"model.name": name}).model.name == name


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"steps: 3\nsteps: 4\n", "line 2, column 1: the key 'steps' is there twice"),
        (b"steps: 3\n  seed: 4\n", "line 2, column 7"),
        (b"\tsteps: 3\n", "line 1, column 1"),
        (b"\xff", "is not UTF-8 at byte 0"),
        (b"- steps\n", "it must hold settings as key: value"),
        (b"steps: !!python/object/apply:os.getcwd []\n", "line 1, column 8"),
        (b"steps: \x00\n", "special characters are not allowed"),
    ],
)
def test_a_bad_file_says_where(tmp_path: Path, content: bytes, expected: str) -> None:
    """A file that is no YAML is refused with its name, line and column."""
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        build_settings("optpo", [file])
    (problem,) = caught.value.problems
    assert str(file) in problem
    assert expected in problem


def test_what_was_added_to_one_objective_is_added_to_any() -> None:
    """The penalty and the critic's loss have sections of their own; their old keys are errors."""
    settings = assigned("penalty.coefficient=0.1", "objective.part=pairwise")
    assert KlPenalty(0.1) == settings.penalty
    assert "reference" in settings.needs
    for key in ("kl_coefficient", "value_clip"):
        (problem,) = problems(f"objective.{key}=0.1")
        assert f"objective.{key} is no setting" in problem
    assert problems("critic.clip=-1") == ["critic.clip is -1.0; it must be 0 (off) or more"]
