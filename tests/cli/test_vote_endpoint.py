"""`optpo vote --endpoint` against a real server on loopback, in a process that has no torch."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from model_server import Model, ModelServer

END_TOKENS = (2, 3, 4, 5, 6, 7)
ASKED = ["vote", "--data", "questions.jsonl", "--recipe", "rule.yaml", "--json"]
RECIPE = """
settings:
  allocate: {part: optpo, floor: 3, cap: 6}
  update: {learning_rate: 1e-5}
  data: {answers: {extract: whole, compare: exact}}
  sample: {max_new_tokens: 4}
"""


@pytest.fixture
def server(llama, tokenizer, tmp_path: Path) -> Iterator[ModelServer]:
    """Serves the tiny model; questions and settings lie in the folder of the test."""
    rows = [{"id": f"q{n}", "prompt": f"w{8 + n} w{9 + n}", "gold": "w9"} for n in range(12)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "rule.yaml").write_text(RECIPE)
    with (
        closing(Model(llama, tokenizer, END_TOKENS)) as model,
        closing(ModelServer(model)) as server,
    ):
        yield server


def verdicts(file: Path) -> dict[str, dict]:
    """Verdicts by question, without what was cancelled, which depends on timing."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {
        row["prompt_id"]: {key: row[key] for key in row if not key.startswith("cancelled")}
        for row in rows
    }


@pytest.mark.slow
def test_verdicts_of_a_server(optpo_process, server, tmp_path: Path) -> None:
    """Neither torch nor transformers is needed or loaded; verdicts and rollouts are written, and
    are the same however many requests are in flight and whatever is launched ahead."""
    files = ["--out", "a.jsonl", "--rollouts", "rollouts.jsonl"]
    done = optpo_process(*ASKED, "--endpoint", server.url, *files, missing=("torch",))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    found = verdicts(tmp_path / "a.jsonl")
    assert summary["questions"] == len(found) == 12
    assert summary["rollouts"] == sum(verdict["rollouts"] for verdict in found.values())
    lines = (tmp_path / "rollouts.jsonl").read_text().splitlines()
    rollouts = [json.loads(line) for line in lines]
    assert len(rollouts) == summary["rollouts"]
    assert {row["text"] for row in rollouts} and all(row["tokens"] for row in rollouts)
    loaded = done.stderr.split("loaded:")[1].split()
    assert not {"torch", "transformers"} & {*loaded}
    other = ["--set", "endpoint.concurrency=1", "schedule=speculative", "--out", "b.jsonl"]
    assert optpo_process(*ASKED, "--endpoint", server.url, *other).returncode == 0
    assert verdicts(tmp_path / "b.jsonl") == found
    assert not list(tmp_path.glob("*.journal*"))


@pytest.mark.slow
def test_a_server_that_goes_away_loses_nothing(optpo_process, server, tmp_path: Path) -> None:
    """The call fails with one message; the same call, when the server is back, goes on: nothing that
    was answered is asked again."""
    whole = ["--endpoint", server.url, "--out", "whole.jsonl"]
    assert optpo_process(*ASKED, *whole).returncode == 0
    needed = sum(verdict["rollouts"] for verdict in verdicts(tmp_path / "whole.jsonl").values())
    answered = len(server.requests)
    patience = ["--set", "endpoint.patience_seconds=1", "endpoint.concurrency=2"]
    call = [*ASKED, "--endpoint", server.url, "--out", "v.jsonl", *patience]

    def gone(path, headers, body):
        broken = len(server.requests) >= answered + 40
        return (503, {}, b"going down") if broken else None

    server.answer = gone
    failed = optpo_process(*call)
    assert failed.returncode == 1
    assert "v.jsonl.journal holds what was sampled: the same call goes on" in failed.stderr
    kept = len((tmp_path / "v.jsonl.journal").read_text().splitlines()) - 1
    assert 0 < kept < needed
    server.answer = None
    other = optpo_process(*call, "endpoint.api=completions")
    assert (other.returncode, "endpoint.api was chat" in other.stderr) == (2, True)
    before = len(server.requests)
    assert optpo_process(*call).returncode == 0
    assert verdicts(tmp_path / "v.jsonl") == verdicts(tmp_path / "whole.jsonl")
    # The probes of what the server can do, sixteen of them at once, and what was still missing.
    assert len(server.requests) - before <= needed - kept + 20


@pytest.mark.slow
def test_what_a_server_refuses_has_no_verdict(optpo_process, server, tmp_path: Path) -> None:
    """The other questions have theirs; the call says which one was refused and why, and fails."""

    def refuse(path, headers, body):
        if "w13" in json.dumps(body.get("messages", "")) and "w14" in json.dumps(body):
            return 400, {}, json.dumps({"error": {"message": "no such words"}}).encode()
        return None

    server.answer = refuse
    done = optpo_process(*ASKED, "--endpoint", server.url, "--out", "v.jsonl")
    assert done.returncode == 1
    assert "1 questions were refused and have no verdict:\n'q5': " in done.stderr
    assert "no such words" in done.stderr
    assert json.loads(done.stdout)["refused"] == 1
    assert {*verdicts(tmp_path / "v.jsonl")} == {f"q{n}" for n in range(12)} - {"q5"}
    server.answer = None
    assert optpo_process(*ASKED, "--endpoint", server.url, "--out", "v.jsonl").returncode == 0
    assert len(verdicts(tmp_path / "v.jsonl")) == 12


@pytest.mark.slow
def test_what_cannot_be_weighed_is_told(optpo_process, server, tmp_path: Path) -> None:
    """A server without log-probs is refused before a rollout is asked for; one that leaves them out
    of an answer ends the call with that rollout's name, and another call asks for it again."""
    (tmp_path / "rule.yaml").write_text(
        RECIPE.replace("optpo, floor: 3, cap: 6", "fixed, votes: 4")
    )
    weighed = [*ASKED, "--endpoint", server.url, "--set", "vote_weight=likelihood"]
    server.refuses = ("logprobs",)
    done = optpo_process(*weighed)
    assert (done.returncode, "it must be 'equal' or 'brevity'" in done.stderr) == (2, True)
    server.refuses = ()

    def leave_out(path, headers, body):
        if "w13 w14" in json.dumps(body.get("messages", "")):
            choice = {"message": {"content": "w9"}, "finish_reason": "stop"}
            return 200, {}, json.dumps({"choices": [choice]}).encode()
        return None

    server.answer = leave_out
    done = optpo_process(*weighed, "--out", "v.jsonl")
    assert done.returncode == 1
    assert "of question 'q5' came back without a log-prob for each token" in done.stderr
    server.answer = None
    assert optpo_process(*weighed, "--out", "v.jsonl").returncode == 0
    assert len(verdicts(tmp_path / "v.jsonl")) == 12


def test_calls_that_cannot_work(optpo_process, server, tmp_path: Path) -> None:
    """Wrong settings are told together with exit 2; where nobody answers, it is one message."""
    done = optpo_process("vote", "--endpoint", server.url)
    assert (done.returncode, "needs --data" in done.stderr) == (2, True)
    wrong = ["--set", "update.epochs=2", "endpoint.concurrency=0", "schedule=arrival"]
    done = optpo_process(*ASKED, "--endpoint", "localhost:1", *wrong)
    assert done.returncode == 2
    for told in ("update is no setting", "endpoint.concurrency is 0", "schedule is 'arrival'"):
        assert told in done.stderr
    done = optpo_process(*ASKED, "--endpoint", "localhost:1")
    assert (done.returncode, "endpoint.url is" in done.stderr) == (2, True)
    nobody = ["--endpoint", "http://127.0.0.1:9/v1", "--set", "endpoint.start_seconds=1"]
    done = optpo_process(*ASKED, *nobody)
    assert done.returncode == 1 and "http://127.0.0.1:9/v1" in done.stderr
    done = optpo_process(*ASKED, *nobody, "--out", "v.jsonl")
    assert (done.returncode, "the same call goes on" in done.stderr) == (1, False)
    done = optpo_process(*ASKED, "--endpoint", server.url, "--out", "v.jsonl")
    assert done.returncode == 0, done.stderr
