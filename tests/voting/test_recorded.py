"""Recorded votes as they are read, and what is said of lines that are none."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import DataError
from optpo.voting import UNPARSED
from optpo.voting.recorded import RecordedVotes, read_recorded


@pytest.fixture
def written(tmp_path: Path):
    """Writes lines, each an object or a text, to a file."""

    def write(*lines: object) -> Path:
        path = tmp_path / "votes.jsonl"
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        return path

    return write


def test_a_line_with_everything(written):
    """Classes in the order of the first vote, their first answers, gold, tokens and model."""
    line = {"id": 7, "answers": [" 8", "", "9", "8", None], "gold": 8, "model": "m", "more": 1}
    (votes,) = read_recorded(written({**line, "tokens": [1, 2, 3, 4, 0]}))
    assert votes == RecordedVotes(
        id="7",
        votes=(0, UNPARSED, 1, 0, UNPARSED),
        labels=("8", "9"),
        gold="8",
        tokens=(1, 2, 3, 4, 0),
        model="m",
        right=frozenset({0}),
    )


def test_a_line_with_the_least(written):
    """Only id and answers are needed; what is not there is None, and empty lines are nothing."""
    (votes,) = read_recorded(written("", {"id": "q", "answers": [""]}, "  "))
    assert votes == RecordedVotes(id="q", votes=(UNPARSED,), labels=())


@pytest.mark.parametrize(
    ("known", "right"),
    [
        ({}, None),
        ({"gold": None, "gold_set": None, "correct": None}, None),
        ({"gold": "b "}, {1}),
        ({"gold": "z"}, set()),
        ({"gold": "a", "gold_set": ["b", "z", "c"]}, {1, 2}),
        ({"gold_set": []}, set()),
        # An unparsed answer is never right, whatever is said of it.
        ({"gold": "a", "gold_set": ["a"], "correct": [0, True, 1, 1, False]}, {1}),
    ],
)
def test_what_is_right(written, known, right):
    """`correct` goes before `gold_set`, that before `gold`; nobody knows where none is given."""
    (votes,) = read_recorded(written({"id": "q", "answers": ["a", "b", "b", "", "c"], **known}))
    assert votes.right == (None if right is None else frozenset(right))


def test_answers_are_compared_by_their_key(written):
    """With a key, answers that share it are one class, and gold is compared by it too."""
    path = written({"id": "q", "answers": ["1/2", "0.5", "2"], "gold": ".50"})
    keys = {"1/2": "half", "0.5": "half", ".50": "half", "2": "two"}
    (votes,) = read_recorded(path, keys.__getitem__)
    assert (votes.votes, votes.labels, votes.right) == ((0, 0, 1), ("1/2", "2"), frozenset({0}))
    assert read_recorded(path)[0].votes == (0, 1, 2)


def test_one_question_may_be_answered_by_several_models(written):
    """Only the same id of the same model is a mistake."""
    lines = [{"id": "q", "model": model, "answers": ["1"]} for model in ("a", "b", None)]
    assert [votes.model for votes in read_recorded(written(*lines))] == ["a", "b", None]
    with pytest.raises(
        DataError, match=r"line 4: the same id 'q' and model 'a' as line 1; ids mus"
    ):
        read_recorded(written(*lines, lines[0]))
    with pytest.raises(DataError, match=r"line 4: the same id 'q' as line 3; ids must differ"):
        read_recorded(written(*lines, lines[2]))


LINE = {"id": "q", "answers": ["1", "2"]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"not JSON at column 2: Expecting property name"),
        ('[{"id": "q"},', "not JSON at column 14: .*, write each object on its own line"),
        ([LINE], "expected an object with id and answers, found list .* on its own line"),
        ('"q"', "expected an object with id and answers, found str 'q'"),
        ("[" * 100_000, "JSON that cannot be read|not JSON"),
        ('{"id": ' + "9" * 5000 + "}", "JSON that cannot be read"),
        ({}, "no 'id'; the keys here are: none"),
        ({"id": "q", "votes": []}, "no 'answers'; the keys here are: 'id', 'votes'"),
        ({**LINE, "id": " "}, "id must be text or a whole number, found str ' '"),
        ({**LINE, "id": True}, "id must be text or a whole number, found bool True"),
        ({**LINE, "gold": ["1"]}, "gold must be text or a whole number, found list"),
        ({**LINE, "model": {}}, "model must be text or a whole number, found dict"),
        ({**LINE, "answers": []}, "answers must be a list of texts, one or more"),
        ({**LINE, "answers": "12"}, "answers must be a list of texts, .*found str '12'"),
        (
            {**LINE, "answers": ["1", 2]},
            r"answers must be a list of texts, .*found list \['1', 2\]",
        ),
        ({**LINE, "gold_set": "1"}, "gold_set must be a list of texts, found str '1'"),
        ({**LINE, "gold_set": [1]}, r"gold_set must be a list of texts, found list \[1\]"),
        ({**LINE, "tokens": [1]}, "tokens has 1 entries for 2 answers; it must have one for each"),
        ({**LINE, "tokens": 5}, "tokens must be a list of whole numbers, 0 or more, found int 5"),
        ({**LINE, "tokens": [1, -2]}, "tokens must be a list of whole .*, found int -2 in it"),
        ({**LINE, "tokens": [1, 2.0]}, "tokens must be a list of whole .*, found float 2.0 in it"),
        ({**LINE, "tokens": [1, True]}, "tokens must be a list of whole .*, found bool True in it"),
        ({**LINE, "tokens": [1, 10**30]}, "tokens must be a list of whole .*, found int 10+ in it"),
        ({**LINE, "correct": [0, 2]}, "correct must be a list of true or false, found int 2 in it"),
        ({**LINE, "correct": [1]}, "correct has 1 entries for 2 answers"),
        (
            {**LINE, "answers": ["1", "1"], "correct": [0, 1]},
            "correct calls the answer '1' both right and wrong",
        ),
    ],
)
def test_a_line_that_is_no_recorded_vote(written, line, said):
    """File, line, key and what would be right are told."""
    good = {"id": "other", "answers": ["1"]}
    path = written(good, line)
    with pytest.raises(DataError, match=said) as raised:
        read_recorded(path)
    assert str(raised.value).startswith(f"{path}, line 2: ")
    assert raised.value.exit_code == 2


def test_everything_wrong_is_told_at_once(written):
    """Several lines, and several keys of a line; the eleventh and later are counted."""
    path = written({"id": True, "answers": 1}, {"answers": ["1"]})
    with pytest.raises(DataError) as raised:
        read_recorded(path)
    assert [line.split(": ")[0] for line in str(raised.value).splitlines()] == [
        f"{path}, line 1",
        f"{path}, line 1",
        f"{path}, line 2",
    ]
    with pytest.raises(DataError, match=r"line 10: .*\n\.\.\. and 5 more$"):
        read_recorded(written(*["x"] * 15))


def test_files_that_cannot_be_read(tmp_path: Path, written):
    """Missing, a folder, empty, or in another encoding; a byte-order mark does no harm."""
    with pytest.raises(DataError, match=r"gone\.jsonl cannot be read: No such file"):
        read_recorded(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_recorded(str(tmp_path))
    with pytest.raises(DataError, match="holds no recorded votes; it must hold one JSON object"):
        read_recorded(written(""))
    path = tmp_path / "latin.jsonl"
    path.write_bytes(json.dumps(LINE).encode() + b'\n{"id": "\xe9"}\n')
    with pytest.raises(
        DataError, match=r"line 2: not UTF-8 at byte 43 of the file; save it as UTF-8"
    ):
        read_recorded(path)
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(LINE).encode())
    assert read_recorded(path)[0].id == "q"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
KEYS = ("id", "answers", "gold", "gold_set", "tokens", "correct", "model")


@given(st.dictionaries(st.sampled_from(KEYS), JSON) | JSON)
def test_no_json_does_worse_than_a_data_error(tmp_path_factory, value):
    """Whatever a line holds, it is recorded votes that fit each other, or a DataError."""
    path = tmp_path_factory.mktemp("any") / "votes.jsonl"
    path.write_text(json.dumps(value))
    try:
        (votes,) = read_recorded(path)
    except DataError:
        return
    assert votes.tokens is None or len(votes.tokens) == len(votes.votes)
    assert set(votes.votes) - {UNPARSED} == set(range(len(votes.labels)))
    assert votes.right is None or votes.right <= set(range(len(votes.labels)))
