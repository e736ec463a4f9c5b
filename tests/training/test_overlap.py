"""Sampling ahead of the update: one step off-policy, whatever the timing, and never more."""

import threading

import pytest

from optpo.data import Question
from optpo.errors import EngineError, SettingsError
from optpo.sampling.engine import SampleSettings
from optpo.sampling.transformers_engine import TransformersEngine
from optpo.training.engines import open_voter
from optpo.training.learner import Learner
from optpo.training.overlap import Ahead
from optpo.training.sampler import Sampler
from optpo.training.settings import RunSettings
from tests.training.runs import QuietView, run


def test_rollouts_are_one_update_old(tmp_path):
    """The first step's are fresh; every later step's are of the version before the last update,
    said in every rollout and in the metrics; and the policy learns from them all."""
    found = run(tmp_path / "run", "overlap=1")
    metrics = found.metrics
    assert [row["version"] for row in metrics] == [1, 2, 3]
    assert [(row["staleness_mean"], row["staleness_max"]) for row in metrics] == [
        (0, 0), (1, 1), (1, 1),
    ]  # fmt: skip
    assert sorted({row["version"] for row in found.rollouts}) == [0, 1]
    assert all(row["loss"] is not None and row["sampling_gap"] < 1e-4 for row in metrics)


def test_several_updates_a_step(tmp_path):
    """Staleness counts optimiser steps: three minibatches make the next step's rollouts 3 old."""
    found = run(tmp_path / "run", "overlap=1", "update.minibatches=3", "steps=2")
    assert [row["staleness_max"] for row in found.metrics] == [0, 3]


@pytest.mark.slow
def test_a_run_cut_at_every_step_ends_like_one_never_stopped(tmp_path):
    """Cut off once in each step, before it is saved and with a sampling under way: the same to the
    bit, drifts and carried votes too."""
    whole = run(tmp_path / "whole", "overlap=1", recipe="optpo-warm")
    for step in (1, 2, 3):
        with pytest.raises(RuntimeError, match="switched off"):
            run(tmp_path / "cut", "overlap=1", recipe="optpo-warm", view=QuietView(step))
    assert run(tmp_path / "cut", "overlap=1", recipe="optpo-warm") == whole


@pytest.mark.slow
def test_neither_timing_nor_the_sampling_batch_reach_the_weights(tmp_path):
    """The same twice, and with batches of 5 rows as with 16, to the bit: rounding at sampling is
    not in the log-probs that the objective sets the policy against."""
    once, again, narrow = (
        run(tmp_path / name, "overlap=1", f"sample.rows={rows}")
        for name, rows in (("once", 16), ("again", 16), ("narrow", 5))
    )
    assert once == again
    assert once == narrow


def test_what_fails_in_the_thread_ends_the_run_after_its_step(tmp_path, monkeypatch):
    """The step that was updated meanwhile is saved; the error comes as it is, and no thread stays."""
    poll = TransformersEngine.poll

    def fail_in_the_thread(engine):
        if threading.current_thread() is not threading.main_thread():
            raise EngineError("the machine is on fire")
        return poll(engine)

    monkeypatch.setattr(TransformersEngine, "poll", fail_in_the_thread)
    with pytest.raises(EngineError, match="on fire"):
        run(tmp_path / "run", "overlap=1")
    assert [entry.name for entry in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00001"]
    assert not sampling_threads()


def test_sampling_that_nobody_waits_for_is_dropped(policy):
    """Leaving it ends the thread long before the votes are in."""
    settings = RunSettings(sample=SampleSettings(max_new_tokens=400, rows=4))
    verdicts = []
    prompts = {f"q{number}": (8, 9, number) for number in range(40)}
    with open_voter(policy, settings, prompts.values()) as voter:
        sampler = Sampler(settings, policy, voter, prompts)
        with Ahead(sampler, lambda stage, done, total: verdicts.append(done)) as ahead:
            ahead.begin(1)
    assert not sampling_threads()
    assert len(verdicts) < 40


@pytest.mark.parametrize(("overlap", "behind"), [(0, 0), (1, 1), (0, 1), (1, 2), (1, -1)])
def test_rollouts_too_old_are_an_error(policy, overlap, behind):
    """Without overlap only fresh rollouts may come to learn from; with it, one update's; and none
    that are newer than the policy."""
    settings = RunSettings(overlap=overlap, audit=0.0, sample=SampleSettings(max_new_tokens=4))
    with open_voter(policy, settings, [(8, 9)]) as voter:
        sampler = Sampler(settings, policy, voter, {"q": (8, 9)})
        sampled = sampler.sample(1, lambda *_: None)
        policy.version = behind
        learner = Learner(settings, policy, voter, {"q": Question("q", "w8 w9")})
        if 0 <= behind <= overlap:
            assert learner.learn(sampled, [None], sampler.store).metrics["staleness_max"] == behind
        else:
            with pytest.raises(RuntimeError, match=f"came to version {behind}"):
                learner.learn(sampled, [None], sampler.store)


def test_only_one_step_ahead():
    """An overlap of two is refused."""
    with pytest.raises(SettingsError, match="overlap is 2; it must be 0 or 1"):
        RunSettings(overlap=2)


def sampling_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("sampling")]
