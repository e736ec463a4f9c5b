"""Claims of the voting room, each measured beside its rivals in one run.

1. At equal agreement the best rule is within 1.05 of the dynamic-programming limit, and needs no
   more votes than the best peer.
2. Curtailment changes no label; the predictive rule changes at most as many as it says.
3. PPR and betting keep their error on votes chosen to break it.
4. Where votes are diffuse, rules abstain.
5. A decision takes less than a microsecond a vote, and less than a peer's.

The votes are files of JSON Lines as `optpo replay` takes them, given by `--votes`; where the public
ones are to be found stands in README.md. The peers come from their packages, in this environment:

    pip install --no-deps AdaptiveConsistency==1.0.0 consol==0.3.0

(and pydantic, which ConSol's tests need; LangChain, which its package imports, is not needed). ESC
(no package, no licence) is `WindowRule`.
"""

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console
from voting_claims import agreement, diffuse, guarantees, lossless, speed
from voting_claims.contenders import INSTALL, missing_peers

from optpo.data.answers import AnswerSettings
from optpo.voting.recorded import RecordedVotes, read_recorded

CLAIMS = ("agreement", "dirichlet", "lossless", "guarantees", "diffuse", "speed")


def main() -> None:
    """Measure the claims, print their tables and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--votes", type=Path, nargs="+", required=True, metavar="FILE")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2], help="of the orders")
    parser.add_argument("--orders", type=int, default=8, help="of each question, with each seed")
    parser.add_argument("--cap", type=int, default=64, help="at most a file's shortest question")
    parser.add_argument("--claims", nargs="+", choices=CLAIMS, default=CLAIMS)
    parser.add_argument("--quick", action="store_true", help="one seed, two orders, small samples")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    if missing := missing_peers():
        sys.stderr.write(f"not installed: {', '.join(missing)}; install them by\n{INSTALL}\n")
        sys.exit(2)
    if options.quick:
        options.seed, options.orders = options.seed[:1], min(2, options.orders)
    files = {
        path.stem: read_recorded(path, AnswerSettings().canonical_key) for path in options.votes
    }
    result: dict[str, Any] = {"machine": machine(), "load_before": os.getloadavg(), "missed": []}
    console = Console(width=150)
    console.print(result["machine"])
    for claim in options.claims:
        result[claim], missed = measure(claim, files, options, console)
        result["missed"] += missed
    result["load_after"] = os.getloadavg()
    console.print("Targets missed:", *(result["missed"] or ["none"]), sep="\n")
    console.print(
        f"load before and after: {result['load_before'][0]:.1f}, {os.getloadavg()[0]:.1f}"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(
    claim: str, files: dict[str, list[RecordedVotes]], options: argparse.Namespace, console: Console
) -> tuple[Any, list[str]]:
    """One claim: prints its tables; returns what was found, and the targets that it missed."""
    quick, orders, seed = options.quick, options.orders, options.seed[0]
    caps = {
        file: min(options.cap, *(len(each.votes) for each in questions))
        for file, questions in files.items()
    }
    found: Any
    if claim in ("agreement", "dirichlet"):
        found = {}
        for file, questions in files.items():
            if claim == "agreement":
                rows = agreement.at_equal_agreement(questions, caps[file], orders, options.seed)
            else:
                rows = agreement.against_dirichlet(questions, caps[file], min(2, orders), seed)
            console.print(agreement.table(f"{file}, cap {caps[file]}", rows))
            found[file] = rows
        return found, agreement.missed(found)
    if claim == "lossless":
        found = lossless.on_its_own_model(2_000 if quick else 20_000, options.cap)
        for file, questions in files.items():
            found += lossless.on_recorded(file, questions, caps[file], orders, seed)
        console.print(lossless.table(found))
        return found, lossless.missed(found)
    if claim == "guarantees":
        found = {
            "errors": guarantees.errors(1_000 if quick else 20_000),
            "costs": guarantees.costs(200 if quick else 2_000),
        }
        console.print(guarantees.error_table(found["errors"]))
        console.print(guarantees.cost_table(found["costs"]))
        return found, guarantees.missed(found["errors"])
    if claim == "diffuse":
        file = diffuse.most_diffuse(files)
        found = {file: diffuse.by_rule(files[file], caps[file], orders, seed)}
        console.print(diffuse.table(f"{file}, cap {caps[file]}", found[file]))
        return found, []
    found = {
        "rules": speed.rules(1_000 if quick else 10_000, 3 if quick else 5),
        "peers": speed.peers(1 if quick else 5),
        "replay": speed.replay_seconds(200 if quick else 5_000, 80, 8),
    }
    console.print(speed.rule_table(found["rules"]))
    console.print(speed.peer_table(found["peers"]))
    console.print("optpo replay:", found["replay"])
    return found, speed.missed(found)


def machine() -> str:
    """What it ran on."""
    peers = ", ".join(f"{name} {version(name)}" for name in ("AdaptiveConsistency", "consol"))
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), 1 thread, Python "
        f"{platform.python_version()}, NumPy {np.__version__}, SciPy {version('scipy')}; {peers}"
    )


if __name__ == "__main__":
    main()
