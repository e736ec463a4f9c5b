"""Every engine over one tiny model, opened alike, for the tests that any engine must pass."""

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from model_server import Model, ModelServer

from optpo.sampling.endpoint import Endpoint
from optpo.sampling.engine import Engine, Request, SampleSettings, stream_seed
from optpo.sampling.openai_engine import open_endpoint
from optpo.sampling.recorded_engine import RecordedEngine
from optpo.sampling.transformers_engine import TransformersEngine

END_TOKENS = (2, 3, 4, 5, 6, 7)


@dataclass(frozen=True)
class Tiny:
    """A tiny model in memory and as a folder (tokenizer included), and other weights for it."""

    model: object
    tokenizer: object
    folder: Path
    other_folder: Path


Open = Callable[[Tiny, SampleSettings], AbstractContextManager[Engine]]


def requests_of(count, questions=6):
    """Rollouts of a few questions; each request is a function of its place alone."""
    draw = random.Random(3)
    prompts = [
        tuple(draw.randrange(8, 95) for _ in range(draw.randrange(1, 9))) for _ in range(questions)
    ]
    return [
        Request(
            f"q{n % questions}", prompts[n % questions], n // questions,
            stream_seed(1, 0, f"q{n % questions}", n // questions, "contract"),
        )
        for n in range(count)
    ]  # fmt: skip


def poll_all(engine):
    """Completions by handle, until the engine is idle; no handle comes twice."""
    done = {}
    while completions := engine.poll():
        for completion in completions:
            assert completion.handle not in done
            done[completion.handle] = completion
    return done


@contextmanager
def open_transformers(tiny: Tiny, sample: SampleSettings) -> Iterator[Engine]:
    """The embedded engine, over a module of its own."""
    engine = TransformersEngine(
        copy.deepcopy(tiny.model), tiny.tokenizer.decode, END_TOKENS, sample
    )
    yield engine
    engine.close()


@contextmanager
def open_recorded(tiny: Tiny, sample: SampleSettings) -> Iterator[Engine]:
    """Every second rollout is recorded; the embedded engine stands behind for the others."""
    requests = requests_of(96)[::2]
    with open_transformers(tiny, sample) as engine:
        handles = {engine.submit(request): request for request in requests}
        recorded = {
            (handles[handle].prompt_id, handles[handle].index): completion
            for handle, completion in poll_all(engine).items()
        }
    with open_transformers(tiny, sample) as behind:
        engine = RecordedEngine(recorded, behind)
        yield engine
        engine.close()


@contextmanager
def open_openai(tiny: Tiny, sample: SampleSettings) -> Iterator[Engine]:
    """A real server on loopback, asked by token ids."""
    with (
        closing(Model(tiny.model, tiny.tokenizer, END_TOKENS)) as model,
        closing(ModelServer(model)) as server,
        closing(open_endpoint(Endpoint(server.url, api="completions"), sample)) as engine,
    ):
        yield engine


ENGINES: dict[str, Open] = {
    "transformers": open_transformers,
    "recorded": open_recorded,
    "openai": open_openai,
}
