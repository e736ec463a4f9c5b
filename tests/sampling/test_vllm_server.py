"""The engine for servers, against vLLM's own."""

import time
from contextlib import closing, contextmanager

import pytest
import torch
from engines import poll_all
from faulty_proxy import FaultyProxy
from vllm_models import as_folder, wide_llama
from vllm_server import vllm_server
from voting_run import QUICK, RULE, Parity, parity_of

from optpo.sampling.ballot import Ballot, Reader
from optpo.sampling.endpoint import Endpoint
from optpo.sampling.engine import Request, SampleSettings
from optpo.sampling.openai_engine import open_endpoint
from optpo.sampling.scheduler import take_votes
from optpo.sampling.vllm_engine import open_vllm

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` installs it")
pytestmark = pytest.mark.vllm

SETTINGS = SampleSettings(max_new_tokens=60, rows=16, stop=("w40", "w50", "w60", "w70"))
FAULTS = ("reset", "500", "429", "cut", "stall", "short", "wrong json", "empty choices", "abort")


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """A model that hardly ever ends by itself: never, where it is greedy."""
    model = wide_llama(0)
    with torch.no_grad():
        model.lm_head.weight[2] = 0.0
    return as_folder(model, tokenizer, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(folder):
    with vllm_server(folder, rows=16, longest=1000) as server:
        yield server


@contextmanager
def engine_at(url, settings=SETTINGS, **patience):
    endpoint = Endpoint(url, api="completions", **QUICK | patience)
    with closing(open_endpoint(endpoint, settings, print)) as engine:
        yield engine


def verdicts(engine, tokenizer):
    """The votes on 50 questions, asked as token ids: decision, tally, label and tokens of each."""
    ballots = [Ballot(f"q{n}", (8 + n, 9), Parity()) for n in range(50)]
    reader = Reader(lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True), parity_of)
    take_votes(engine, ballots, RULE, reader, seed=3, version=0, purpose="test")
    return [
        (one.decision, one.tally, one.label, tuple(rollout.tokens for rollout in one.rollouts))
        for one in ballots
    ]


@pytest.fixture(scope="module")
def in_process(folder, tokenizer):
    """The verdicts without a server in between."""
    with closing(open_vllm(folder, SETTINGS, (2,), longest_prompt=8)) as engine:
        found = verdicts(engine, tokenizer)
    assert len({label for _, _, label, _ in found}) == 3
    return found


def test_it_is_found_out(server):
    """Seeds that repeat their tokens, log-probs and token ids."""
    with engine_at(server.url) as engine:
        capabilities = engine.capabilities
        assert capabilities.seed and capabilities.logps and capabilities.token_ids
        assert capabilities.exact_streams
        engine.submit(Request("q", (8, 9), 0, 5))
        [completion] = poll_all(engine).values()
        assert len(completion.logps) == len(completion.tokens) > 0


def test_its_verdicts_are_those_of_vllm_in_process(server, tokenizer, in_process):
    """The same votes of the same tokens: a rollout is asked for in the same way."""
    with engine_at(server.url) as engine:
        assert verdicts(engine, tokenizer) == in_process


def test_faults_change_no_verdict(server, tokenizer, in_process):
    """Connections that break, refusals and wrong answers in between, often: the same votes."""
    with closing(FaultyProxy(server.port, FAULTS, 0.3)) as proxy:
        limits = {"first_token_seconds": 10.0, "stall_seconds": 2.0}
        with engine_at(proxy.url, **limits) as engine:
            proxy.armed = True
            assert verdicts(engine, tokenizer) == in_process
        assert sum(proxy.staged.values()) > 20


def test_cancelling_frees_the_servers_slot(server):
    """It stops decoding a rollout whose stream is closed, and goes on with the one that stays."""
    with engine_at(server.url, SampleSettings(temperature=0.0, max_new_tokens=900)) as engine:
        stays, *dropped = [engine.submit(Request("q", (8, 9 + n), n, n)) for n in range(8)]
        wait_until(lambda: server.running() >= 4)
        for handle in dropped:
            engine.cancel(handle)
        wait_until(lambda: server.running() == 1)
        [completion] = poll_all(engine).values()
        assert (completion.handle, len(completion.tokens)) == (stays, 900)
    wait_until(lambda: server.running() == 0)


def wait_until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
