"""`optpo plan`: as it is called, what it writes, and what it refuses."""

import json
import random
from pathlib import Path

import pytest

from optpo.cli.main import main
from optpo.recipes.rule_specs import read_rule, shipped_specs
from optpo.voting import FrontierPolicy

TRAIN = ("torch", "transformers", "peft", "accelerate", "safetensors")
KEYS = [
    *(
        "target_error",
        "least_error_shown",
        "floor",
        "cap",
        "votes",
        "shares",
        "chosen_on",
        "measured_on",
    ),
    *("least_votes_for_all_shapes", "least_votes_for_these_shapes", "best", "rows"),
]
ROW_KEYS = ["rule", "target"] + [
    name + end for name in ("mean_votes", "error", "undecided") for end in ("", "_low", "_high")
]


@pytest.fixture(autouse=True)
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated votes on 120 questions, of two models each."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    rows = []
    for number in range(120):
        for model in ("one", "two"):
            answers = draw.choices(["7", "8", "9", ""], (6 + number % 3, 2, 1, 1), k=40)
            rows.append({"id": f"q{number}", "model": model, "answers": answers})
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def result(capsys, *arguments: str) -> dict:
    """What `optpo plan ARGUMENTS --json` prints."""
    assert main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_base_install_is_enough(optpo_process, tmp_path: Path) -> None:
    """Recorded votes and all flags, without torch: every key, and a policy that can be read."""
    done = optpo_process(
        *("plan", "--votes", "votes.jsonl", "--error", "0.1", "--rules", "beta,lead:by=2"),
        *("--cap", "24", "--floor", "2", "--orders", "3", "--seed", "1", "--compare", "numeric"),
        *("--policy", "policy.json", "--json"),
        missing=TRAIN,
    )
    assert done.returncode == 0, done.stderr
    assert not set(done.stderr.splitlines()[-1].split()) & {*TRAIN, "matplotlib", "datasets"}
    plan = json.loads(done.stdout)
    assert list(plan) == KEYS
    assert (plan["floor"], plan["cap"], plan["votes"]) == (2, 24, ["votes.jsonl"])
    assert (plan["chosen_on"], plan["measured_on"], plan["shares"]) == (120, 120, None)
    assert [list(row) for row in plan["rows"]] == [ROW_KEYS] * 3
    names = {row["rule"].split(":")[0] for row in plan["rows"]}
    assert names == {"beta", "lead", "frontier"}
    assert FrontierPolicy.load(tmp_path / "policy.json").cap == 24


def test_what_is_found_can_be_replayed(capsys, tmp_path: Path) -> None:
    """Every rule is printed as `replay --rules` takes it, the learnt one with its file."""
    plan = result(capsys, "--votes", "votes.jsonl", "--error", "0.1", "--policy", "policy.json")
    specs = [row["rule"] for row in plan["rows"]]
    assert len(specs) == len(shipped_specs()) + 1
    assert "frontier:file=policy.json:cap=40" in specs
    assert main(["replay", "votes.jsonl", "--rules", ",".join(specs), "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    votes = {row["rule"]: row["mean_votes"] for row in rows}
    best = plan["rows"][specs.index(plan["best"])]
    assert best["target"] == "kept"
    assert best["mean_votes_low"] < votes[plan["best"]] < best["mean_votes_high"]


def test_assumed_shares_are_simulated(capsys) -> None:
    """The lead that the formula asks for, at its votes, within the bounds."""
    plan = result(
        capsys, "--shares", "0.6,0.4", "--error", "0.1", "--rules", "lead", "--cap", "200"
    )
    assert (plan["shares"], plan["votes"], plan["chosen_on"]) == ([[0.6, 0.4]], None, 10_000)
    (row,) = plan["rows"]
    assert (row["rule"], row["target"], plan["best"]) == ("lead:by=6", "kept", "lead:by=6")
    assert row["mean_votes"] == pytest.approx(25.2, abs=0.5)
    assert plan["least_votes_for_these_shapes"] < row["mean_votes"]
    assert plan["least_votes_for_these_shapes"] < plan["least_votes_for_all_shapes"]


def test_shares_can_be_kinds_of_question(capsys) -> None:
    """Easy and hard questions cost what lies between the two."""
    flags = ("--error", "0.1", "--rules", "lead:by=3")
    easy, hard, both = (
        result(capsys, *shares, *flags)["least_votes_for_these_shapes"]
        for shares in (
            ("--shares", "0.9"),
            ("--shares", "0.5,0.3"),
            ("--shares", "0.9", "--shares", "0.5,0.3"),
        )
    )
    assert both == pytest.approx((easy + hard) / 2)


def test_the_table_says_what_was_chosen_and_what_it_costs(capsys) -> None:
    """On standard output: the target, a line a rule, the best and the bounds."""
    assert main(["plan", "--shares", "0.7,0.2", "--rules", "beta,fixed:votes=3"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "at most 5.0 % of decided labels wrong, floor 1, cap 64: levels chosen on 10000" in out
    assert "\n beta:confidence=0." in out
    assert "\n fixed:votes=" in out
    assert "fixed:votes=3 " not in out
    assert "The fewest votes of those that kept it: beta:confidence=" in out
    assert "whatever the shares of its answers: " in out


def test_a_target_out_of_reach_is_said_to_be(capsys) -> None:
    """Two answers a hair apart and five votes: no rule reaches 1 %."""
    assert main(["plan", "--shares", "0.5,0.48", "--cap", "5", "--error", "0.01"]) == 0
    out = capsys.readouterr().out
    assert out.count("not reached") == len(shipped_specs())
    assert "No rule reached it and kept it" in out


def test_too_few_questions_for_a_target_are_said_to_be(capsys, tmp_path: Path) -> None:
    """Twenty unanimous questions cannot show an error of 1 %, and the output says what they can."""
    rows = [{"id": f"q{number}", "answers": ["7"] * 8} for number in range(20)]
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["plan", "--votes", str(path), "--error", "0.01"]) == 0
    out = capsys.readouterr().out
    assert "With 10 questions to choose on, no error below 13.9 % can be told from luck" in out


def test_the_same_seed_gives_the_same_plan(capsys) -> None:
    """And another seed other votes."""
    flags = ("--shares", "0.6,0.2", "--rules", "beta")
    first, again, other = (result(capsys, *flags, "--seed", seed) for seed in "001")
    assert first == again
    assert first["rows"] != other["rows"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "either assumed votes, as in --shares 0.5,0.2,0.1, or recorded ones"),
        (["--shares", "0.5", "--votes", "votes.jsonl"], "either assumed votes"),
        (["--shares", "0.5,x"], "--shares 0.5,x: must be numbers by commas"),
        (["--shares", "0.8,0.4"], "shares 0.8,0.4: must be above 0 each, and sum to 1 at most"),
        (["--shares", "0.3,0.3"], "two answers share the lead"),
        (["--shares", "0.5", "--error", "0.7"], "--error is 0.7; it must be above 0 and below 0.5"),
        (["--shares", "0.5", "--cap", "0", "--orders", "0"], "--cap is 0; it must be 1 or more"),
        (["--shares", "0.5", "--floor", "65"], "--floor is 65; it must not be above --cap, 64"),
        (
            ["--votes", "votes.jsonl", "--floor", "50"],
            "the shortest recorded question has 40 votes",
        ),
        (["--votes", "gone.jsonl"], "gone.jsonl cannot be read"),
        (["--shares", "0.5", "--rules", "bata"], "there is no rule 'bata'; did you mean beta?"),
        (["--shares", "0.5", "--policy", "p.json"], "--policy is learnt from recorded votes"),
        (["--votes", "votes.jsonl", "--policy", "no/p.json"], "there is no folder no"),
    ],
)
def test_a_wrong_call_exits_2(capsys, tmp_path: Path, flags: list[str], said: str) -> None:
    """What is wrong is told on standard error, and nothing is written."""
    assert main(["plan", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("optpo: ")
    assert said in err
    assert [path.name for path in tmp_path.iterdir()] == ["votes.jsonl"]


def test_a_single_question_has_no_other_half(capsys, tmp_path: Path) -> None:
    """Choosing and measuring takes two questions."""
    (tmp_path / "one.jsonl").write_text(json.dumps({"id": "q", "answers": ["7", "8", "7"]}))
    assert main(["plan", "--votes", "one.jsonl"]) == 2
    assert "two halves need questions of two ids or more, found 1" in capsys.readouterr().err


def test_settings_of_a_rule_are_kept_and_its_level_is_searched(capsys) -> None:
    """A level in the specification is only a start; other settings stay."""
    spec = "optpo:statistic=posterior:error=0.4"
    (row,) = result(capsys, "--shares", "0.6,0.2", "--rules", spec)["rows"]
    rule = read_rule(row["rule"])
    assert rule.statistic == "posterior"
    assert rule.error < 0.4
