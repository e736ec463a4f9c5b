"""Engines that the workers of a Ray pool make in their own process; importing this is cheap."""

import json
import os
import time
from pathlib import Path

from optpo.errors import EngineError
from optpo.sampling.engine import Capabilities, Completion


class Renewed:
    """The embedded engine, made anew with the settings in a file whenever weights come.

    So one pool of processes serves many tests. Where a file `die` lies beside it, the worker that
    finds it first dies in its next poll.
    """

    def __init__(self, settings_file: Path) -> None:
        self._settings_file = settings_file
        self._die = settings_file.with_name("die")
        self._engine = Counting()

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def poll(self):
        try:
            self._die.unlink()
        except FileNotFoundError:
            return self._engine.poll()
        os._exit(1)

    def update_weights(self, version, folder):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from optpo.sampling.engine import SampleSettings
        from optpo.sampling.transformers_engine import TransformersEngine

        torch.set_num_threads(1)
        settings = json.loads(self._settings_file.read_text())
        sample = SampleSettings(
            **{name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
        )
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        decode = AutoTokenizer.from_pretrained(folder).decode
        self._engine = TransformersEngine(model, decode, (2, 3, 4, 5, 6, 7), sample)
        self._engine.update_weights(version)


class Counting:
    """Finishes its oldest rollout at each poll, with as many tokens as its index says, and one.

    One that is cancelled has cost as many.
    """

    slots = 4
    prefill_tokens = 5

    def __init__(self, cancel=True, fails=False, closed=None):
        self.capabilities = Capabilities(cancel, True, True, True, True)
        self._fails, self._closed = fails, closed
        self._in_flight, self._next = {}, 100

    def submit(self, request):
        self._next += 1
        self._in_flight[self._next] = request
        return self._next

    def cancel(self, handle):
        return self._in_flight.pop(handle).index + 1

    def poll(self):
        if self._fails:
            raise EngineError("the tap is dry")
        time.sleep(0.002)
        if not self._in_flight:
            return []
        handle = next(iter(self._in_flight))
        index = self._in_flight.pop(handle).index
        return [Completion(handle, (1,) * (index + 1), (-0.5,) * (index + 1), "stop", 0)]

    def update_weights(self, version, folder):
        pass

    def close(self):
        if self._closed is not None:
            self._closed.touch()


def refusing():
    """A worker that cannot make its engine."""
    raise EngineError("no such model on this machine")


def unlike(folder: Path):
    """The first to be made cannot cancel; the second can."""
    try:
        (folder / "first").mkdir()
    except FileExistsError:
        return Counting(cancel=True)
    return Counting(cancel=False)
