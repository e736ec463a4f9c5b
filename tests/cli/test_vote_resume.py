"""A vote that was interrupted goes on where it was when it is called again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optpo.cli.main import main
from optpo.errors import EngineError
from optpo.sampling.transformers_engine import TransformersEngine

CALL = ["vote", "--set", "data.limit=12", "sample.max_new_tokens=32", "sample.rows=8"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default paths are relative."""
    monkeypatch.chdir(tmp_path)


def lines(name: str) -> list[str]:
    """The lines of a file, sorted; without log-probs, whose rounding depends on the batch."""
    rows = [json.loads(line) for line in Path(name).read_text().splitlines()]
    return sorted(json.dumps({**row, "logps": None}) for row in rows)


def fail_after(monkeypatch: pytest.MonkeyPatch, polls: int, error: BaseException) -> list[int]:
    """Let the engine fail at its n-th poll; returns the completions of each poll before."""
    whole, counts = TransformersEngine.poll, []

    def poll(self):
        if len(counts) == polls:
            raise error
        done = whole(self)
        counts.append(len(done))
        return done

    monkeypatch.setattr(TransformersEngine, "poll", poll)
    return counts


def test_a_vote_goes_on_where_it_was(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure and an interrupt the files are those of a vote without either, and nothing
    that was sampled before is sampled again."""
    files = ["--out", "{}.jsonl", "--rollouts", "{}-rollouts.jsonl", "--record", "{}-votes.jsonl"]
    assert main([*CALL, *(flag.format("whole") for flag in files)]) == 0
    call, sampled = [*CALL, *(flag.format("parts") for flag in files)], 0
    for error, code in ((EngineError("the engine broke"), 1), (KeyboardInterrupt(), 130)):
        with monkeypatch.context() as patched:
            counts = fail_after(patched, 9, error)
            assert main(call) == code
            told = capsys.readouterr().err
            assert "parts.jsonl.journal holds what was sampled: the same call goes on" in told
        sampled += sum(counts)
        assert len(lines("parts.jsonl.journal")) == 1 + sampled
    with monkeypatch.context() as patched:
        counts = fail_after(patched, 10**9, EngineError())
        assert main(call) == 0
    for name in ("{}.jsonl", "{}-rollouts.jsonl", "{}-votes.jsonl"):
        assert lines(name.format("parts")) == lines(name.format("whole"))
    assert sampled + sum(counts) == len(lines("whole-rollouts.jsonl"))
    assert [file.name for file in Path().glob("*.journal*")] == []
    assert main(call) == 2
    assert "--out parts.jsonl exists already" in capsys.readouterr().err


def test_another_vote_does_not_touch_the_files(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """With other settings the call is refused and says which differ; what was there stays."""
    with monkeypatch.context() as patched:
        fail_after(patched, 12, EngineError("the engine broke"))
        assert main([*CALL, "--out", "v.jsonl"]) == 1
    before = {file: file.read_bytes() for file in Path().glob("v.jsonl*")}
    assert len(before) == 2 and all(before.values())
    assert main([*CALL, "allocate.cap=40", "--seed", "3", "--out", "v.jsonl"]) == 2
    told = capsys.readouterr().err
    assert "other settings: seed was 0; allocate was {" in told
    assert {file: file.read_bytes() for file in Path().glob("v.jsonl*")} == before


@pytest.mark.parametrize("flag", ["--rollouts", "--record"])
def test_a_full_disk_is_one_message(capsys, flag: str) -> None:
    """The file, the flag and what is wrong; where a journal holds rollouts, that it goes on."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    assert main([*CALL, flag, "/dev/full"]) == 1
    assert capsys.readouterr().err == f"optpo: {flag} /dev/full: No space left on device\n"
    for _ in range(2):
        assert main([*CALL, "--out", "v.jsonl", flag, "/dev/full"]) == 1
        told = capsys.readouterr().err
        assert told.startswith(f"optpo: {flag} /dev/full: No space left on device\nv.jsonl.journal")
        assert told.endswith("the same call goes on\n")


@pytest.mark.parametrize("flag", ["--rollouts", "--record"])
def test_only_files_of_the_vote_are_written_again(capsys, monkeypatch, flag: str) -> None:
    """One that the interrupted call did not name is not overwritten; that call itself goes on."""
    with monkeypatch.context() as patched:
        fail_after(patched, 12, KeyboardInterrupt())
        assert main([*CALL, "--out", "v.jsonl"]) == 130
    Path("precious.jsonl").write_text("mine\n")
    assert main([*CALL, "--out", "v.jsonl", flag, "precious.jsonl"]) == 2
    assert f"other settings: {flag} was None" in capsys.readouterr().err
    assert Path("precious.jsonl").read_text() == "mine\n"
    assert main([*CALL, "--out", "v.jsonl"]) == 0


def test_a_journal_without_rollouts_is_begun_anew(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that never sampled promises nothing; the corrected call works, whatever it changes, and
    no file of another is touched by the second or the third try either."""
    with monkeypatch.context() as patched:
        fail_after(patched, 0, EngineError("no such model"))
        assert main([*CALL, "--seed", "3", "--out", "v.jsonl"]) == 1
    assert capsys.readouterr().err == "optpo: no such model\n"
    Path("precious.jsonl").write_text("mine\n")
    for _ in range(2):
        assert main([*CALL, "--out", "v.jsonl", "--rollouts", "precious.jsonl"]) == 2
        assert "--rollouts" in (told := capsys.readouterr().err) and "exists already" in told
    assert Path("precious.jsonl").read_text() == "mine\n"
    assert main([*CALL, "--out", "v.jsonl", "--rollouts", "rollouts.jsonl"]) == 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("model.chat=always", "model.chat was auto"),
        ("model.precision=bfloat16", "precision was auto"),
    ],
)
def test_rollouts_of_two_ways_to_ask_are_not_mixed(capsys, monkeypatch, changed, said) -> None:
    """A setting that makes other rollouts of the same questions makes another vote."""
    with monkeypatch.context() as patched:
        fail_after(patched, 12, EngineError("the engine broke"))
        assert main([*CALL, "--out", "v.jsonl"]) == 1
    assert main([*CALL, changed, "--out", "v.jsonl"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--out", "v.jsonl", "--record", "./v.jsonl"], "--out and --record are both"),
        (
            ["--out", "v.jsonl", "--rollouts", "r", "--record", "r"],
            "--rollouts and --record are both",
        ),
        (["--out", "v", "--rollouts", "v.journal"], "--rollouts and the journal of --out are both"),
        (["--rollouts", "-"], "--out and --rollouts are both -"),
    ],
)
def test_two_outputs_in_one_file_are_refused(capsys, flags: list[str], said: str) -> None:
    """Each would overwrite the other; nothing is made."""
    assert main([*CALL, *flags]) == 2
    assert said in capsys.readouterr().err
    assert not list(Path().iterdir())


def test_a_line_that_a_kill_cut_off_is_sampled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line at the end of the journal is dropped; any other damage is named."""
    assert main([*CALL, "--out", "whole.jsonl"]) == 0
    with monkeypatch.context() as patched:
        fail_after(patched, 12, EngineError("the engine broke"))
        assert main([*CALL, "--out", "v.jsonl"]) == 1
    journal = Path("v.jsonl.journal")
    journal.write_bytes(journal.read_bytes()[:-25])
    shutil.copy(journal, "copy")
    assert main([*CALL, "--out", "v.jsonl"]) == 0
    assert lines("v.jsonl") == lines("whole.jsonl")
    for damage, said in ((b"{}\n", "no journal of a vote"), (b"", None)):
        Path("v.jsonl").unlink(missing_ok=True)
        journal.write_bytes(damage + Path("copy").read_bytes())
        assert main([*CALL, "--out", "v.jsonl"]) == (2 if said else 0)


def test_a_journal_in_use_is_left_alone(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes never write the same vote."""
    whole = TransformersEngine.poll

    def poll(self):
        assert main([*CALL, "--out", "v.jsonl"]) == 2
        monkeypatch.setattr(TransformersEngine, "poll", whole)
        return whole(self)

    monkeypatch.setattr(TransformersEngine, "poll", poll)
    assert main([*CALL, "--out", "v.jsonl"]) == 0
    assert "v.jsonl.journal is in use by another optpo process" in capsys.readouterr().err


@pytest.mark.slow
def test_kills_change_nothing() -> None:
    """A vote killed again and again, at any moment, ends with the verdicts of one that was not."""
    call = [sys.executable, "-m", "optpo.cli.main", *CALL, "allocate.part=fixed"]
    assert subprocess.run([*call, "--out", "whole.jsonl"], check=False).returncode == 0
    kills = 0
    for _ in range(20):
        with subprocess.Popen([*call, "--out", "v.jsonl"], env=os.environ) as process:
            before = journal_lines()
            while process.poll() is None and journal_lines() < before + 200:
                time.sleep(0.02)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
        if process.returncode == 0:
            break
    assert process.returncode == 0 and kills >= 2
    assert lines("v.jsonl") == lines("whole.jsonl")
    assert all(json.loads(line)["rollouts"] == 64 for line in lines("v.jsonl"))


def journal_lines() -> int:
    """None where there is no journal, or no more: it is removed when the vote ends."""
    try:
        return Path("v.jsonl.journal").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
