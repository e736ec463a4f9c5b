"""Claim 5: a decision takes less than a microsecond a vote, and less than a peer's.

All times are of one process on one thread; each repeat counts its votes anew.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from optpo.recipes.rule_specs import read_rules, shipped_specs
from optpo.voting import BetaRule, DirichletRule, LeadRule, StoppingRule, Tallies, Tally
from voting_claims.contenders import consol_models, dirichlet_criterion
from voting_claims.lossless import draw

VOTES = 64


def rules(questions: int, repeats: int) -> list[dict[str, Any]]:
    """Nanoseconds a vote of each rule as it comes, over questions of 64 votes with 1 to 20 answers."""
    votes = draw(questions, VOTES, 1.0, np.random.default_rng(0))
    specs = shipped_specs()

    def counting() -> None:
        _ = Tallies(votes).leader

    rows = [{"rule": "counting alone", **nanoseconds(counting, votes.size, repeats)}]
    for spec, rule in zip(specs, read_rules(specs), strict=True):

        def deciding(rule: StoppingRule = rule) -> None:
            rule.decide_many(Tallies(votes))

        rows.append({"rule": spec, **nanoseconds(deciding, votes.size, repeats)})
    return rows


def peers(repeats: int) -> list[dict[str, Any]]:
    """A vote at a time and the votes of all questions at once, ours beside the peers', same votes."""
    from adaptive_consistency import BetaStoppingCriteria

    votes = draw(40, VOTES, 1.0, np.random.default_rng(1))
    models = consol_models()
    sprt, msprt = models.SprtConfidenceModel(), models.MsprtConfidenceModel()

    def consol(model: Any) -> Callable[[list[int]], Any]:
        def test(answers: list[int]) -> Any:
            first, second = ([n for _, n in Counter(answers).most_common(2)] + [0])[:2]
            return model.test(first, second)

        return test

    contests = (
        ("AdaptiveConsistency Beta", BetaStoppingCriteria().should_stop, BetaRule(), votes),
        (
            "AdaptiveConsistency Dirichlet",
            dirichlet_criterion().should_stop,
            DirichletRule(),
            votes[:2],
        ),
        ("ConSol SPRT", consol(sprt), LeadRule(3), votes),
        ("ConSol mSPRT", consol(msprt), LeadRule(3), votes),
    )
    rows = []
    for name, test, rule, matrix in contests:
        streams = matrix.tolist()

        def theirs(test: Any = test, streams: Any = streams) -> None:
            for stream in streams:
                for n in range(1, VOTES + 1):
                    test(stream[:n])

        def one_by_one(rule: Any = rule, streams: Any = streams) -> None:
            for stream in streams:
                tally = Tally()
                for vote in stream:
                    tally = tally.add(vote)
                    rule.decide(tally)

        def at_once(rule: Any = rule, matrix: Any = matrix) -> None:
            rule.decide_many(Tallies(matrix))

        rows.append(
            {
                "peer": name,
                "rule": type(rule).__name__,
                "theirs": nanoseconds(theirs, matrix.size, repeats),
                "one_by_one": nanoseconds(one_by_one, matrix.size, repeats),
                "at_once": nanoseconds(at_once, matrix.size, repeats),
            }
        )
    return rows


def nanoseconds(work: Callable[[], None], votes: int, repeats: int) -> dict[str, float]:
    """Median, least and most nanoseconds a vote, after one repeat that does not count."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        work()
        taken.append((time.perf_counter_ns() - start) / votes)
    return {"median": statistics.median(taken), "min": min(taken), "max": max(taken)}


def replay_seconds(questions: int, answers: int, orders: int) -> dict[str, Any]:
    """Seconds of `optpo replay` with every rule on a file of simulated votes, start to end."""
    votes = draw(questions, answers, 1.0, np.random.default_rng(2)).tolist()
    with tempfile.TemporaryDirectory(prefix="optpo-benchmark-") as folder:
        file = Path(folder, "votes.jsonl")
        lines = (
            json.dumps({"id": f"q{place}", "answers": [str(vote) for vote in row], "gold": "0"})
            for place, row in enumerate(votes)
        )
        file.write_text("\n".join(lines))
        command = [sys.executable, "-m", "optpo.cli.main", "replay", str(file)]
        command += ["--orders", str(orders), "--json", str(Path(folder, "rows.json"))]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        rules_run = len(json.loads(Path(folder, "rows.json").read_text())["rows"])
    shape = {"questions": questions, "answers": answers, "orders": orders, "rules": rules_run}
    return {"seconds": seconds, **shape, "load": os.getloadavg()[0]}


def missed(found: dict[str, Any]) -> list[str]:
    """Targets not reached."""
    lines = [
        f"{row['rule']}: {row['median']:.0f} ns a vote, the target is 1000"
        for row in found["rules"]
        if row["median"] > 1000 and row["rule"] != "dirichlet"
    ]
    lines += [
        f"{row['rule']}, {way}: {ratio:.2f} of the time of {row['peer']}, the target is 1"
        for row in found["peers"]
        for way in ("one_by_one", "at_once")
        if (ratio := row[way]["median"] / row["theirs"]["median"]) > 1
    ]
    if (seconds := found["replay"]["seconds"]) > 60:
        lines.append(f"optpo replay takes {seconds:.0f} s, the target is 60")
    return lines


def rule_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Nanoseconds a vote by rule."""
    shown = Table("rule", "ns a vote: median (least to most)")
    for row in rows:
        shown.add_row(row["rule"], spread(row))
    return shown


def peer_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Nanoseconds a vote beside the peers', and what a peer takes for one of ours."""
    shown = Table("peer", "ns a vote", "our rule", "vote by vote", "ratio", "all at once", "ratio")
    for row in rows:
        cells = []
        for way in ("one_by_one", "at_once"):
            cells += [spread(row[way]), f"{row['theirs']['median'] / row[way]['median']:.2f}"]
        shown.add_row(row["peer"], spread(row["theirs"]), row["rule"], *cells)
    return shown


def spread(of: dict[str, Any]) -> str:
    """Median and range."""
    return f"{of['median']:,.0f} ({of['min']:,.0f} to {of['max']:,.0f})"
