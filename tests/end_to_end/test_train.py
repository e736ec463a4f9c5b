"""`optpo train` from the command line: verifiers of every kind, the same run directory, resume."""

import json
from pathlib import Path

from tests.end_to_end.conftest import Command, figures, rows, weights

SMALL = [
    "--set", "steps=3", "sample.rows=64", "evaluate.samples=4", "evaluate.unseen_samples=2",
    "allocate.votes=8",
]  # fmt: skip


def test_a_run_by_known_answers_leaves_what_adapt_leaves(optpo: Command, tmp_path: Path) -> None:
    """The same files; rewards are those of gold, and both sets are measured three ways."""
    few = ["data.limit=12", "evaluate.unseen_samples=1"]
    done = optpo("train", "--out", "run", "--reward", "exact", "--json", *SMALL, *few)
    assert done.returncode == 0, done.stderr
    run, summary = tmp_path / "run", json.loads(done.stdout)
    assert summary["recipe"] == "grpo"
    gold = {row["id"]: row["gold"] for row in rows(run / "questions.jsonl")}
    for row in rows(run / "rollouts/step-00001.jsonl"):
        assert row["reward"] == (row["answer"] == gold[row["prompt_id"]])
    evaluations = rows(run / "evaluations.jsonl")
    assert {row["set"] for row in evaluations} == {"adapt", "unseen"}
    first = evaluations[0]
    assert list(first["passes"]) == list(first["majorities"]) == ["1", "4"]
    assert first["passes"]["1"]["value"] == first["mean"]
    assert first["mean_low"] < first["mean"] < first["mean_high"]
    assert summary["passed_before"] == first["passed"] == first["passes"]["4"]["value"]
    report = (run / "report.html").read_text()
    assert "Rollouts are rewarded by a verifier." in report
    assert "<td>pass@4</td>" in report
    assert "trained model" not in done.stdout


_MINE = """
from pathlib import Path

calls = 0

def score(completions, weight, **others):
    global calls
    calls += 1
    if calls == 4 and Path("fails").exists():
        raise OSError("the judge is not there")
    return [w * ("1" in c) if w else None for c, w in zip(completions, weight)]
"""


def test_a_function_scores_and_a_run_goes_on_when_it_is_mended(
    optpo: Command, tmp_path: Path
) -> None:
    """Questions need no gold, their columns survive a restart, and None is no reward."""
    (tmp_path / "mine.py").write_text(_MINE)
    texts = [f"start {n} times 2 take 6 ?" for n in range(10, 22)]
    lines = [{"prompt": text, "weight": n % 3} for n, text in enumerate(texts)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    call = ["train", "--data", "q.jsonl", "--reward", "mine:score", *SMALL]
    whole = optpo(*call, "--out", "whole")
    assert whole.returncode == 0, whole.stderr
    assert "trained model" in whole.stdout
    weight_of = {row["id"]: row["weight"] for row in rows(tmp_path / "whole/questions.jsonl")}
    rewards = {0: set(), 1: set(), 2: set()}
    for step in (1, 2, 3):
        for row in rows(tmp_path / f"whole/rollouts/step-0000{step}.jsonl"):
            rewards[weight_of[row["prompt_id"]]].add(row["reward"])
    assert rewards[0] <= {None}
    assert rewards[1] <= {0, 1} and rewards[2] <= {0, 2}
    (tmp_path / "fails").touch()
    part = optpo(*call, "--out", "part")
    assert part.returncode == 1
    assert "mine:score raised OSError: the judge is not there (mine.py, line 10)" in part.stderr
    (tmp_path / "fails").unlink()
    assert optpo("resume", "part").returncode == 0
    assert figures(tmp_path / "whole") == figures(tmp_path / "part")
    assert weights(tmp_path / "whole") == weights(tmp_path / "part")


def test_what_a_function_prints_does_not_join_the_summary(optpo: Command, tmp_path: Path) -> None:
    """Standard output is one JSON text; prints of the module and of its function go beside it."""
    (tmp_path / "loud.py").write_text(
        "print('imported')\ndef score(completions):\n    print('called')\n"
        "    return [len(text) for text in completions]\n"
    )
    few = ("steps=1", "data.limit=2", "evaluate.samples=0", "evaluate.unseen_samples=0")
    done = optpo("train", "--reward", "loud:score", "--out", "run", "--json", *SMALL, *few)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 1
    assert {"imported", "called"} <= {*done.stderr.splitlines()}


def test_a_task_of_reasoning_gym(optpo: Command, tmp_path: Path) -> None:
    """Its questions and its scorer, for training and for a held-out set of another seed."""
    name = "reasoning-gym:chain_sum"
    done = optpo(
        "train", "--data", f"{name}:6", "--unseen", f"{name}:4:1", "--out", "run", "--json",
        *SMALL, "data.answers.extract=last-number", "steps=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    unseen = rows(tmp_path / "run" / "unseen.jsonl")
    assert [row["id"] for row in unseen] == [f"chain_sum-1-{n}" for n in range(4)]
    assert unseen[0]["reasoning_gym"] == "chain_sum"
    assert {row["set"] for row in rows(tmp_path / "run/evaluations.jsonl")} == {"adapt", "unseen"}


def test_what_cannot_be_scored_leaves_no_run_behind(optpo: Command, tmp_path: Path) -> None:
    """No gold, no function: exit 2; a function that fails in the run: exit 1."""
    (tmp_path / "q.jsonl").write_text('{"prompt": "start 20 times 2 take 6 ?"}\n')
    (tmp_path / "bad.py").write_text("def score(id):\n    return [float('nan') for _ in id]\n")
    done = optpo("train", "--data", "q.jsonl", "--out", "run", *SMALL)
    assert done.returncode == 2
    assert "has a known answer (gold)" in done.stderr
    assert not (tmp_path / "run").exists()
    done = optpo("train", "--data", "q.jsonl", "--reward", "bad:gone", "--out", "run", *SMALL)
    assert done.returncode == 2
    assert not (tmp_path / "run").exists()
    done = optpo("train", "--data", "q.jsonl", "--reward", "bad:score", "--out", "run", *SMALL)
    assert done.returncode == 1
    assert "reward function bad:score returned float nan at index 0 (question '" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_goes_on_when_its_reward_function_is_mended(optpo: Command, tmp_path: Path) -> None:
    """One that leaves by sys.exit fails the run as any error does, and the message says how; it is
    found from any folder."""
    (tmp_path / "q.jsonl").write_text('{"prompt": "start 20 times 2 take 6 ?"}\n')
    body = "import sys\ndef score(completions):\n    {}return [len(c) for c in completions]\n"
    (tmp_path / "mine.py").write_text(body.format("sys.exit(0); "))
    call = ["train", "--data", "q.jsonl", "--reward", "mine:score", "--out", "run", *SMALL]
    done = optpo(*call, "steps=1", "evaluate.samples=0")
    assert done.returncode == 1
    assert "mine:score raised SystemExit: 0 (mine.py, line 3); it was given 8" in done.stderr
    assert "is mended, go on by `optpo resume run`" in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "mine.py").write_text(body.format(""))
    done = optpo("resume", ".", cwd=tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "run/rollouts/step-00001.jsonl")) == 8
