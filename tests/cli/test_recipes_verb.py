"""`optpo recipes`: the list, a recipe's page, and the ranges it gives."""

import json
import re
from dataclasses import dataclass
from typing import Literal

import pytest

from optpo.cli.main import main
from optpo.cli.recipe_page import differences
from optpo.cli.setting_ranges import ranges
from optpo.errors import SettingsError
from optpo.recipes import read_recipe, recipe_names


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["recipes", *arguments]) == 0
    return capsys.readouterr().out


def test_every_recipe_is_listed_on_a_line_under_its_kind(capsys) -> None:
    """Name and title, in a width that a terminal has; those without labels stand apart."""
    lines = printed(capsys).splitlines()
    found = [line.split()[0] for line in lines if line.startswith("  ")]
    assert sorted(found) == recipe_names()
    assert max(map(len, lines)) <= 110
    heads = [line for line in lines if line and not line.startswith(("  ", "`"))]
    assert [("adapt" in head, "train" in head) for head in heads] == [
        (False, True),
        (False, True),
        (True, False),
    ]
    assert {row["family"] for row in json.loads(printed(capsys, "--json"))} == {
        "reference",
        "papers",
        "without_labels",
    }


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_explained(capsys, name: str) -> None:
    """Its page shows stages, every setting with value and range, and marks the recipe's own."""
    shown = json.loads(printed(capsys, name, "--json"))
    out = printed(capsys, name)
    assert shown["paper"] in out
    assert re.search(r"^    update\.decay +none +none \| cosine$", out, re.MULTILINE)
    for section, values in shown["resolved"].items():
        for key in values if isinstance(values, dict) else ():
            assert f"{section}.{key}" in out
    for section, values in shown["settings"].items():
        for key in values if isinstance(values, dict) else ():
            assert re.search(rf"^  \* {section}\.{key} ", out, re.MULTILINE)
    assert " ".join(read_recipe(name).description.split()) in " ".join(out.split())
    assert "`pass_tokens` bounds the tokens of one forward pass" in " ".join(out.split())
    assert [row["stage"] for row in shown["stages"]][-1] == "objective"
    for row in shown["stages"]:
        assert row["part"] == shown["resolved"][row["stage"]]["part"]
        assert row["does"].strip()
        assert re.search(rf"^  {row['stage']} +{row['part']} ", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 110


def test_what_a_docstring_says_of_one_setting_stands_under_it(capsys) -> None:
    """With its range, which is that of the class's own check."""
    assert re.search(
        r"allocate\.p0 +0\.5 +above 0\.25, below 1\n +probability in \(1/candidates, 1\)",
        printed(capsys, "optpo"),
    )


def test_a_recipe_says_how_it_differs_from_grpo(capsys) -> None:
    """Side by side; grpo itself is not compared."""
    out = printed(capsys, "dr-grpo")
    assert "How it differs from grpo" in out
    assert re.search(r"^  advantage\.scale +none +std$", out, re.MULTILINE)
    assert "How it differs" not in printed(capsys, "grpo")
    assert json.loads(printed(capsys, "grpo", "--json"))["differs_from_grpo"] == {}


def test_a_recipe_file_of_ones_own_is_explained(capsys, tmp_path) -> None:
    """One whose settings are those of grpo says so."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("title: mine\nsettings: {allocate: {part: fixed, votes: 8}}\n")
    assert re.search(r"^  reward\.part +majority +verified$", printed(capsys, str(mine)), re.M)


def test_differences_name_the_part_and_what_both_have() -> None:
    """Of settings that only one of two parts has, those that the recipe says."""
    here = {"steps": 3, "recipe": "a", "objective": {"part": "x", "clip": 0.2, "own": 1}}
    there = {"steps": 3, "recipe": "b", "objective": {"part": "y", "clip": 0.3, "other": 2}}
    other = [("objective.part", "x", "y"), ("objective.clip", 0.2, 0.3)]
    assert differences(here, there, {}) == other
    said = {"objective": {"own": 1}}
    assert differences(here, there, said) == [*other, ("objective.own", 1, None)]
    there["objective"]["part"] = "x"
    assert differences(here, there, {}) == [
        ("objective.clip", 0.2, 0.3),
        ("objective.own", 1, None),
        ("objective.other", None, 2),
    ]
    assert differences(here, here, {}) == []


@dataclass(frozen=True)
class Settings:
    """One setting of every kind of range; none of the numbers are landmarks of the search."""

    share: float = 0.5
    open_share: float = 0.5
    half_open: float = 0.7
    positive: float = 3.0
    low: float = -7.5
    odd: float = 0.37
    off_or_above_one: float = 0.0
    any_number: float = 0.0
    count: int = 5
    small: int = 5
    divisor: int = 6
    seed: int = 0
    limit: int | None = None
    word: Literal["one", "two"] = "one"
    flag: bool = True
    text: str = ""
    several: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        holds = (
            0 <= self.share <= 1,
            0 < self.open_share < 1,
            0.625 <= self.half_open < 1,
            self.positive > 0,
            self.low <= -7.25,
            0.125 < self.odd <= 41.5,
            self.off_or_above_one == 0 or self.off_or_above_one > 1,
            self.count >= 1,
            1 <= self.small <= 37,
            self.divisor in (1, 2, 3, 6),
            self.limit is None or self.limit >= 3,
        )
        if not all(holds):
            raise SettingsError(["no"])


def test_ranges_are_found_by_trying() -> None:
    """Open and closed ends, gaps, and numbers that are nowhere written down."""
    assert ranges(Settings()) == {
        "share": "0 to 1",
        "open_share": "above 0, below 1",
        "half_open": "0.625 or more, below 1",
        "positive": "above 0",
        "low": "-7.25 or less",
        "odd": "above 0.125, 41.5 at most",
        "off_or_above_one": "0, or above 1",
        "any_number": "any number",
        "count": "1 or more",
        "small": "1 to 37",
        "divisor": "1, 2, 3, 6",
        "seed": "any whole number",
        "limit": "3 or more, or null",
        "word": "one | two",
        "flag": "true or false",
        "text": "text",
        "several": "a list",
    }
