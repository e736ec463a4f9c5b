"""One engine in this process against one and two workers of a Ray pool: the same verdicts, and the time.

Random Llama models whose rollouts end at random, so that lengths are spread geometrically; a rollout
votes by its length. Each repeat has a seed of its own and is timed on all three in turn. Beside the
seconds on the clock stand those that the busiest process computed: the clock's on a machine with a
free core for each.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.table import Table
from simulated_cluster import Numbers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from optpo.sampling.ballot import Ballot, Reader
from optpo.sampling.engine import Engine, SampleSettings
from optpo.sampling.ray_cluster import RaySettings
from optpo.sampling.ray_engine import RayEngine
from optpo.sampling.scheduler import take_votes
from optpo.sampling.transformers_engine import TransformersEngine
from optpo.voting import FixedRule, OptpoRule, StoppingRule

VOCABULARY, END = 90, 1
SIZES = {"small": (64, 2, 48), "medium": (256, 8, 16)}
"""Hidden size, layers, and how many questions are asked."""

RULES: dict[str, StoppingRule] = {"fixed 16": FixedRule(votes=16), "optpo": OptpoRule()}
READER = Reader(decode=lambda tokens: str(min(5, len(tokens) // 60)), extract=lambda text: text)


def engine_of(folder: Path) -> Engine:
    """What each worker makes: the model in this folder, 32 rollouts at once."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    return TransformersEngine(model, str, (END,), SampleSettings(max_new_tokens=256, rows=32))


def random_model(size: str, folder: Path) -> int:
    """Write a model of this size; its parameters."""
    hidden, layers, _ = SIZES[size]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=3 * hidden,
        num_hidden_layers=layers, num_attention_heads=4, max_position_embeddings=512,
        bos_token_id=0, eos_token_id=END, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return int(model.num_parameters())


def vote(engine: Engine, rule: StoppingRule, questions: int, seed: int) -> dict[str, Any]:
    """Seconds, and what came out: every token of every rollout that was counted."""
    draw = np.random.default_rng(0)
    ballots = [
        Ballot(f"q{n}", tuple(draw.integers(2, VOCABULARY, 16).tolist()), Numbers())
        for n in range(questions)
    ]
    computed, began = cpu_seconds(), time.perf_counter()
    take_votes(engine, ballots, rule, READER, seed=seed, version=0, purpose="benchmark")
    seconds = time.perf_counter() - began
    computed = [then - computed.get(process, 0.0) for process, then in cpu_seconds().items()]
    outcome = [
        (ballot.decision, ballot.tally, tuple(rollout.tokens for rollout in ballot.rollouts))
        for ballot in ballots
    ]
    return {
        "seconds": seconds,
        "busiest": max(computed),
        "computed": sum(computed),
        "tokens": sum(ballot.tokens for ballot in ballots),
        "rollouts": sum(ballot.tally.total for ballot in ballots),
        "outcome": outcome,
    }


def cpu_seconds() -> dict[int, float]:
    """What this process and each Ray worker below it have computed so far."""
    own = psutil.Process()
    workers = [child for child in own.children(recursive=True) if "ray::Worker" in child.name()]
    return {
        process.pid: process.cpu_times().user + process.cpu_times().system
        for process in (own, *workers)
    }


def compare(size: str, repeats: int, seed: int) -> list[dict[str, Any]]:
    """A row a rule and engine."""
    rows, questions = [], SIZES[size][2]
    with tempfile.TemporaryDirectory(prefix="optpo-benchmark-") as scratch:
        folder = Path(scratch)
        parameters = random_model(size, folder)
        pools = {
            workers: RayEngine(partial(engine_of, folder), RaySettings(workers, {"CPU": 0.5}))
            # The first begins Ray, and ends it; so it is closed last.
            for workers in (2, 1)
        }
        engines = {
            "in this process": engine_of(folder),
            "1 worker": pools[1],
            "2 workers": pools[2],
        }
        for engine in engines.values():
            vote(engine, FixedRule(votes=2), questions, seed)
        for name, rule in RULES.items():
            found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
            for repeat in range(repeats):
                for engine in engines:
                    found[engine].append(vote(engines[engine], rule, questions, seed + repeat))
            reference = found["in this process"]
            for engine, runs in found.items():
                same = [
                    own["outcome"] == other["outcome"]
                    for own, other in zip(runs, reference, strict=True)
                ]
                rows.append(
                    {
                        "model": size,
                        "parameters": parameters,
                        "rule": name,
                        "engine": engine,
                        "identical": all(same),
                        "questions": questions,
                        "rollouts": sum(run["rollouts"] for run in runs),
                        "tokens": sum(run["tokens"] for run in runs),
                    }
                    | {
                        what: [round(run[what], 3) for run in runs]
                        for what in ("seconds", "busiest", "computed")
                    }
                )
        pools[1].close()
        pools[2].close()
    return rows


def main() -> None:
    """Compare, print a table and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="the small model, one repeat")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    rows = []
    for size in ("small",) if options.quick else tuple(SIZES):
        repeats = 1 if options.quick else options.repeats
        rows += compare(size, repeats, options.seed)
    machine = (
        f"{os.cpu_count()} cores ({platform.machine()}), one thread a process, Python "
        f"{platform.python_version()}, torch {torch.__version__}, Ray {version('ray')}; load before "
        f"and after {load:.1f}, {os.getloadavg()[0]:.1f}"
    )
    console = Console(width=170)
    console.print(machine)
    console.print(table(rows))
    if options.json:
        result = {"machine": machine, "rows": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def table(rows: list[dict[str, Any]]) -> Table:
    """Medians, and how much less the busiest process computes than the engine in this process."""
    shown = Table(
        "model", "rule", "engine", "same verdicts", "tokens", "seconds", "busiest process", "speed",
        "all processes",
    )  # fmt: skip
    for row in rows:
        own = statistics.median(row["busiest"])
        (alone,) = (
            statistics.median(other["busiest"])
            for other in rows
            if (other["model"], other["rule"]) == (row["model"], row["rule"])
            and other["engine"] == "in this process"
        )
        shown.add_row(
            f"{row['parameters'] / 1e6:.1f} M",
            row["rule"],
            row["engine"],
            "yes" if row["identical"] else "NO",
            f"{row['tokens']:,}",
            spread(row["seconds"]),
            spread(row["busiest"]),
            f"{alone / own:.2f}",
            f"{statistics.median(row['computed']):.2f}",
        )
    return shown


def spread(seconds: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    main()
