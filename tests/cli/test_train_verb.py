"""`optpo train`: its flags, what it refuses, and how `optpo evaluate` scores."""

import json
import sys
from pathlib import Path

import pytest

from optpo.cli.main import main
from optpo.training.settings import RunSettings


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default paths are relative; modules are looked for in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch):
    """The settings that `optpo VERB FLAGS` would run with."""

    def settings_of(*call: str) -> RunSettings:
        seen = []

        def record(settings, directory, *, as_json) -> None:
            directory.close()
            seen.append(settings)

        monkeypatch.setattr("optpo.cli.run.run", record)
        assert main(call) == 0
        return seen[0]

    return settings_of


def test_train_without_flags(run_with) -> None:
    """grpo on the embedded questions, by their known answers."""
    settings = run_with("train")
    assert (settings.recipe, settings.data.questions) == ("grpo", "adapt")
    assert (settings.score.by, settings.learns_from_gold) == ("auto", True)


@pytest.mark.parametrize("word", ["exact", "numeric", "math", "choice"])
def test_a_word_says_how_answers_are_compared(run_with, word: str) -> None:
    """Gold decides."""
    settings = run_with("train", "--reward", word, "--out", "run")
    assert (settings.score.by, settings.data.answers.compare) == ("gold", word)


@pytest.mark.parametrize("by", ["reasoning-gym", "my.rewards:score"])
def test_tasks_and_functions_score_by_themselves(run_with, by: str) -> None:
    """How answers are compared stays as it was."""
    settings = run_with("train", "--reward", by, "--recipe", "rloo")
    assert (settings.recipe, settings.score.by) == ("rloo", by)
    assert settings.data.answers.compare == "exact"


def test_train_has_the_flags_of_adapt(run_with) -> None:
    """All of them, by the same code."""
    flags = ["--steps", "3", "--audit", "0.5", "--seed", "4", "--unseen", "none", "--out"]
    flags += ["--tracker", "wandb", "--set", "sample.top_k=7"]
    place = flags.index("--out") + 1
    for verb in ("train", "adapt"):
        settings = run_with(verb, *flags[:place], verb, *flags[place:])
        assert (settings.steps, settings.audit, settings.seed) == (3, 0.5, 4)
        assert (settings.data.unseen, settings.trackers) == (None, ("wandb",))
        assert settings.sample.top_k == 7


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            ["train", "--reward", "exat"],
            "must be one of exact, numeric, math, choice, reasoning-gym",
        ),
        (["train", "--reward", "exat"], "did you mean exact?"),
        (["train", "--reward", "a:b:c"], "score.by is 'a:b:c'; it must be one of"),
        (["train", "--reward", "exact", "--set", "score.by=gold"], "score.by is given twice"),
        (["train", "--recipe", "ttrl"], "use `optpo adapt --recipe ttrl`"),
        (["train", "--recipe", "ttrl"], "--set reward.part=verified"),
        (["adapt", "--recipe", "grpo"], "use `optpo train --recipe grpo`"),
        (["adapt", "--recipe", "grpo"], "--set reward.part=majority"),
    ],
)
def test_what_does_not_fit_is_refused(capsys, tmp_path: Path, call: list[str], said: str) -> None:
    """Exit 2 with the way out, and no run is left behind."""
    assert main(call) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_ways_out_work(run_with) -> None:
    """What the two refusals advise is accepted."""
    adapted = run_with("adapt", "--recipe", "grpo", "--set", "reward.part=majority", "--out", "a")
    assert not adapted.learns_from_gold
    trained = run_with("train", "--recipe", "ttrl", "--set", "reward.part=verified", "--out", "b")
    assert trained.learns_from_gold


SMALL = ["--set", "data.limit=3", "sample.max_new_tokens=32", "--samples", "4", "--json"]


def test_evaluate_by_a_function(capsys) -> None:
    """Right is a full score; questions without gold are measured too."""
    Path("my_scores.py").write_text(
        "def length(completions, answers, **others):\n"
        "    assert set(others) >= {'prompts', 'gold', 'id', 'level'}\n"
        "    return [None if n == 0 else 3 * ('#' in c) for n, c in zip(others['level'], completions)]"
    )
    rows = [{"id": f"q{n}", "prompt": f"start {n} times 2 take 6 ?", "level": n} for n in range(3)]
    Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call = ["evaluate", "--data", "q.jsonl", *SMALL, "--reward", "my_scores:length"]
    assert main([*call, "--set", "score.full=3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["questions"], found["without_gold"]) == (2, 1)
    assert found["mean"]["value"] > 0.5
    assert main([*call, "--set", "score.full=4"]) == 0
    assert json.loads(capsys.readouterr().out)["pass"]["4"]["value"] == 0


def test_a_function_that_fails_is_told_in_one_message(capsys) -> None:
    """With its name and place: exit 1."""
    Path("my_faults.py").write_text("def score(**kwargs):\n    return kwargs['gold'] + 1\n")
    assert main(["evaluate", *SMALL, "--reward", "my_faults:score"]) == 1
    err = capsys.readouterr().err
    assert "optpo: reward function my_faults:score raised TypeError" in err
    assert "(my_faults.py, line 2)" in err
    Path("my_nothing.py").write_text("def score(id):\n    return [None for _ in id]\n")
    assert main(["evaluate", *SMALL, "--reward", "my_nothing:score"]) == 1
    assert "gave no rollout a score" in capsys.readouterr().err


def test_questions_that_nothing_can_score_are_refused(capsys) -> None:
    """Before the model is loaded: exit 2."""
    Path("q.jsonl").write_text('{"prompt": "1 + 1 =", "gold": "2"}\n')
    assert main(["evaluate", "--data", "q.jsonl", "--reward", "reasoning-gym"]) == 2
    assert "q.jsonl has a known answer (gold) or a task" in capsys.readouterr().err
    assert main(["evaluate", "--reward", "nowhere:score"]) == 2
    assert "there is no module nowhere" in capsys.readouterr().err
