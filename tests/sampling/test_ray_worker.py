"""A pool's worker, without Ray: it obeys in order, whatever order the messages come in."""

import threading

import numpy as np
import pytest
from engines import requests_of
from ray_factories import Counting

from optpo.errors import EngineError
from optpo.sampling.ray_worker import Weights, Worker


def test_orders_are_obeyed_by_their_number():
    """A cancellation that overtakes its rollout on the way still finds it."""
    worker = Worker(Counting)
    first, second = requests_of(2)
    worker.tell(1, {}, [7], None)
    worker.tell(0, {7: first, 8: second}, [], None)
    reports = worker.run(None)
    assert next(reports).finished == []
    assert next(reports).cancelled == {7: 1}
    assert [completion.handle for completion in next(reports).finished] == [8]


def test_weights_are_a_folder_for_the_engine():
    """It finds the files by their names; reports carry the version from then on."""
    seen = {}

    class Reads(Counting):
        def update_weights(self, version, folder):
            seen[version] = {file.name: file.read_bytes() for file in folder.iterdir()}

    files = {"model.safetensors": np.frombuffer(b"weights", np.uint8)}
    worker = Worker(Reads)
    worker.tell(0, {}, [], Weights(2, files))
    reports = worker.run(Weights(1, files))
    assert [next(reports).version, next(reports).version] == [1, 2]
    assert seen == {n: {"model.safetensors": b"weights"} for n in (1, 2)}


def test_an_engine_that_loses_rollouts_is_an_error():
    """Waiting for them would never end."""

    class Forgets(Counting):
        def poll(self):
            return []

    worker = Worker(Forgets)
    worker.tell(0, {1: requests_of(1)[0]}, [], None)
    reports = worker.run(None)
    next(reports)
    with pytest.raises(EngineError, match="idle with 1 rollouts missing"):
        next(reports)


def test_ending_closes_the_engine(tmp_path):
    """Also while it waits for something to do; `end` comes back when it is done."""
    worker = Worker(lambda: Counting(closed=tmp_path / "closed"))
    thread = threading.Thread(target=lambda: list(worker.run(None)))
    thread.start()
    worker.end()
    assert (tmp_path / "closed").exists()
    thread.join()
