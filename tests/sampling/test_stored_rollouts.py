"""Rollouts in files, and the engine that answers from them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import DataError, EngineError
from optpo.sampling.engine import Capabilities, Completion, Request
from optpo.sampling.recorded_engine import RecordedEngine
from optpo.sampling.stored_rollouts import read_rollouts, rollout_row

COMPLETIONS = st.builds(
    lambda pairs, finish, version, text: Completion(
        -1, tuple(token for token, _ in pairs), tuple(logp for _, logp in pairs), finish, version,
        text,
    ),
    st.lists(st.tuples(st.integers(-1, 99), st.floats(-50, 0)), max_size=6),
    st.sampled_from(["stop", "length"]),
    st.integers(0, 9),
    st.none() | st.text(),
)  # fmt: skip


@given(st.dictionaries(st.tuples(st.text(), st.integers(0, 99)), COMPLETIONS, min_size=1))
def test_what_is_written_is_read(tmp_path_factory, stored):
    """Any text, tokens, log-probs and version survive to the last bit."""
    file = tmp_path_factory.mktemp("stored") / "rollouts.jsonl"
    lines = [
        json.dumps(rollout_row(Request(name, (), index, 0), completion))
        for (name, index), completion in stored.items()
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    assert read_rollouts(file) == stored


def test_everything_wrong_with_a_file_is_told_at_once(tmp_path):
    """Each bad line is named with its reason; so is a rollout that is there twice."""
    row = {"prompt_id": "q", "index": 0, "finish": "stop", "tokens": [1]}
    lines = [
        row,
        row,
        {**row, "index": -1},
        {**row, "index": 1, "logps": [-1.0, -2.0]},
        {"prompt_id": "q"},
        [1],
        {**row, "index": 2, "finish": "tired", "tokens": 3},
    ]
    file = tmp_path / "rollouts.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    with pytest.raises(DataError) as error:
        read_rollouts(file)
    told = str(error.value).splitlines()
    assert [line.split(":")[0].split(", ")[-1] for line in told] == [
        f"line {n}" for n in range(2, 8)
    ]
    for line, reason in zip(
        told, ("twice", "index is -1", "one a token", "no 'index'", "no object", "tired"),
        strict=True,
    ):  # fmt: skip
        assert reason in line
    assert "tokens must be a list" in told[-1]
    with pytest.raises(DataError, match="cannot be read"):
        read_rollouts(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="holds no rollouts"):
        read_rollouts(tmp_path / "empty.jsonl")


class Counting:
    """An engine that answers at once and counts what it was asked."""

    capabilities = Capabilities(True, False, True, True, True, token_ids=False)
    slots = 7
    prefill_tokens = 5

    def __init__(self):
        self.asked, self.closed = [], False

    def submit(self, request):
        self.asked.append(request)
        return len(self.asked) + 100

    def cancel(self, handle):
        return 4

    def poll(self):
        return [Completion(100 + len(self.asked), (-1,), (), "stop", 0, "new")]

    def close(self):
        self.closed = True


def test_only_what_was_not_recorded_is_asked():
    """Recorded rollouts are answered first, cost nothing to cancel, and are not heard of; the
    others are asked of the engine behind and handed to the listener before they come back."""
    old = Completion(-1, (8,), (-0.5,), "stop", 2, "old")
    behind, heard = Counting(), []
    engine = RecordedEngine(
        {("q", 0): old, ("q", 1): old}, behind, lambda request, done: heard.append(request.index)
    )
    handles = [engine.submit(Request("q", (), index, 0)) for index in range(3)]
    assert engine.cancel(handles[1]) == 0
    assert [(done.handle, done.text, done.version) for done in engine.poll()] == [
        (handles[0], "old", 2)
    ]
    assert heard == []
    assert [(done.handle, done.text) for done in engine.poll()] == [(handles[2], "new")]
    assert heard == [2] and [request.index for request in behind.asked] == [2]
    assert (engine.slots, engine.prefill_tokens) == (7, 5)
    assert engine.cancel(engine.submit(Request("q", (), 3, 0))) == 4
    engine.close()
    assert behind.closed


def test_without_an_engine_behind_a_missing_rollout_is_an_error():
    """It says which one; what was recorded is answered all the same."""
    engine = RecordedEngine({("q", 0): Completion(-1, (8,), (-0.5,), "stop", 0)})
    engine.submit(Request("q", (), 0, 0))
    with pytest.raises(EngineError, match="rollout 1 of question 'q' was not recorded"):
        engine.submit(Request("q", (), 1, 0))
    assert len(engine.poll()) == 1 and engine.poll() == []
    assert engine.capabilities.logps and engine.capabilities.token_ids
