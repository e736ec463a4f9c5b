"""Questions from files, datasets and the library itself, and every way they can be wrong."""

import json
import subprocess
import sys
from datetime import date
from decimal import Decimal

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optpo.data import ChatMessage, Question, load_questions
from optpo.errors import DataError


@pytest.fixture
def write(tmp_path):
    """Write a question file from records, lines of text or bytes, and return its path."""

    def write_file(*lines, name="questions.jsonl"):
        path = tmp_path / name
        raw = [
            line
            if isinstance(line, bytes)
            else (line if isinstance(line, str) else json.dumps(line)).encode()
            for line in lines
        ]
        path.write_bytes(b"\n".join(raw))
        return path

    return write_file


def problem(source, **arguments):
    with pytest.raises(DataError) as raised:
        load_questions(source, **arguments)
    return str(raised.value)


def test_questions_are_read_from_lines(write):
    """Text and chat prompts, given ids, golds as text or number, and unknown fields."""
    path = write(
        {"id": "a", "prompt": "1+1?", "gold": "2", "level": 3},
        {"id": 7, "prompt": [{"role": "user", "content": "1+2?"}], "gold": 3},
        "",
        {"id": "c", "prompt": "1+.5?", "gold": 1.5},
    )
    assert load_questions(path) == [
        Question("a", "1+1?", "2", {"level": 3}),
        Question("7", (ChatMessage("user", "1+2?"),), "3"),
        Question("c", "1+.5?", "1.5"),
    ]
    assert load_questions(str(path)) == load_questions(path)


@pytest.mark.parametrize("blank", ["", "  \n"])
def test_a_blank_answer_is_none(write, blank):
    """No rollout could ever be right; text is otherwise kept as it stands."""
    assert load_questions(write({"prompt": "a", "gold": blank}))[0].gold is None
    assert load_questions(write({"prompt": "a", "gold": " 7 "}))[0].gold == " 7 "


def test_further_fields_are_kept_as_json_can_hold_them(tmp_path):
    """Dates and decimals become text, what JSON cannot hold is left out, the rest is as it was."""
    fields = {"level": 3, "tags": ["a", "b"], "day": date(2026, 1, 2), "raw": b"\xff"}
    path = tmp_path / "questions.parquet"
    record = {"prompt": "1+1?", "price": Decimal("1.50"), **fields}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), path)
    (question,) = load_questions(path)
    kept = {"level": 3, "tags": fields["tags"], "day": "2026-01-02", "price": "1.50"}
    assert question.columns == kept
    assert json.loads(json.dumps(question.columns)) == kept


def test_an_id_is_made_from_the_text_alone(write):
    """The made id is the same in every version: it is stored in run directories."""
    text, chat = load_questions(
        write({"prompt": "1+1?", "gold": "2"}, {"prompt": [{"role": "user", "content": "1+1?"}]})
    )
    assert text.id == "cfe29f43bcc21dd4"
    assert chat.id not in ("", text.id)


def test_limit_reads_the_first_questions_and_nothing_after(write):
    """What stands after the limit is not looked at."""
    path = write({"prompt": "a"}, {"prompt": "b"}, "broken")
    assert [question.prompt for question in load_questions(path, limit=2)] == ["a", "b"]
    assert "limit = 0" in problem(path, limit=0)


def test_a_byte_order_mark_is_no_problem(write):
    """Files saved by Windows editors are read."""
    assert load_questions(write(b'\xef\xbb\xbf{"prompt": "a"}'))[0].prompt == "a"


def test_questions_are_read_from_parquet(tmp_path):
    """The same records in Parquet give the same questions."""
    records = [
        {"id": "a", "prompt": [{"role": "user", "content": "1+1?"}], "gold": 2.0},
        {"id": "b", "prompt": [{"role": "user", "content": "1+2?"}], "gold": None},
    ]
    path = tmp_path / "questions.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    assert load_questions(path) == [
        Question("a", (ChatMessage("user", "1+1?"),), "2"),
        Question("b", (ChatMessage("user", "1+2?"),)),
    ]
    assert len(load_questions(path, limit=1)) == 1


def test_a_damaged_parquet_file_is_named(write):
    """Bytes that are no Parquet end in a DataError."""
    assert "not a Parquet file" in problem(write("PAR?", name="damaged.parquet"))


def test_the_words_adapt_and_unseen_mean_the_embedded_questions(write, tmp_path, monkeypatch):
    """The two words are read from the package, even where a file has that name."""
    monkeypatch.setattr("optpo.data.questions.files", lambda package: tmp_path)
    (tmp_path / "embedded").mkdir()
    for name in ("adapt", "unseen"):
        write({"prompt": name}, name=f"embedded/{name}.jsonl")
        assert load_questions(name)[0].prompt == name
    monkeypatch.chdir(tmp_path)
    write({"prompt": "mine"}, name="adapt")
    assert load_questions("adapt")[0].prompt == "adapt"
    assert "not a question file" in problem(tmp_path / "adapt")


def test_a_missing_file_hints_at_near_names(write):
    """A slip of the pen is answered with the names in that folder."""
    path = write({"prompt": "a"})
    assert "did you mean questions.jsonl?" in problem(path.with_name("qestions.jsonl"))
    assert "no folder" in problem(path.parent / "nowhere" / "questions.jsonl")


def test_a_slip_in_an_embedded_name_is_hinted_at(tmp_path, monkeypatch):
    """`adpat` is answered with `adapt`."""
    monkeypatch.chdir(tmp_path)
    assert "did you mean adapt?" in problem("adpat")


def test_a_folder_is_no_question_file(write):
    """A folder is answered with the files in it."""
    folder = write({"prompt": "a"}).parent
    assert "is a folder" in problem(folder)
    assert "questions.jsonl" in problem(folder)


def test_an_unknown_kind_of_file_is_refused(write):
    """A CSV file is answered with the kinds that can be read."""
    assert ".parquet" in problem(write("a,b", name="questions.csv"))


def test_a_name_that_is_too_long_is_refused():
    """A prompt given in place of a file name ends in a DataError too."""
    assert "cannot be read" in problem("What is 1+1? " * 1000)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON at column 2"),
        ('["a"]', "line 2: expected an object with a prompt, found list"),
        ("3", "line 2: expected an object with a prompt, found int 3"),
        ("[" * 200_000, "line 2: JSON that cannot be read"),
        ('{"prompt": ' + "9" * 5000 + "}", "line 2: JSON that cannot be read"),
        ({}, "line 2: no 'prompt'; the fields here are: none"),
        ({"question": "a"}, "line 2: no 'prompt'; rename 'question'"),
        ({"prompt": None}, "line 2: no 'prompt'"),
        ({"prompt": " \n"}, "line 2: prompt is empty"),
        ({"prompt": []}, "line 2: prompt is empty"),
        ({"prompt": [{"role": "user", "content": ""}]}, "line 2: prompt is empty"),
        ({"prompt": 3}, "line 2: prompt must be text or a list of messages"),
        ({"prompt": ["a"]}, "line 2: prompt must be text or a list of messages"),
        ({"prompt": [{"role": "user"}]}, "line 2: prompt must be text or a list of messages"),
        ({"prompt": "a", "gold": [1]}, "line 2: gold must be text or a number, found list"),
        ({"prompt": "a", "gold": True}, "line 2: gold must be text or a number, found bool"),
        ('{"prompt": "a", "gold": NaN}', "line 2: gold must be text or a number, found float"),
        ({"prompt": "a", "id": {}}, "line 2: id must be text or a number"),
        ({"prompt": "a", "id": ""}, "line 2: id is empty"),
        ({"prompt": "a\ud800"}, "line 2: holds half a surrogate pair"),
        ({"prompt": "a", "id": "\udfff"}, "line 2: holds half a surrogate pair"),
        ({"prompt": "a", "note": "\udfff"}, "line 2: holds half a surrogate pair"),
        ({"prompt": "b", "id": "first"}, "line 2: the same id 'first' as line 1"),
        (b'{"prompt": "caf\xe9"}', "line 2: not UTF-8 at byte 50 of the file"),
    ],
)
def test_a_bad_line_is_named_with_what_would_be_right(write, line, message):
    """Every mistake in a record is a DataError with file and line."""
    path = write({"id": "first", "prompt": "What?"}, line)
    assert f"{path}, {message}" in problem(path)


def test_a_prompt_given_twice_without_ids_is_refused(write):
    """Two equal prompts would get the same id: both lines are named."""
    path = write({"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"})
    assert "line 3: the same prompt and no id as line 1" in problem(path)


def test_all_problems_are_reported_up_to_ten(write):
    """A file is repaired in one go: each problem has its line, and a count ends a long list."""
    assert problem(write("{", {"prompt": 1})).count("\n") == 1
    many = problem(write(*["{"] * 25)).splitlines()
    assert len(many) == 11
    assert many[-1] == "... and 15 more"


@pytest.mark.parametrize("lines", [(), ("", "  ")])
def test_an_empty_file_is_refused(write, lines):
    """A file without questions is not zero questions."""
    assert "holds no questions" in problem(write(*lines))


def test_a_json_array_is_recognised(write):
    """A file with one array instead of lines is told so, on one line or many."""
    assert "one JSON array" in problem(write('[{"prompt": "a"}]', name="array.json"))
    assert "one JSON array" in problem(write("[", '{"prompt": "a"}', "]", name="array.json"))


def test_utf_16_is_recognised(write):
    """A file saved as UTF-16 is told so."""
    assert "UTF-16" in problem(write('{"prompt": "a"}'.encode("utf-16")))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60) | st.from_regex(rb'\{"prompt": ?.{0,20}\}?', fullmatch=True))
def test_any_bytes_give_questions_or_a_data_error(write, content):
    """No file makes the loader raise anything else."""
    try:
        questions = load_questions(write(content))
    except DataError:
        return
    assert questions


def test_a_dataset_is_loaded_by_name(monkeypatch, tmp_path):
    """`hub/name:split` and `hub/name` with one split go through datasets.load_dataset."""
    monkeypatch.chdir(tmp_path)
    rows = datasets.Dataset.from_list([{"prompt": "a", "gold": "1"}, {"prompt": "b", "gold": "2"}])

    def load_dataset(name, split=None):
        assert name == "hub/name"
        return rows if split else datasets.DatasetDict({"test": rows})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [question.gold for question in load_questions("hub/name:test")] == ["1", "2"]
    assert len(load_questions("hub/name", limit=1)) == 1


def test_a_dataset_with_several_splits_asks_for_one(monkeypatch, tmp_path):
    """Which split is meant is not guessed."""
    monkeypatch.chdir(tmp_path)
    rows = datasets.Dataset.from_list([{"prompt": "a"}])
    both = datasets.DatasetDict({"train": rows, "test": rows})
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split=None: both)
    assert "hub/name:train, hub/name:test" in problem("hub/name")


def test_a_dataset_that_cannot_be_loaded_is_a_data_error(monkeypatch, tmp_path):
    """Whatever the library raises becomes one message that also says there is no such file."""
    monkeypatch.chdir(tmp_path)

    def load_dataset(name, split=None):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert "no file hub/name, and no dataset" in problem("hub/name")
    monkeypatch.setattr(datasets, "load_dataset", None)
    assert "no file" in problem("hub/name.jsonl")


def test_the_room_loads_without_torch_and_its_own_heavy_libraries():
    """Importing optpo.data brings neither torch nor datasets nor math-verify."""
    heavy = "torch scipy datasets pyarrow math_verify transformers"
    code = f"import sys, optpo.data; print([m for m in '{heavy}'.split() if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
