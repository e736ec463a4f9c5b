"""`optpo replay`: as it is called, what it writes, and what it refuses."""

import json
import random
from pathlib import Path

import pytest

from optpo.cli.main import main
from optpo.recipes.rule_specs import shipped_specs

TRAIN = ("torch", "transformers", "peft", "accelerate", "safetensors")
KEYS = [
    *("file", "rule", "cap", "floor", "questions", "mean_votes", "agreement", "accuracy"),
    *("undecided", "mean_tokens", "saved", "claimed_error"),
    *("decided_agreement", "decided_accuracy"),
]


@pytest.fixture(autouse=True)
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files of simulated votes: one with everything, one with answers alone."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(0)
    full = []
    for number in range(30):
        answers = draw.choices(["7", "8", "9", ""], (5 + number % 3, 3, 2, 1), k=80)
        tokens = [draw.randrange(10, 500) for _ in answers]
        full.append({"id": f"q{number}", "answers": answers, "gold": "7", "tokens": tokens})
    bare = [{"id": row["id"], "answers": row["answers"][:20]} for row in full]
    for name, rows in (("full.jsonl", full), ("bare.jsonl", bare)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def result(capsys, *arguments: str) -> dict:
    """What `optpo replay ARGUMENTS --json -` writes."""
    assert main(["replay", *arguments, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_base_install_is_enough(optpo_process, tmp_path: Path) -> None:
    """All flags at once without torch, which is not even looked for; the JSON has every key."""
    done = optpo_process(
        *("replay", "full.jsonl", "bare.jsonl"),
        *("--rules", "beta:confidence=0.95,lead:by=5,curtailed"),
        *("--cap", "64", "--floor", "1", "--orders", "8", "--seed", "0", "--json", "out.json"),
        missing=TRAIN,
    )
    assert done.returncode == 0, done.stderr
    assert not set(done.stderr.splitlines()[-1].split()) & {*TRAIN, "matplotlib", "datasets"}
    written = json.loads((tmp_path / "out.json").read_text())
    assert list(written) == ["rows", "calibration"]
    assert [list(row) for row in written["rows"]] == [KEYS] * 6
    of = {(row["file"], row["rule"]): row for row in written["rows"]}
    rules = ("beta:confidence=0.95", "lead:by=5", "curtailed")
    assert list(of) == [(file, rule) for file in ("full.jsonl", "bare.jsonl") for rule in rules]
    beta, bare = of["full.jsonl", rules[0]], of["bare.jsonl", rules[0]]
    assert (beta["cap"], beta["floor"], beta["questions"]) == (64, 1, 30)
    # The cap is at most the votes of the shortest question, and the row says so.
    assert bare["cap"] == 20
    assert 1 < beta["mean_votes"] < 64
    assert beta["saved"] == pytest.approx(1 - beta["mean_votes"] / 64)
    assert 0 < beta["claimed_error"] <= 0.05
    assert beta["mean_tokens"] > 10 * beta["mean_votes"]
    assert (
        bare["accuracy"]
        is bare["mean_tokens"]
        is of["full.jsonl", "lead:by=5"]["claimed_error"]
        is None
    )
    # The table is on standard output.
    assert "full.jsonl: 30 questions in 8 orders, floor 1, cap 64" in done.stdout
    assert f" {beta['mean_votes']:.2f} " in done.stdout


def test_without_rules_every_shipped_rule_is_replayed(capsys) -> None:
    """Each as it comes; the plain vote takes all of the cap, whatever its own default."""
    rows = result(capsys, "full.jsonl", "--cap", "80", "--orders", "2")["rows"]
    assert [row["rule"] for row in rows] == shipped_specs()
    (fixed,) = (row for row in rows if row["rule"] == "fixed")
    assert (fixed["mean_votes"], fixed["saved"], fixed["agreement"]) == (80, 0, 1)
    assert main(["replay", "full.jsonl", "--orders", "1"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n {spec} " in out for spec in shipped_specs())


def test_settings_reach_the_rules(capsys) -> None:
    """Settings by colons, rules by commas, space and doubles between them ignored."""
    specs = "fixed:votes=16, fixed:votes=3,lead:by=1,fixed:votes=3"
    rows = result(capsys, "full.jsonl", "--rules", specs, "--floor", "4")["rows"]
    assert [row["rule"] for row in rows] == ["fixed:votes=16", "fixed:votes=3", "lead:by=1"]
    assert [row["mean_votes"] for row in rows[:2]] == [16, 4]
    assert rows[2]["floor"] == 4
    assert rows[2]["mean_votes"] >= 4


def test_the_same_seed_gives_the_same_rows(capsys) -> None:
    """And another seed others; with one order the seed changes nothing."""
    first, again, other = (
        result(capsys, "full.jsonl", "--rules", "beta", "--seed", seed) for seed in "001"
    )
    assert first == again
    assert first["rows"] != other["rows"]
    alone = (
        result(capsys, "full.jsonl", "--rules", "beta", "--orders", "1", "--seed", seed)
        for seed in "01"
    )
    assert len({json.dumps(rows) for rows in alone}) == 1


def test_answers_are_compared_as_asked(capsys, tmp_path: Path) -> None:
    """By text 1/2 and 0.5 split the vote; by number they lead it, and are right."""
    line = {"id": "q", "answers": ["1/2", "3", "0.5", "3", ".50"], "gold": "0.5"}
    (tmp_path / "halves.jsonl").write_text(json.dumps(line))
    for compare, accuracy in (("exact", 0.0), ("numeric", 1.0)):
        call = ["halves.jsonl", "--rules", "fixed", "--orders", "1", "--compare", compare]
        assert result(capsys, *call)["rows"][0]["accuracy"] == accuracy


def test_calibration_is_in_the_json_and_in_a_table(capsys) -> None:
    """Each rule's claim, and claimed against observed error by bin with its interval."""
    call = ["full.jsonl", "--rules", "beta:confidence=0.8,curtailed,fixed", "--orders", "4"]
    beta, curtailed, fixed = result(capsys, *call)["calibration"]
    assert (beta["claims"], curtailed["claims"], fixed["claims"]) == ("mode", "full vote", None)
    assert fixed["bins"] == []
    assert len(beta["bins"]) >= 1
    for row in beta["bins"]:
        low, high = 1 - row["confidence_high"], 1 - row["confidence_low"]
        assert low - 1e-9 <= row["claimed_error"] <= high + 1e-9
        assert row["error_low"] - 1e-9 <= row["observed_error"] <= row["error_high"] + 1e-9
        assert row["questions"] <= 30
        assert row["questions"] <= row["labels"] <= 4 * row["questions"]
    # The full vote cut short without loss errs in nothing.
    assert [row["observed_error"] for row in curtailed["bins"]] == [0.0] * len(curtailed["bins"])
    assert main(["replay", *call, "--calibration"]) == 0
    out = capsys.readouterr().out
    assert "beta:confidence=0.8, full.jsonl: claims the mode; an error is a label that" in out
    assert "curtailed, full.jsonl: claims the full vote; an error is a label that" in out
    assert "fixed, full.jsonl: claims nothing about errors" in out
    assert "labels of one question count as copies of a single one" in out
    assert main(["replay", *call]) == 0
    assert "claims the mode" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "start"), [("p.png", b"\x89PNG"), ("p.svg", b"<?xml"), ("p.PDF", b"%PDF")]
)
def test_the_plot_is_drawn(capsys, tmp_path: Path, name: str, start: bytes) -> None:
    """By its suffix, the same each time, with a curve for each rule and the limit."""
    call = ["replay", "full.jsonl", "bare.jsonl", "--rules", "beta:confidence=0.9,curtailed,beta"]
    drawn = []
    for _ in range(2):
        assert main([*call, "--cap", "12", "--orders", "2", "--plot", name]) == 0
        drawn.append((tmp_path / name).read_bytes())
    assert drawn[0].startswith(start)
    assert drawn[0] == drawn[1]
    if name.endswith("svg"):
        text = drawn[0].decode()
        assert text.count(">beta</text>") == text.count(">curtailed</text>") == 2
        assert text.count(">dynamic-programming limit</text>") == 2
        assert "beta:confidence" not in text


def test_a_single_question_has_no_limit_to_draw(capsys, tmp_path: Path) -> None:
    """There is no other half to learn from: the curves are drawn alone."""
    (tmp_path / "one$.jsonl").write_text('{"id": "q", "answers": ["1", "2", "1", "1"]}')
    assert main(["replay", "one$.jsonl", "--rules", "lead", "--plot", "p.svg"]) == 0
    text = (tmp_path / "p.svg").read_text()
    assert ">lead</text>" in text
    assert ">one$.jsonl</text>" in text
    assert "limit" not in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "replay needs recorded votes: optpo replay FILE ..."),
        (["gone.jsonl"], "gone.jsonl cannot be read: No such file or directory"),
        (["full.jsonl", "--rules", "bta"], "there is no rule 'bta'; did you mean beta?"),
        (["full.jsonl", "--rules", "lead:bye=5"], "'bye' is no setting of it; did you mean by?"),
        (["full.jsonl", "--rules", "beta:confidence=2"], "confidence = 2: must be above 0.5"),
        (["full.jsonl", "--rules", "beta,"], "there is no rule ''"),
        (["full.jsonl", "--rules", "frontier"], "rule frontier: it needs file"),
        (["full.jsonl", "--cap", "0"], "--cap is 0; it must be 1 or more"),
        (["full.jsonl", "--floor", "9", "--cap", "8"], "--floor is 9; it must not be above --cap"),
        (["bare.jsonl", "--floor", "21"], "bare.jsonl: floor = 21: must not be above the 20 votes"),
        (["full.jsonl", "--orders", "0"], "--orders is 0; it must be 1 or more"),
        (["full.jsonl", "--cap", "many"], "many"),
        (["full.jsonl", "--plot", "p.gif"], "--plot is p.gif; it must end in .png, .svg, .pdf"),
        (["full.jsonl", "--plot", "gone/p.png"], "--plot gone/p.png: there is no folder gone"),
        (["full.jsonl", "--json", "gone/o.json"], "--json gone/o.json: there is no folder gone"),
        (["full.jsonl", "broken.jsonl"], "broken.jsonl, line 2: no 'answers'; the keys here are"),
    ],
)
def test_wrong_calls_and_inputs_exit_2(capsys, tmp_path: Path, arguments, said: str) -> None:
    """One message that says where, nothing on standard output, nothing written."""
    (tmp_path / "broken.jsonl").write_text('{"id": "a", "answers": ["1"]}\n{"id": "b"}\n')
    before = sorted(tmp_path.iterdir())
    assert main(["replay", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_was_there_is_replaced_when_all_is_done(capsys, tmp_path: Path) -> None:
    """JSON of an earlier replay is replaced; of a call that fails it is left as it was."""
    out = tmp_path / "out.json"
    out.write_text("old")
    assert main(["replay", "gone.jsonl", "--json", "out.json"]) == 2
    assert out.read_text() == "old"
    assert main(["replay", "bare.jsonl", "--rules", "fixed", "--json", "out.json"]) == 0
    assert json.loads(out.read_text())["rows"][0]["rule"] == "fixed"
    assert not list(tmp_path.glob("*.part"))


def test_budgets_of_single_rules_and_folders_are_refused(capsys, tmp_path: Path) -> None:
    """Floor and cap are those of all rules; a folder is refused before anything is replayed."""
    path = tmp_path / "votes.jsonl"
    path.write_text(json.dumps({"id": "q", "answers": ["7"] * 4}) + "\n")
    assert main(["replay", str(path), "--rules", "lead:floor=4,beta:cap=8"]) == 2
    err = capsys.readouterr().err
    assert "rule lead:floor=4: floor is the same for all rules, give it as --floor" in err
    assert "rule beta:cap=8: cap is the same" in err
    assert main(["replay", str(path), "--json", str(tmp_path)]) == 2
    assert "is a folder; name a file" in capsys.readouterr().err
    assert main(["replay", str(path), "--rules", "fixed:at_cap=first,fixed", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert [row["mean_votes"] for row in json.loads(out)["rows"]] == [4, 4]
    assert "the cap is 4, as many votes as question 'q' has" in err
