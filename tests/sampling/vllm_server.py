"""vLLM as a server of the OpenAI protocol on loopback, in a process of its own."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class VllmServer:
    """A server that answers."""

    port: int

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def running(self):
        """The requests that it is decoding, by its own account."""
        page = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics").read().decode()
        return sum(map(float, re.findall(r"^vllm:num_requests_running\{.*\} (\S+)$", page, re.M)))


@contextmanager
def vllm_server(folder: Path, rows: int, longest: int):
    """Serve the model in a folder, `rows` rollouts at once, prompts included `longest` tokens each.

    Not by `vllm serve`, which looks for the package under the name that it has on a GPU; and no
    prompt is computed in pieces, which on a CPU ends the server where a rollout has a seed.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder),
        "--served-model-name", "wide", "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "float32", "--max-model-len", str(longest), "--max-num-seqs", str(rows),
        "--max-num-batched-tokens", "2048", "--no-enable-chunked-prefill", "--enforce-eager",
        "--block-size", "32", "--enable-prompt-tokens-details",
    ]  # fmt: skip
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    log = folder / "server.log"
    with (
        log.open("w") as written,
        subprocess.Popen(
            command, env=os.environ | quiet, stdout=written, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            while True:
                with suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
                    break
                assert process.poll() is None, log.read_text()
                time.sleep(0.2)
            yield VllmServer(port)
        finally:
            process.terminate()
