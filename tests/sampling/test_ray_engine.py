"""A pool of engines on Ray: what it samples is what one engine samples, through any fault.

One Ray and two workers with the tiny model serve the whole file. The contract of all engines runs
on them too.
"""

import json
import time
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
import ray
import test_engine_contract
from engines import END_TOKENS, poll_all
from test_engine_contract import requests_of, sample_all
from test_scheduler import Letters

from optpo.errors import EngineError
from optpo.sampling.ballot import Ballot, Reader
from optpo.sampling.engine import SampleSettings
from optpo.sampling.ray_cluster import RaySettings
from optpo.sampling.ray_engine import RayEngine
from optpo.sampling.scheduler import take_votes
from optpo.sampling.transformers_engine import TransformersEngine
from optpo.voting import OptpoRule

# By a path that a worker has too.
from tests.sampling.ray_factories import Counting, Renewed, refusing, unlike

pytestmark = pytest.mark.slow

# The contract, and the model that it runs with. Closing a pool is promised below: the contract's
# pool goes on to serve the next test.
globals().update(
    (name, value)
    for name, value in vars(test_engine_contract).items()
    if name == "tiny"
    or (name.startswith("test_") and name != "test_closing_drops_what_is_in_flight")
)


@pytest.fixture(scope="module")
def settings_file(tmp_path_factory):
    return tmp_path_factory.mktemp("pool") / "settings.json"


@pytest.fixture(scope="module")
def pool(settings_file):
    """Two workers on a Ray that the pool begins, and ends; it writes nothing into the home folder."""
    home = sorted(Path.home().glob(".ray/*"))
    engine = RayEngine(partial(Renewed, settings_file), RaySettings(workers=2))
    yield engine
    engine.close()
    engine.close()
    assert not ray.is_initialized()
    assert sorted(Path.home().glob(".ray/*")) == home


class Borrowed:
    """The pool of this file as one engine of a test; closing it drops what is in flight."""

    def __init__(self, pool):
        self._pool, self._handles = pool, []

    def __getattr__(self, name):
        return getattr(self._pool, name)

    def submit(self, request):
        self._handles.append(self._pool.submit(request))
        return self._handles[-1]

    def close(self):
        for handle in self._handles:
            self._pool.cancel(handle)


@pytest.fixture
def open_engine(pool, tiny, settings_file):
    """Open the pool with these settings and the tiny model, as version 0."""

    @contextmanager
    def opened(**settings):
        settings_file.write_text(json.dumps(asdict(SampleSettings(**settings))))
        pool.update_weights(0, tiny.folder)
        engine = Borrowed(pool)
        yield engine
        engine.close()

    return opened


def alone(tiny, folder=None, version=0, **settings):
    """The embedded engine in this process."""
    model = type(tiny.model).from_pretrained(folder or tiny.folder).eval()
    engine = TransformersEngine(
        model, tiny.tokenizer.decode, END_TOKENS, SampleSettings(**settings)
    )
    engine.update_weights(version)
    return engine


def tokens_of(done):
    return {key: completion.tokens for key, completion in done.items()}


def test_two_workers_sample_what_one_engine_does(open_engine, tiny):
    """The same tokens, whichever worker drew them; and both do draw."""
    settings = {"max_new_tokens": 24, "rows": 8}
    requests = requests_of(150)
    with open_engine(**settings) as engine:
        before = engine.prefill_tokens
        done = sample_all(engine, requests)
        assert engine.slots == 16
        prefill = engine.prefill_tokens - before
    single = alone(tiny, **settings)
    assert tokens_of(done) == tokens_of(sample_all(single, requests))
    # Each prompt is computed by one worker or by both.
    assert single.prefill_tokens < prefill <= 2 * single.prefill_tokens


def test_rollouts_of_a_question_stay_together(open_engine):
    """Where neither worker has much more to do than the other, each prompt is computed once."""
    requests = requests_of(12, questions=3)
    prompts = {request.prompt_tokens for request in requests}
    with open_engine(max_new_tokens=12, rows=8) as engine:
        before = engine.prefill_tokens
        sample_all(engine, requests)
        assert engine.prefill_tokens - before == sum(map(len, prompts))


READER = Reader(
    decode=lambda tokens: str(sum(tokens) % 3), extract=lambda text: None if text == "2" else text
)
RULE = OptpoRule(floor=3, cap=20)


def votes_of(engine, version=0, schedule="speculative"):
    """What a vote on 40 questions came to; no rollout is lost or counted twice."""
    asked = {request.prompt_id: request.prompt_tokens for request in requests_of(40, questions=40)}
    ballots = [Ballot(name, tokens, Letters()) for name, tokens in asked.items()]
    take_votes(
        engine, ballots, RULE, READER, seed=5, version=version, purpose="test", schedule=schedule
    )
    for ballot in ballots:
        indices = [rollout.index for rollout in ballot.rollouts]
        assert indices == list(range(ballot.tally.total))
        assert {rollout.version for rollout in ballot.rollouts} == {version}
    return [
        (ballot.decision, ballot.tally, [rollout.tokens for rollout in ballot.rollouts])
        for ballot in ballots
    ]


@pytest.mark.parametrize("schedule", ["waves", "speculative"])
def test_verdicts_do_not_depend_on_the_number_of_workers(open_engine, tiny, schedule):
    """One engine and a pool of two: the same votes, tokens and decisions."""
    settings = {"max_new_tokens": 12, "rows": 8}
    with open_engine(**settings) as engine:
        assert votes_of(engine, schedule=schedule) == votes_of(
            alone(tiny, **settings), schedule=schedule
        )


def test_a_worker_that_dies_changes_no_verdict(open_engine, pool, tiny, settings_file):
    """Its rollouts are sampled again by the others; the one begun in its place has the newest
    weights."""
    settings = {"max_new_tokens": 12, "rows": 8}
    with open_engine(**settings) as engine:
        engine.update_weights(3, tiny.other_folder)
        expected = votes_of(alone(tiny, tiny.other_folder, 3, **settings), version=3)
        settings_file.with_name("die").touch()
        assert votes_of(engine, version=3) == expected
        assert not settings_file.with_name("die").exists()
        while engine.slots < 16:
            time.sleep(0.1)
            sample_all(engine, requests_of(1))
        done = sample_all(engine, requests_of(60))
        assert {completion.version for completion in done.values()} == {3}
        single = alone(tiny, tiny.other_folder, **settings)
        assert tokens_of(done) == tokens_of(sample_all(single, requests_of(60)))


@contextmanager
def light_pool(pool, factory, **settings):
    """A pool beside the first, on its Ray, with engines that need no model."""
    settings = {"workers": 1, "resources": {"CPU": 0.0}} | settings
    engine = RayEngine(factory, RaySettings(**settings))
    yield engine
    engine.close()
    assert ray.is_initialized()


def test_weights_come_from_a_folder_of_safetensors(pool, tmp_path):
    """Nothing else can reach another process, and a pickle is not read."""
    with pytest.raises(EngineError, match="share no module"):
        pool.update_weights(1)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(EngineError, match=r"no .*safetensors"):
        pool.update_weights(1, tmp_path)


def test_cancelled_tokens_are_true_in_sum(pool):
    """Estimates at first; what the workers count is made up for in later ones."""
    with light_pool(pool, Counting) as engine:
        charged = cancelled = 0
        for _ in range(40):
            long = [engine.submit(request) for request in requests_of(60)[50:56]]
            engine.poll()
            charged += sum(engine.cancel(handle) for handle in long[1:4])
            cancelled += 3
            poll_all(engine)
        assert charged == pytest.approx(9 * cancelled, abs=3 * 9)


def test_the_pool_can_do_what_all_workers_can(pool, tmp_path):
    """One that cannot cancel makes the pool say so."""
    with light_pool(pool, partial(unlike, tmp_path), workers=2) as engine:
        assert not engine.capabilities.cancel and engine.capabilities.logps
        assert engine.slots == 8 and engine.prefill_tokens == 10


def test_a_pool_whose_workers_all_fail_says_why(pool):
    """After the restarts it was given, with the last worker's own words; prompts they computed stay
    counted. So does one that cannot start, or finds no room."""
    with light_pool(pool, partial(Counting, fails=True), workers=2, restarts=1) as engine:
        engine.submit(requests_of(1)[0])
        with pytest.raises(EngineError, match=r"all 2 workers.*1 restarts each.*the tap is dry"):
            engine.poll()
        assert engine.prefill_tokens == 4 * 5
    with pytest.raises(EngineError, match="no such model on this machine"):
        RayEngine(refusing, RaySettings(workers=1, resources={"CPU": 0}))
    with pytest.raises(EngineError, match=r"0 of .* 1 workers .* 99 GPU \(there are \d+"):
        RayEngine(Counting, RaySettings(workers=1, resources={"GPU": 99}, start_seconds=1))


def test_closing_lets_the_engines_close(pool, tmp_path):
    """What is in flight is dropped; a second time does nothing."""
    with light_pool(pool, partial(Counting, closed=tmp_path / "closed")) as engine:
        for request in requests_of(20):
            engine.submit(request)
        engine.poll()
        engine.close()
        assert (tmp_path / "closed").exists()
