"""The verbs in this process: what they refuse, and what they write where."""

import json
import re
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from optpo.cli import recipes
from optpo.cli.main import main
from optpo.errors import EngineError, RunStoppedError
from optpo.training.settings import RunSettings
from optpo.voting.recorded import read_recorded

SMALL = ["--set", "data.limit=3", "sample.max_new_tokens=32", "allocate.cap=12"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default paths are relative."""
    monkeypatch.chdir(tmp_path)


def test_settings_out_of_range_are_refused(capsys, tmp_path: Path) -> None:
    """All wrong settings of a call come as one message, before anything is made: exit 2."""
    call = ["adapt", "--set", "allocate.p0=1.5", "allocate.candidates=1", "--steps", "0"]
    assert main([*call, "--set", "alocate.cap=3", "--config", "gone.yaml"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("optpo: gone.yaml cannot be read")
    assert "\nallocate.p0 = 1.5: must be above" in err
    assert "\nallocate.candidates = 1: must be a whole number, 2 or more" in err
    assert "\nsteps is 0; it must be 1 or more" in err
    assert "\nalocate is no setting; did you mean allocate?" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--data", "gone.jsonl"], "no file gone.jsonl"),
        (["--model", "./gone"], "there is no model folder gone"),
        (["--tracker", "wandbb"], "unknown tracker 'wandbb'"),
        (["--unseen", "gone.jsonl"], "no file gone.jsonl"),
        (["--steps", "3", "--set", "steps=4"], "steps is given twice"),
    ],
)
def test_wrong_inputs_leave_no_run_behind(capsys, tmp_path: Path, flags, said) -> None:
    """A run that could not begin exits 2 and leaves nothing in its way."""
    assert main(["adapt", "--out", "run", *flags]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_not_there_is_named(capsys, tmp_path: Path) -> None:
    """Runs on a disk that is not mounted: one message, and no search for another name."""
    (tmp_path / "runs").symlink_to(tmp_path / "scratch")
    assert main(["adapt", "--steps", "1"]) == 1
    assert capsys.readouterr().err == "optpo: runs: File exists\n"


def test_an_engine_that_cannot_begin_leaves_no_run_behind(capsys, tmp_path, monkeypatch) -> None:
    """The call with other settings may have the same folder."""

    def adapt(*_: object) -> None:
        raise EngineError("1 workers need 1 GPU")

    monkeypatch.setattr("optpo.training.loop.adapt", adapt)
    assert main(["adapt", "--out", "run"]) == 1
    assert capsys.readouterr().err == "optpo: 1 workers need 1 GPU\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_not_touched(capsys, tmp_path: Path) -> None:
    """`--out` of a folder with files in it is refused, and the files stay."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("x")
    assert main(["adapt", "--out", "mine"]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (tmp_path / "mine" / "config.yaml").read_text() == "x"


@pytest.fixture
def adapted_with(monkeypatch: pytest.MonkeyPatch):
    """The settings that `optpo adapt FLAGS` would run with."""

    def settings_of(*flags: str) -> RunSettings:
        seen = []

        def record(settings, directory, *, as_json) -> None:
            directory.close()
            seen.append((settings, directory.path))

        monkeypatch.setattr("optpo.cli.run.run", record)
        assert main(["adapt", *flags]) == 0
        settings_of.directory = seen[0][1]
        return seen[0][0]

    return settings_of


def test_flags_become_settings(adapted_with, tmp_path: Path) -> None:
    """Every flag of adapt reaches the setting it stands for; lists may be given in any way."""
    (tmp_path / "mine.jsonl").write_text("")
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(f"data: {{template: '{name} {{prompt}}'}}")
    settings = adapted_with(
        *["--recipe", "ttrl", "--model", "some/name", "--data", "mine.jsonl", "--out", "run"],
        *["--seed", "5", "--steps", "6", "--audit", "0.5", "--tracker", "wandb", "trackio"],
        *["--config", "one.yaml", "two.yaml", "--set", "select.limit=7", "sample.top_k=8"],
        *["--set", "guards.max_undecided=0.5", "--tracker", "tensorboard"],
    )
    assert (settings.recipe, settings.seed, settings.steps, settings.audit) == ("ttrl", 5, 6, 0.5)
    # A full path, so that the run can be resumed from elsewhere.
    assert settings.data.questions == str(tmp_path / "mine.jsonl")
    assert (settings.model.name, settings.data.unseen) == ("some/name", None)
    assert settings.data.template == "two {prompt}"
    assert settings.trackers == ("wandb", "trackio", "tensorboard")
    assert (settings.sample.top_k, settings.guards.max_undecided) == (8, 0.5)
    assert adapted_with.directory == Path("run")


def test_what_a_run_is_resumed_with_is_named_by_its_full_path(adapted_with, tmp_path: Path) -> None:
    """A guide's folder, and the folder of a reward function; other scorers have none."""
    (tmp_path / "guide").mkdir()
    settings = adapted_with("--set", "model.guide=guide", "score.by=mine:score")
    assert settings.model.guide == str(tmp_path / "guide")
    assert settings.score.folder == str(tmp_path)
    assert adapted_with("--out", "other", "--set", "score.by=gold").score.folder is None


def test_adapt_without_flags(adapted_with) -> None:
    """The embedded model on the embedded questions, in a folder named for recipe and time."""
    settings = adapted_with()
    assert settings.recipe == "optpo"
    assert (settings.model.name, settings.data.questions) == (None, "adapt")
    assert settings.data.unseen == "unseen"
    assert re.fullmatch(r"runs/optpo-\d{8}-\d{6}", adapted_with.directory.as_posix())


def test_runs_that_begin_at_once_have_folders_of_their_own(adapted_with, monkeypatch) -> None:
    """Where the second is the same, a number tells them apart."""

    class Clock(datetime):
        now = classmethod(lambda cls: cls(2026, 1, 2, 3, 4, 5))

    monkeypatch.setattr("optpo.cli.run.datetime", Clock)
    names = []
    for _ in range(3):
        adapted_with()
        names.append(adapted_with.directory.name)
    assert names == ["optpo-20260102-030405", "optpo-20260102-030405-2", "optpo-20260102-030405-3"]


@pytest.mark.parametrize("word", ["none", "None"])
def test_unseen_none(adapted_with, word: str) -> None:
    """`--unseen none` watches no questions."""
    assert adapted_with("--unseen", word).data.unseen is None


def test_resume_reads_the_settings_back(adapted_with, monkeypatch, capsys) -> None:
    """resume goes on with exactly the settings that adapt wrote, or says where they are wrong."""
    settings = adapted_with("--recipe", "optpo-ppo", "--set", "update.learning_rate=1e-7")
    seen = []
    monkeypatch.setattr(
        "optpo.cli.resume.run",
        lambda settings, directory, *, as_json: seen.append((settings, directory.close())),
    )
    directory = adapted_with.directory
    assert main(["resume", str(directory)]) == 0
    assert seen[0][0] == settings
    config = directory / "config.yaml"
    config.write_text(config.read_text() + "stesp: 3\n")
    assert main(["resume", str(directory)]) == 2
    assert f"optpo: {config}: stesp is no setting; did you mean steps?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (EngineError("the engine went idle"), 1, "optpo: the engine went idle\n"),
        (RunStoppedError("stopped after step 3"), 130, "optpo: stopped after step 3\n"),
        (KeyboardInterrupt(), 130, "optpo: interrupted\n"),
        (
            OSError(28, "No space left on device", "/a/b"),
            1,
            "optpo: /a/b: No space left on device\n",
        ),
        (PermissionError(13, "Permission denied"), 1, "optpo: Permission denied\n"),
    ],
)
def test_errors_become_one_message_and_a_code(capsys, monkeypatch, error, code, said) -> None:
    """Each failure has its exit code, and a message without a traceback."""

    def fail(verb: object) -> None:
        raise error

    monkeypatch.setattr(recipes.Recipes, "run", fail)
    assert main(["recipes"]) == code
    assert capsys.readouterr() == ("", said)


def test_a_disk_that_fills_during_a_run_names_the_run(capsys, monkeypatch, tmp_path: Path) -> None:
    """A write that fails inside the run directory is told with the directory: exit 1."""

    def fill(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("optpo.training.loop.adapt", fill)
    assert main(["adapt", "--out", "run"]) == 1
    assert capsys.readouterr().err == "optpo: run: No space left on device\n"
    assert (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("flags", [["--samples", "0"], ["--k", "1,99"], ["--k", "x"], ["--k", ""]])
def test_evaluate_refuses_impossible_counts(capsys, flags: list[str]) -> None:
    """A k beyond the samples is refused before the model is loaded."""
    assert main(["evaluate", *flags]) == 2
    assert flags[0] in capsys.readouterr().err


def test_evaluate_needs_known_answers(capsys, tmp_path: Path) -> None:
    """Without a gold answer there is nothing to measure: exit 2."""
    (tmp_path / "q.jsonl").write_text('{"prompt": "1 + 1 ="}\n')
    assert main(["evaluate", "--data", "q.jsonl"]) == 2
    assert "has a known answer" in capsys.readouterr().err


def test_evaluate_the_embedded_model(capsys) -> None:
    """Accuracies as JSON on standard output, in words without --json, and the same each time."""
    call = ["evaluate", *SMALL, "--samples", "4", "--k", "1,4"]
    assert main([*call, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["questions"], found["samples"]) == (3, 4)
    assert found["mean"]["value"] == pytest.approx(found["pass"]["1"]["value"])
    assert found["pass"]["4"]["value"] >= found["pass"]["1"]["value"]
    assert main(call) == 0
    assert f"mean@4     {found['mean']['value']:7.2%}" in capsys.readouterr().out
    assert list(found["majority"]) == ["1", "4"]
    assert found["scored_by"] == "auto"


def test_vote_writes_verdicts_and_rollouts(capsys, tmp_path: Path) -> None:
    """One verdict a line in the file, as many rollouts as were counted, a summary on stdout."""
    call = ["vote", *SMALL, "--out", "verdicts.jsonl", "--rollouts", "rollouts.jsonl"]
    assert main([*call, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    text = (tmp_path / "verdicts.jsonl").read_text()
    verdicts = [json.loads(line) for line in text.splitlines()]
    rollouts = (tmp_path / "rollouts.jsonl").read_text().splitlines()
    assert sorted(verdict["prompt_id"] for verdict in verdicts) == [
        "adapt-000",
        "adapt-001",
        "adapt-002",
    ]
    assert sum(verdict["rollouts"] for verdict in verdicts) == len(rollouts) == summary["rollouts"]
    assert sum(summary["verdicts"].values()) == 3
    # The file is not written over, nor appended to.
    assert main(call) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "verdicts.jsonl").read_text() == text
    # On standard output the same lines, and nothing else.
    assert main(["vote", *SMALL]) == 0
    assert capsys.readouterr().out == text


def test_what_vote_records_can_be_replayed(capsys) -> None:
    """Recorded votes hold every answer; replayed by the same rule they end as they did."""
    rule = ["--set", "allocate.part=fixed", "allocate.votes=12", "data.limit=8"]
    assert main(["vote", *rule, "--out", "verdicts.jsonl", "--record", "votes.jsonl"]) == 0
    capsys.readouterr()
    recorded = read_recorded("votes.jsonl")
    assert [len(question.votes) for question in recorded] == [12] * 8
    verdicts = [json.loads(line) for line in Path("verdicts.jsonl").read_text().splitlines()]
    for question, verdict in zip(recorded, verdicts, strict=True):
        assert (question.id, sum(question.tokens)) == (verdict["prompt_id"], verdict["tokens"])
        assert question.right is not None
        counted = Counter(question.labels[vote] for vote in question.votes if vote >= 0)
        assert counted == verdict["counts"]
    assert main(["replay", "votes.jsonl", "--rules", "fixed", "--orders", "1", "--json", "-"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["questions"], row["mean_votes"], row["agreement"]) == (8, 12, 1)


def test_what_a_budget_leaves_no_vote_for_is_not_recorded(capsys) -> None:
    """A record can always be replayed, also where the budget ended before some questions began."""
    flags = ["--set", "data.limit=8", "--budget-votes", "3", "--out", "o.jsonl"]
    assert main(["vote", *flags, "--record", "votes.jsonl"]) == 0
    recorded = read_recorded("votes.jsonl")
    assert sum(len(question.votes) for question in recorded) == 3
    assert len(recorded) < len(Path("o.jsonl").read_text().splitlines()) == 8


def voted(capsys, *flags: str) -> tuple[list[dict], dict]:
    """The verdicts and the summary of `optpo vote` on eight questions, but for its times."""
    name = f"verdicts-{len(list(Path().iterdir()))}.jsonl"
    small = ["--set", "data.limit=8", "sample.max_new_tokens=32"]
    assert main(["vote", *small, *flags, "--out", name, "--json"]) == 0
    verdicts = [json.loads(line) for line in Path(name).read_text().splitlines()]
    summary = json.loads(capsys.readouterr().out)
    return verdicts, {
        name: value for name, value in summary.items() if name not in ("seconds", "slot_occupancy")
    }


@pytest.mark.parametrize(
    "rule", [["part=optpo"], ["part=beta", "cap=20"], ["part=fixed", "votes=12"]]
)
def test_a_budget_of_tokens_is_kept(capsys, rule: list[str]) -> None:
    """Tokens spent stay within the budget, every question has its verdict, and neither depends on
    how many rows the engine decodes at once."""
    flags = ["--budget-tokens", "700", "--set", *(f"allocate.{setting}" for setting in rule)]
    verdicts, summary = voted(capsys, *flags, "sample.rows=64")
    assert sum(verdict["tokens"] for verdict in verdicts) == summary["budget"]["spent"]
    assert 700 - 32 < summary["budget"]["spent"] <= summary["budget"]["tokens"] == 700
    assert len({verdict["prompt_id"] for verdict in verdicts}) == 8
    kinds = [verdict["kind"] for verdict in verdicts]
    assert summary["budget"]["cut_short"] == sum(kind != "decided" for kind in kinds) > 0
    assert (verdicts, summary) == voted(capsys, *flags, "sample.rows=3")


def test_a_budget_of_votes_is_kept(capsys) -> None:
    """As many rollouts as the budget has, no matter how long; with enough of them nothing is cut
    short, and the verdicts are those of a vote without a budget."""
    _, summary = voted(capsys, "--budget-votes", "30")
    assert summary["budget"] == {"votes": 30, "spent": 30, "cut_short": 8}
    assert summary["rollouts"] == 30
    assert summary["leading_accuracy"] is not None
    plenty, summary = voted(capsys, "--budget-votes", "2000")
    assert summary["budget"]["cut_short"] == 0
    free, summary = voted(capsys)
    assert summary["budget"] is None
    in_order = [sorted(verdicts, key=lambda row: row["prompt_id"]) for verdicts in (plenty, free)]
    assert in_order[0] == in_order[1]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--budget-tokens", "31"], "31 tokens does not cover one rollout"),
        (["--budget-tokens", "-5"], "must be 32 or more"),
        (["--budget-votes", "0"], "must be 1 or more"),
        (["--budget-tokens", "900", "--budget-votes", "9"], "give one of them"),
        (["--budget-votes", "9", "--set", "schedule=speculative"], "it must be 'waves'"),
    ],
)
def test_a_budget_that_buys_nothing_is_refused(capsys, tmp_path: Path, flags, said) -> None:
    """Exit 2, the least that would do, and no file."""
    assert main(["vote", *SMALL, "--out", "verdicts.jsonl", *flags]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_budget_that_is_no_number_is_refused(capsys) -> None:
    """Exit 2, by the command line's own reading."""
    assert main(["vote", "--budget-tokens", "many"]) == 2
    assert "--budget-tokens" in capsys.readouterr().err
