"""Equality of mathematics in processes that can be killed."""

import threading

import psutil
import pytest

from optpo.data import MathVerifier
from optpo.errors import OptpoError, SettingsError

BURNING = "10^{10^{10}}"


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(seconds=1.0) as verifier:
        yield verifier


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        ("1/2", "0.5", True),
        ("0.5", r"\frac{1}{2}", True),
        (r"\frac{1}{2}", "1/2", True),
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        (r"\{1, 2\}", r"\{2, 1\}", True),
        ("$5$", "5", True),
        ("1/2", "1/3", False),
        ("(1,2)", "(2,1)", False),
        ("50%", "50", False),
        (r"50\%", "0.5", False),
        ("cat", "act", False),
        ("no", "on", False),
        ("2xy", "2yx", True),
        (r"\sin(x)", r"\cos(x)", False),
    ],
)
def test_equal_mathematics_is_found(verifier, a, b, equal):
    """Fractions, surds and sets are compared by meaning; percentages and words are kept apart."""
    assert verifier.equal(a, b) is equal


def test_equality_is_not_transitive(verifier):
    """The trap that answer classes must handle is there."""
    assert verifier.equal("1.0000001", "1.0")
    assert verifier.equal("1.0", "1")
    assert not verifier.equal("1.0000001", "1")


def test_an_answer_that_burns_time_is_given_up(verifier):
    """10^{10^{10}} comes back as None, and the next comparison finds a working process."""
    assert verifier.equal("5", BURNING) is None
    assert verifier.equal("0.25", "1/4") is True


@pytest.mark.parametrize(
    "text", ["", "{", "\\frac{", "\n", "\x00", "\ud800", "$", "\\boxed{" * 500]
)
def test_text_that_is_no_mathematics_does_no_harm(verifier, text):
    """Whatever the text, the answer is not True, and the verifier goes on."""
    assert verifier.equal("5", text) is not True
    assert verifier.equal("3/4", "0.75") is True


def test_comparisons_work_from_other_threads():
    """Several threads share two workers, one of them held up by a burning answer."""
    found = {}

    def compare(name, a, b):
        found[name] = verifier.equal(a, b)

    with MathVerifier(workers=2, seconds=0.5) as verifier:
        pairs = [("2", BURNING), *((f"{n}/10", f"0.{n}") for n in range(1, 8))]
        threads = [
            threading.Thread(target=compare, args=(number, *pair))
            for number, pair in enumerate(pairs)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {0: None, **dict.fromkeys(range(1, 8), True)}


def test_the_limit_is_on_processor_time(monkeypatch):
    """A burning answer ends by its own processor time, even if the clock allows for hours."""
    monkeypatch.setattr("optpo.data.mathematics._CLOCK_FACTOR", 1e4)
    with MathVerifier(seconds=0.5) as verifier:
        assert verifier.equal("5", BURNING) is None


def test_a_worker_that_stands_still_is_given_up(monkeypatch):
    """A process that uses no processor time is ended by the clock."""
    before = set(workers())
    with MathVerifier(seconds=1.0) as verifier:
        assert verifier.equal("1/2", "0.5")
        (worker,) = set(workers()) - before
        worker.suspend()
        with monkeypatch.context() as patch:
            patch.setattr("optpo.data.mathematics._CLOCK_FACTOR", 0.3)
            assert verifier.equal("1/4", "0.25") is None
        assert verifier.equal("3/4", "0.75")


def workers():
    children = psutil.Process().children()
    return [child for child in children if "mathematics_worker.py" in " ".join(child.cmdline())]


def test_workers_bring_no_torch_and_leave_with_the_verifier():
    """A worker starts when needed, has no torch in its memory, and is gone after close."""
    before = set(workers())
    verifier = MathVerifier()
    assert set(workers()) == before
    assert verifier.equal("1/2", "0.5")
    (worker,) = set(workers()) - before
    assert not any("torch" in mapped.path for mapped in worker.memory_maps())
    verifier.close()
    verifier.close()
    assert not worker.is_running()
    with pytest.raises(OptpoError, match="closed"):
        verifier.equal("1", "2")


def test_a_worker_that_was_killed_is_replaced():
    """The system may kill a worker at any time; the next comparison starts another."""
    before = set(workers())
    with MathVerifier() as verifier:
        assert verifier.equal("1/2", "0.5")
        (worker,) = set(workers()) - before
        worker.kill()
        worker.wait()
        assert verifier.equal("1/4", "0.25")


def test_settings_out_of_range_are_refused():
    """No workers and no time are both named."""
    with pytest.raises(SettingsError) as raised:
        MathVerifier(workers=0, seconds=0)
    assert len(raised.value.problems) == 2
