"""Rules as they are named on the command line."""

import doctest
from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest

from optpo.errors import SettingsError
from optpo.recipes import registry, rule_specs
from optpo.recipes.rule_specs import read_rule, read_rules, shipped_specs
from optpo.voting import RULES, BetaRule, FixedRule, OptpoRule


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        ("beta", BetaRule()),
        ("beta:confidence=0.9:at_cap=first", BetaRule(confidence=0.9, at_cap="first")),
        ("fixed:votes=16", FixedRule(votes=16)),
        (
            "optpo:statistic=posterior:error=1e-2:candidates=10",
            OptpoRule(statistic="posterior", error=0.01, candidates=10),
        ),
    ],
)
def test_a_specification_names_a_rule(spec, rule):
    """The name, then settings by colons; numbers may be written as 1e-2."""
    assert read_rule(spec) == rule


def test_every_rule_that_needs_no_setting_is_shipped():
    """What is listed works as it comes; frontier needs the file of a fitted policy."""
    specs = shipped_specs()
    assert len(read_rules(specs)) == len(specs)
    assert set(RULES) - set(specs) <= {"frontier"}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("bta", "there is no rule 'bta'; did you mean beta? There are: optpo, fixed, beta"),
        ("", "there is no rule ''. There are: optpo, fixed"),
        ("beta:confidance=0.9", "'confidance' is no setting of it; did you mean confidence? There"),
        ("beta:0.9", "'0.9' must be setting=value, as in beta:confidence=0.95"),
        ("beta:", "'' must be setting=value"),
        ("beta:floor=1:floor=2", "floor is given twice"),
        ("beta:confidence=high", "confidence = high: must be a number"),
        ("beta:confidence=", "confidence = : must be a number"),
        ("beta:confidence=[", "confidence, line 1, column 2: expected the node content"),
        ("beta:confidence=.nan", "confidence = nan: must be above 0.5"),
        ("beta:floor=1.5", "floor = 1.5: must be a whole number of votes"),
        ("optpo:statistic=posteror", "statistic = 'posteror': must be 'runner-up' or 'posterior'"),
    ],
)
def test_a_wrong_specification_is_explained(spec, said):
    """The rule, the setting, and the nearest right name."""
    with pytest.raises(SettingsError) as raised:
        read_rule(spec)
    assert said in str(raised.value)
    name = spec.partition(":")[0]
    assert str(raised.value).startswith(f"rule {spec}: " if name in RULES else "there is no rule")


def test_everything_wrong_is_told_at_once():
    """Several settings of several rules are one message."""
    with pytest.raises(SettingsError) as raised:
        read_rules(["beta:confidence=2:floor=0", "bta", "fixed", "beta:a=1:b"])
    assert [problem.split(" = ")[0] for problem in raised.value.problems[:2]] == [
        "rule beta:confidence=2:floor=0: confidence",
        "rule beta:confidence=2:floor=0: floor",
    ]
    assert len(raised.value.problems) == 5


@dataclass(frozen=True)
class OtherRule:
    """A rule of another package, with a setting that it cannot do without."""

    patience: int
    name: str = "7"


def test_rules_of_other_packages_are_known(monkeypatch: pytest.MonkeyPatch):
    """An entry point allocate.NAME is a rule; a setting without default must be given."""
    entry = EntryPoint("allocate.other", f"{__name__}:OtherRule", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry])
    registry.parts.cache_clear()
    try:
        assert read_rule("other:patience=3") == OtherRule(3)
        # A text that looks like a number is still text.
        assert read_rule("other:patience=3:name=08") == OtherRule(3, "08")
        with pytest.raises(SettingsError, match=r"rule other: it needs patience, as in other:pat"):
            read_rule("other")
        with pytest.raises(SettingsError, match=r"no rule .othr.; did you mean other\?"):
            read_rule("othr")
        assert "other" not in shipped_specs()
    finally:
        monkeypatch.undo()
        registry.parts.cache_clear()


def test_the_example_in_the_docstring_is_true():
    """What the docstring shows is what comes out."""
    result = doctest.testmod(rule_specs)
    assert (result.attempted > 0, result.failed) == (True, 0)
