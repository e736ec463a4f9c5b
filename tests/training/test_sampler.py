"""A step's votes: the same by every schedule, with all that they cost in metrics and ledger."""

import pytest

from optpo.sampling.occupancy import Occupancy
from optpo.training.ledger import Ledger
from optpo.training.loading import load_policy
from optpo.training.run_directory import RunDirectory
from optpo.training.settings import ModelSettings
from optpo.training.step_rows import PIECES_OF_A_STEP, slot_figures
from tests.training.runs import run

SETTINGS = ["sample.rows=256", "steps=2", "allocate.cap=32"]


@pytest.mark.slow
def test_launching_ahead_changes_no_verdict(tmp_path):
    """With free slots the speculative schedule launches and cancels more, and trains the same
    policy; what it cancelled, the prompts and the slots are in every step's metrics."""
    waves, ahead = (
        run(tmp_path / schedule, f"schedule={schedule}", *SETTINGS)
        for schedule in ("waves", "speculative")
    )
    assert [row["tokens_cancelled"] for row in waves.metrics] == [0, 0]
    assert sum(row["tokens_cancelled"] for row in ahead.metrics) > 0
    assert ahead.weights == waves.weights
    assert [row["tokens"] for row in ahead.rollouts] == [row["tokens"] for row in waves.rollouts]
    rows = RunDirectory(tmp_path / "speculative").rows("metrics.jsonl")
    questions = RunDirectory(tmp_path / "speculative").rows("questions.jsonl")
    policy = load_policy(ModelSettings(), temperature=1.0)
    prompts = sum(len(policy.tokenizer(question["prompt"]).input_ids) for question in questions)
    assert [row["tokens_prefill"] for row in rows] == [prompts] * 2
    assert all(0 < row["slot_occupancy"] < 1 for row in rows)
    assert all(len(row["slot_occupancy_over_time"]) == PIECES_OF_A_STEP for row in rows)
    ledger = Ledger()
    for row in rows:
        ledger.add_step(row)
    assert ledger.tokens_prefill == 2 * prompts
    assert 0 < ledger.slot_occupancy < 1


def occupancy(*notes):
    """An engine of 4 slots; (seconds, rollouts in flight from then on) each."""
    times = iter([seconds for seconds, _ in notes])
    filled = Occupancy(clock=lambda: next(times))
    for _, in_flight in notes:
        filled.note(in_flight, 4)
    return filled


def test_slots_of_several_engines():
    """Slots are weighted by their time: 8 of 16 slot-seconds and 8 of 8 make two thirds; the course
    is the mean of theirs, each over its own time."""
    halves = occupancy((0, 4), (2, 0), (4, 0))
    full = occupancy((0, 4), (2, 0))
    figures = slot_figures([halves, full])
    assert figures["slot_seconds"] == 24
    assert figures["slot_seconds_idle"] == 8
    assert figures["slot_occupancy"] == pytest.approx(2 / 3)
    assert figures["slot_occupancy_over_time"] == [1.0] * 5 + [0.5] * 5
    assert slot_figures([occupancy((0, 0))])["slot_occupancy"] is None
    assert slot_figures([])["slot_occupancy_over_time"] == []


def test_the_ledger_adds_up_slots():
    """The mean share over a run weighs steps by their time; before the first there is none."""
    assert Ledger().slot_occupancy is None
    assert Ledger(slot_seconds=10.0, slot_seconds_idle=4.0).slot_occupancy == 0.6
