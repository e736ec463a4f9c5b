"""Claim: our loop samples ragged rollouts faster than plain `generate`, and than the engines beside it.

Random Llamas of 0.1, 6 and 27 million parameters over 90 tokens, whose end token falls at random:
lengths are geometric, cut at 256. 8, 32 and 128 questions of 8 to 32 random tokens, one rollout each
(`--rollouts` for more), temperature 1, nothing cut off, float32, one thread:

- optpo: the `transformers` engine, 64 rows;
- generate: transformers' `generate`, left-padded batches of 64; a batch runs on to its longest;
- continuous: transformers' continuous batching, tuned: its defaults are made for a GPU;
- trl: what TRL's GRPOTrainer calls to sample, by continuous batching with the same tuning;
- vllm: vLLM on the CPU, where `--vllm-python` names an interpreter that has it.

Useful tokens are those up to and with the end token. Each contender has a process of its own, one of
them works at a time, and their repeats take turns. Log-probs of the sampled tokens come with optpo
and vllm only. What is not installed is skipped.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

MODELS = {
    "0.1M": {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2},
    "6M": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 8},
    "27M": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8},
}
HEADS = {"0.1M": 2, "6M": 8, "27M": 8}
QUESTIONS = (8, 32, 128)
# Few questions are quickly sampled, and their lengths vary most.
REPEATS = {8: 9, 32: 5, 128: 3}
ENGINES = ("optpo", "generate", "continuous", "trl", "vllm")
ROWS, CAP = 64, 256
CONTENDERS = Path(__file__).with_name("engine_contenders.py")

Result = dict[str, Any]


def main() -> None:
    """Measure every model, number of questions and engine; print and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--rollouts", type=int, default=1, help="of each question")
    parser.add_argument("--vllm-python", type=Path, help="an interpreter that has vLLM")
    parser.add_argument("--quick", action="store_true", help="two models, two sizes, two repeats")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    models = options.models.split(",")
    questions, repeats = QUESTIONS, REPEATS
    if options.quick:
        models, questions, repeats = models[:2], QUESTIONS[:2], dict.fromkeys(QUESTIONS, 2)
    pythons = dict(installed(options.engines.split(","), options.vllm_python))
    rows: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="optpo-benchmark-") as name:
        for model in models:
            folder = Path(name, model)
            write_model(model, folder)
            for count in questions:
                cell = {
                    "model": model,
                    "folder": str(folder),
                    "questions": count,
                    "rollouts": options.rollouts,
                    "seed": options.seed,
                    "rows": ROWS,
                    "cap": CAP,
                }
                found = measure(cell, pythons, repeats[count])
                rows += found
                show(found)
    result = {"machine": machine(), "load": os.getloadavg()[1], "rows": rows}
    print(result["machine"])
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def installed(engines: Sequence[str], vllm_python: Path | None) -> Iterator[tuple[str, str]]:
    """The engines that can run, each with the interpreter that has it; says which cannot."""
    for engine in engines:
        if engine == "vllm" and vllm_python is not None:
            yield engine, str(vllm_python)
        elif engine == "vllm":
            print("vllm: skipped, for --vllm-python names no interpreter that has it")
        elif engine == "trl" and find_spec("trl") is None:
            print("trl: skipped, for it is not installed (pip install --no-deps trl==1.16.0)")
        else:
            yield engine, sys.executable


def write_model(name: str, folder: Path) -> None:
    """A random Llama, as a folder that every engine loads."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **MODELS[name],
        vocab_size=90,
        num_attention_heads=HEADS[name],
        num_key_value_heads=HEADS[name],
        max_position_embeddings=512,
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def measure(cell: Result, pythons: dict[str, str], repeats: int) -> list[Result]:
    """Rows of one model and number of questions, one an engine."""
    costs: dict[str, list[Result]] = {engine: [] for engine in pythons}
    with ExitStack() as stack:
        workers = {
            engine: stack.enter_context(worker(cell | {"engine": engine}, python))
            for engine, python in pythons.items()
        }
        for repeat in range(repeats):
            for engine, process in workers.items():
                costs[engine].append(ask(process, cell["seed"] * 1000 + repeat + 1))
    return [row_of(cell, engine, own) for engine, own in costs.items()]


@contextmanager
def worker(cell: Result, python: str) -> Iterator[subprocess.Popen[str]]:
    """A contender's process, loaded and warm."""
    # One thread everywhere: two gain nothing on these models, and hide who does more work.
    variables = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            [python, str(CONTENDERS), json.dumps(cell)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | variables,
        ) as process,
    ):
        try:
            read(process)
            yield process
        except EOFError:
            log.seek(0)
            raise SystemExit(f"{cell['engine']} failed:\n{log.read()[-3000:]}") from None
        finally:
            process.kill()


def ask(process: subprocess.Popen[str], seed: int) -> Result:
    """What one sampling of all questions cost."""
    assert process.stdin is not None
    print(seed, file=process.stdin, flush=True)
    return read(process)


def read(process: subprocess.Popen[str]) -> Result:
    """The next line of a contender's process."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise EOFError
    answer: Result = json.loads(line)
    return answer


def row_of(cell: Result, engine: str, costs: Sequence[Result]) -> Result:
    """Medians over the repeats, and the least and most."""
    per_cpu = [cost["tokens"] / cost["cpu_seconds"] for cost in costs]
    return {
        "engine": engine,
        "model": cell["model"],
        "questions": cell["questions"],
        "rollouts": cell["rollouts"],
        "useful_tokens_per_second": statistics.median(
            cost["tokens"] / cost["seconds"] for cost in costs
        ),
        "useful_tokens_per_cpu_second": statistics.median(per_cpu),
        "least_and_most_per_cpu_second": [min(per_cpu), max(per_cpu)],
        "peak_mb": max(cost["peak_mb"] for cost in costs),
        "loaded_mb": max(cost["loaded_mb"] for cost in costs),
        "repeats": len(costs),
    }


def show(rows: Sequence[Result]) -> None:
    """A table of one model and number of questions, with ratios of optpo to each."""
    own = next((row for row in rows if row["engine"] == "optpo"), rows[0])
    table = Table(
        "engine",
        "tokens a second",
        "a CPU second (least to most)",
        f"{own['engine']} to it, CPU",
        "peak MB (loaded)",
        title=f"{own['model']}, {own['questions']} questions, {own['repeats']} repeats",
    )
    for row in rows:
        least, most = row["least_and_most_per_cpu_second"]
        rate = row["useful_tokens_per_cpu_second"]
        table.add_row(
            row["engine"],
            f"{row['useful_tokens_per_second']:,.0f}",
            f"{rate:,.0f} ({least:,.0f} to {most:,.0f})",
            f"{own['useful_tokens_per_cpu_second'] / rate:.2f}",
            f"{row['peak_mb']:.0f} ({row['loaded_mb']:.0f})",
        )
    Console().print(table)


def machine() -> str:
    """What it ran on."""
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), torch {torch.__version__}, transformers "
        f"{transformers.__version__}, 1 thread, Python {platform.python_version()}"
    )


if __name__ == "__main__":
    main()
