"""Faults between the engine and a real server: the verdicts are those of a run without them."""

import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy
from model_server import Model, ModelServer
from voting_run import QUICK, verdicts

from optpo.sampling.endpoint import Endpoint
from optpo.sampling.engine import SampleSettings
from optpo.sampling.openai_engine import open_endpoint

END_TOKENS = (2, 3, 4, 5, 6, 7)
SETTINGS = SampleSettings(max_new_tokens=8)
ALL = (
    "refused", "reset", "500", "502", "429", "hang", "cut", "stall", "short", "wrong json",
    "no json", "empty choices", "error event", "abort", "delivered twice", "event twice",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(llama, tokenizer):
    with (
        closing(Model(llama, tokenizer, END_TOKENS)) as model,
        closing(ModelServer(model)) as server,
    ):
        yield server


@contextmanager
def engine_at(url, on_notice=print, **settings):
    endpoint = Endpoint(url, **QUICK | settings)
    with closing(open_endpoint(endpoint, SETTINGS, on_notice)) as engine:
        yield engine


@pytest.fixture(scope="module")
def faultless(server):
    """The verdicts of the server itself, which is deterministic."""
    with engine_at(server.url) as engine:
        assert engine.capabilities.exact_streams
        first = verdicts(engine)
    assert len({label for _, _, label, _ in first}) == 3
    return first


def through(server, faults, share=0.2):
    """The verdicts through a proxy that stages these faults, and how often it did."""
    silent = {"hang", "stall"} & {*faults}
    limits = {"first_token_seconds": 0.5, "stall_seconds": 0.5} if silent else {}
    with (
        closing(FaultyProxy(server.port, faults, share)) as proxy,
        engine_at(proxy.url, **limits) as engine,
    ):
        proxy.armed = True
        return verdicts(engine), proxy.staged


def test_all_faults_together_change_no_verdict(server, faultless):
    """200 questions while every kind of fault is staged, by chance: the same votes, each once."""
    found, staged = through(server, ALL)
    assert found == faultless
    assert sum(staged.values()) > 50


@pytest.mark.slow
@pytest.mark.parametrize(
    "faults",
    [
        ("refused",), ("reset", "500", "502"), ("429",), ("hang", "stall"), ("cut", "short"),
        ("wrong json", "no json", "empty choices"), ("error event", "abort"),
        ("delivered twice", "event twice"),
    ],
    ids=", ".join,
)  # fmt: skip
def test_one_kind_of_fault_changes_no_verdict(server, faultless, faults):
    """200 questions while one kind of fault is staged often: the same votes, each once."""
    found, staged = through(server, faults, share=0.3)
    assert found == faultless
    assert all(staged[fault] >= 2 for fault in faults)


@contextmanager
def proxy_process(port, upstream):
    """A proxy that behaves, in a process of its own; killed at the end if not before."""
    script = Path(__file__).parent / "faulty_proxy.py"
    with subprocess.Popen([sys.executable, script, str(port), str(upstream)]) as process:
        while process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.01)
        yield process
        process.kill()


def free_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return taken.getsockname()[1]


@pytest.mark.slow
def test_a_server_killed_and_started_again_changes_no_verdict(server, faultless):
    """It is waited for, which is said once, and every question has the verdict it would have had."""
    port, notices, processes = free_port(), [], []
    with ExitStack() as stack:

        def start():
            processes.append(stack.enter_context(proxy_process(port, server.port)))

        def kill(done, total):
            if done in (40, 120):
                processes[-1].kill()
                processes[-1].wait()

        def hear(text):
            notices.append(text)
            start()

        start()
        # Spoken of after a tenth of the patience.
        engine = stack.enter_context(
            engine_at(f"http://127.0.0.1:{port}/v1", hear, patience_seconds=10.0)
        )
        assert verdicts(engine, on_verdict=kill) == faultless
    # Started again because of a notice, so that there was one for each kill.
    assert len(notices) == 2 and len(processes) == 3
    assert all("no connection" in text and "up to 10 s" in text for text in notices)
