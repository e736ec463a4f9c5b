"""The engine against `transformers serve`, a server of the protocol that is not ours."""

import copy
import socket
from contextlib import closing

import pytest
from faulty_proxy import FaultyProxy
from voting_run import QUICK, verdicts

from optpo.errors import SettingsError
from optpo.sampling.endpoint import Endpoint
from optpo.sampling.engine import Request, SampleSettings
from optpo.sampling.openai_engine import open_endpoint
from optpo.voting import FixedRule

pytestmark = pytest.mark.slow

LONGEST = 6
FAULTS = ("reset", "500", "429", "cut", "short", "wrong json", "empty choices", "abort")


@pytest.fixture(scope="module", params=[False, True], ids=["one by one", "continuous batching"])
def served(request, llama, tokenizer, tmp_path_factory):
    """A tiny model that samples, served from a folder: the port, and its name."""
    from transformers.cli.serve import Serve

    folder = str(tmp_path_factory.mktemp("served"))
    model, spoken = copy.deepcopy(llama), copy.deepcopy(tokenizer)
    model.generation_config.do_sample = True
    model.generation_config.eos_token_id = [2, 3, 4, 5, 6, 7]
    spoken.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    model.save_pretrained(folder)
    spoken.save_pretrained(folder)
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    # Its own choice of a cache is far too large for a processor (and slow).
    batching = {"cb_block_size": 32, "cb_num_blocks": 200, "cb_max_batch_tokens": 256}
    server = Serve(
        force_model=folder, host="127.0.0.1", port=port, device="cpu", log_level="error",
        non_blocking=True, continuous_batching=request.param, **batching if request.param else {},
    )  # fmt: skip
    yield port, folder
    server.kill_server()


def engine_at(port, folder, **settings):
    """An engine for it, or for what stands in front of it."""
    endpoint = Endpoint(f"http://127.0.0.1:{port}", model=folder, **QUICK | settings)
    return closing(open_endpoint(endpoint, SampleSettings(max_new_tokens=LONGEST), print))


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_it_is_found_out_and_sampled_from(served, api):
    """What it lacks is seen (log-probs, token ids, seeds beside a neighbour), and all come back."""
    port, folder = served
    with engine_at(port, folder, api=api) as engine:
        capabilities = engine.capabilities
        assert not (capabilities.logps or capabilities.token_ids or capabilities.exact_streams)
        handles = [engine.submit(Request("q", (), n, n, f"w{8 + n} w9")) for n in range(20)]
        done = {}
        while completions := engine.poll():
            done |= {completion.handle: completion for completion in completions}
        assert done.keys() == set(handles)
        assert {completion.finish for completion in done.values()} == {"stop", "length"}
        for completion in done.values():
            assert 1 <= len(completion.tokens) <= LONGEST and {*completion.tokens} == {-1}
            assert (completion.finish == "length") <= (len(completion.tokens) == LONGEST)
        assert len({completion.text for completion in done.values()}) > 10
        assert engine.prefill_tokens > 0


def test_what_it_does_not_take_is_refused(served):
    """It has no top-k; sampling without it is not what was asked for."""
    port, folder = served
    endpoint = Endpoint(f"http://127.0.0.1:{port}", model=folder, **QUICK)
    with pytest.raises(SettingsError, match="top_k = 5"):
        open_endpoint(endpoint, SampleSettings(top_k=5, max_new_tokens=LONGEST))


@pytest.mark.parametrize("served", [True], ids=["continuous batching"], indirect=True)
def test_faults_change_no_verdict(served):
    """Asked for one rollout at a time its seeds repeat them, and then faults change nothing."""
    port, folder = served
    rule = FixedRule(votes=1)
    with engine_at(port, folder, concurrency=1) as engine:
        assert engine.capabilities.exact_streams
        faultless = verdicts(engine, rule=rule)
    with closing(FaultyProxy(port, FAULTS)) as proxy:
        with engine_at(proxy.port, folder, concurrency=1) as engine:
            proxy.armed = True
            assert verdicts(engine, rule=rule) == faultless
        assert sum(proxy.staged.values()) > 30
