"""The contract of every engine, on a real vLLM: see test_engine_contract.py."""

from contextlib import closing, contextmanager
from functools import partial

import pytest
import test_engine_contract
from engines import END_TOKENS, Tiny
from vllm_models import LONGEST_PROMPT, as_folder, wide_llama

from optpo.sampling.engine import SampleSettings
from optpo.sampling.vllm_engine import VllmEngine, open_vllm

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` installs it")
pytestmark = pytest.mark.vllm

globals().update(
    {name: test for name, test in vars(test_engine_contract).items() if name.startswith("test_")}
)


@pytest.fixture(scope="session")
def tiny(tokenizer, tmp_path_factory):
    """Two models that differ, of a size that vLLM takes."""
    models = [wide_llama(seed) for seed in (0, 1)]
    folders = [as_folder(model, tokenizer, tmp_path_factory.mktemp("wide")) for model in models]
    return Tiny(models[0], tokenizer, *folders)


@pytest.fixture(scope="module")
def started(tiny):
    """A vLLM that most tests share, since starting one takes long."""
    settings = SampleSettings(rows=8, max_new_tokens=40, stop=("none",))
    with closing(open_vllm(tiny.folder, settings, END_TOKENS, LONGEST_PROMPT)) as engine:
        yield engine


@pytest.fixture
def open_engine(request, tiny):
    """Open an engine with these settings."""
    if request.function is test_engine_contract.test_closing_drops_what_is_in_flight:
        return lambda **settings: closing(
            open_vllm(tiny.folder, SampleSettings(**settings), END_TOKENS, LONGEST_PROMPT)
        )
    return partial(sharing, request.getfixturevalue("started"), tiny.folder)


@contextmanager
def sharing(started, folder, **settings):
    """An engine over the vLLM that is there, which it leaves idle and with its first weights."""
    engine = VllmEngine(
        started._llm, started._loop, SampleSettings(**settings), END_TOKENS, started._names
    )
    yield engine
    for handle in list(engine._in_flight):
        engine.cancel(handle)
    engine.update_weights(0, folder)
