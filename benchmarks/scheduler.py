"""Claim: rollouts that early stopping saves become seconds saved.

Votes on questions, cap 64, sampled from a random Llama whose end token falls at random, so lengths
are geometric; a rollout's vote is a hash of its tokens held against its question's own agreement, so
votes do not depend on length but for rollouts cut at 256 tokens, which are no answer. Policies:

- fixed: 64 rollouts for every question;
- rounds: all undecided questions in lock step, each with what could end its test, then all wait;
- waves, speculative: `take_votes` with that schedule.

All but fixed stop by the `optpo` rule, count the same votes and reach the same verdicts, which is
checked. Saved tokens and seconds are shares of fixed; cancelled tokens count as spent. Counting in
the order of arrival stands beside them for its bias: it does not count the same votes.

The scheduler's own cost is measured on recorded rollouts of 1,000 questions: everything but the
engine, in processor time a rollout, and what the rule takes of it.
"""

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from optpo.sampling.ballot import Ballot, Reader, count_votes
from optpo.sampling.engine import Completion, SampleSettings
from optpo.sampling.recorded_engine import RecordedEngine
from optpo.sampling.scheduler import Schedule, submit_next, take_votes
from optpo.sampling.transformers_engine import TransformersEngine
from optpo.voting import FixedRule, OptpoRule, StoppingRule

MODELS = {
    "0.1M": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    "6M": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 8},
}
VOCABULARY, END, LONGEST, CAP = 90, 1, 256, 64
AGREEMENTS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.45)
RULE = OptpoRule(floor=8, cap=CAP)
FIXED = FixedRule(votes=CAP)


class Letters:
    """Answer classes of one question: a number in [0, 1) is a vote for one of four answers."""

    def __init__(self, agreement: float) -> None:
        rest = 1 - agreement
        self._ends = (agreement, agreement + 0.6 * rest, agreement + 0.9 * rest, 1.0)
        self.labels: list[str] = []

    def classify(self, answer: str | None) -> int:
        """The class of an answer; -1 for none."""
        if answer is None:
            return -1
        letter = "ABCD"[sum(float(answer) >= end for end in self._ends)]
        if letter not in self.labels:
            self.labels.append(letter)
        return self.labels.index(letter)

    def to_json(self) -> dict[str, Any]:
        """Nothing goes on from here."""
        return {}


def hashed(tokens: Sequence[int]) -> str:
    """A number in [0, 1) that depends on every token."""
    digest = blake2b(str(list(tokens)).encode(), digest_size=8).digest()
    return str(int.from_bytes(digest, "little") / 2**64)


READER = Reader(decode=hashed, extract=lambda text: text)


def ballots_of(questions: int, seed: int) -> list[Ballot]:
    """Questions of differing agreement and prompt length."""
    draw = random.Random(seed)
    return [
        Ballot(
            f"q{n}",
            tuple(draw.randrange(2, VOCABULARY) for _ in range(draw.randrange(8, 33))),
            Letters(draw.choice(AGREEMENTS)),
        )
        for n in range(questions)
    ]


def in_rounds(engine: TransformersEngine, ballots: Sequence[Ballot], seed: int) -> None:
    """Every undecided question gets what could end its test; the next round begins when all ended."""
    for ballot in ballots:
        ballot.decision = RULE.decide(ballot.tally)
    while undecided := [ballot for ballot in ballots if ballot.open]:
        in_flight = {}
        for ballot in undecided:
            for _ in range(RULE.look_ahead(ballot.tally)):
                index = ballot.launched
                in_flight[submit_next(engine, ballot, seed, 0, "benchmark")] = (ballot, index)
        while completions := engine.poll():
            for completion in completions:
                ballot, index = in_flight[completion.handle]
                ballot.waiting[index] = completion
        for ballot in undecided:
            count_votes(ballot, RULE, READER)


def run(
    policy: str, model: LlamaForCausalLM, rows: int, questions: int, seed: int
) -> dict[str, Any]:
    """Take all votes once by a policy."""
    settings = SampleSettings(max_new_tokens=LONGEST, rows=rows)
    engine = TransformersEngine(model, str, (END,), settings)
    ballots = ballots_of(questions, seed)
    wall, cpu = time.perf_counter(), time.process_time()
    share = None
    if policy == "rounds":
        in_rounds(engine, ballots, seed)
    else:
        schedule: Schedule = "waves" if policy == "fixed" else policy  # type: ignore[assignment]
        occupancy = take_votes(
            engine, ballots, FIXED if policy == "fixed" else RULE, READER, seed=seed, version=0,
            purpose="benchmark", schedule=schedule,
        )  # fmt: skip
        share = occupancy.share
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    counted = sum(ballot.tokens for ballot in ballots)
    cancelled = sum(ballot.cancelled_tokens for ballot in ballots)
    votes = sum(ballot.tally.total for ballot in ballots)
    return {
        "votes": votes,
        "tokens": counted + cancelled,
        "tokens_cancelled": cancelled,
        "seconds": wall,
        "cpu_seconds": cpu,
        "mean_counted_length": counted / votes,
        "slot_occupancy": share,
        "verdicts": [(ballot.decision, ballot.tally.votes) for ballot in ballots],
    }


def compare(name: str, rows: int, questions: int, seeds: Sequence[int], repeats: int) -> list[Any]:
    """All policies side by side, seed by seed; the shares saved are ratios within a seed."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, num_attention_heads=4, num_key_value_heads=4, bos_token_id=0,
        eos_token_id=END, pad_token_id=0, max_position_embeddings=512, **MODELS[name],
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    policies = ("fixed", "rounds", "waves", "speculative", "biased_arrival_order")
    runs: dict[str, list[dict[str, Any]]] = {policy: [] for policy in policies}
    run("waves", model, rows, 2, 99)
    for seed in seeds:
        for _ in range(repeats):
            for policy in policies:
                runs[policy].append(run(policy, model, rows, questions, seed))
            last = {policy: runs[policy][-1] for policy in policies}
            for policy in policies[:-1]:
                verdicts = last[policy].pop("verdicts")
                expected = last["waves"].get("verdicts", verdicts)
                if policy != "fixed" and verdicts != expected:
                    raise RuntimeError(f"{policy} and waves reach different verdicts")
    return [
        {
            "model": name,
            "questions": questions,
            "slots": rows,
            "seeds": len(seeds),
            "policy": policy,
        }
        | summary(runs[policy], runs["fixed"])
        for policy in policies
    ]


def summary(runs: Sequence[dict[str, Any]], fixed: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over seeds and repeats; of the shares saved also the least and the most."""
    names = (
        "votes", "tokens", "tokens_cancelled", "seconds", "cpu_seconds", "mean_counted_length",
    )  # fmt: skip
    middle = {name: statistics.median(run[name] for run in runs) for name in names}
    occupancy = [run["slot_occupancy"] for run in runs if run["slot_occupancy"] is not None]
    saved = {
        f"saved_{name}": [
            1 - run[name] / whole[name] for run, whole in zip(runs, fixed, strict=True)
        ]
        for name in ("tokens", "seconds", "cpu_seconds")
    }
    ratios = [
        seconds / tokens if tokens else None
        for seconds, tokens in zip(saved["saved_seconds"], saved["saved_tokens"], strict=True)
    ]
    known = [ratio for ratio in ratios if ratio is not None]
    return {
        **middle,
        **{name: statistics.median(values) for name, values in saved.items()},
        "slot_occupancy": statistics.median(occupancy) if occupancy else None,
        "seconds_per_token_saved": statistics.median(known) if known else None,
        "seconds_per_token_saved_range": [min(known), max(known)] if known else None,
    }


def overhead(questions: int, seed: int) -> list[dict[str, Any]]:
    """Processor time a rollout of everything but sampling, and of the rule alone."""
    draw = random.Random(seed)
    recorded = {
        (f"q{n}", index): Completion(-1, (draw.randrange(10**9),), (-1.0,), "stop", 0)
        for n in range(questions)
        for index in range(CAP)
    }
    rows = []
    for rule_name, rule in (("fixed", FIXED), ("optpo", RULE)):
        for schedule in ("waves", "speculative"):
            ballots = ballots_of(questions, seed)
            engine = Portions(recorded)
            began = time.process_time()
            take_votes(
                engine, ballots, rule, READER, seed=seed, version=0, purpose="benchmark",
                schedule=schedule,
            )  # fmt: skip
            whole = time.process_time() - began
            rollouts = engine.asked
            began = time.process_time()
            alone(ballots, rule)
            rows.append(
                {
                    "rule": rule_name,
                    "schedule": schedule,
                    "questions": questions,
                    "rollouts": rollouts,
                    "microseconds_a_rollout": 1e6 * whole / rollouts,
                    "of_which_rule": 1e6 * (time.process_time() - began) / rollouts,
                }
            )
    return rows


def alone(ballots: Sequence[Ballot], rule: StoppingRule) -> None:
    """What the rule is asked in waves: a decision and a look ahead a vote."""
    for ballot in ballots:
        tally = type(ballot.tally)()
        for vote in ballot.tally.votes:
            tally = tally.add(vote)
            if not rule.decide(tally).stop:
                rule.look_ahead(tally)


class Portions(RecordedEngine):
    """Recorded rollouts that come back 64 at a time, as from an engine of 64 slots."""

    slots = 64
    asked = 0

    def submit(self, request: Any) -> int:
        """Count what is asked."""
        self.asked += 1
        return super().submit(request)


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="one small model, few questions")
    parser.add_argument("--model", choices=MODELS, help="only this one")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # Model, slots, questions and seeds: the large one takes minutes a seed.
    cells = [("0.1M", 64, 12, 1)] if arguments.quick else [
        ("0.1M", 64, 8, 3), ("0.1M", 64, 48, 3), ("0.1M", 64, 128, 3), ("6M", 64, 48, 1),
    ]  # fmt: skip
    rows = [
        row
        for name, slots, questions, seeds in cells
        if arguments.model in (None, name)
        for row in compare(
            name, slots, questions, [arguments.seed + n for n in range(seeds)], repeats=1
        )
    ]
    own = overhead(100 if arguments.quick else 1000, arguments.seed)
    show(rows, own)
    if arguments.json:
        result = {
            "machine": {"cores": os.cpu_count(), "processor": platform.processor() or "x86_64",
                        "torch": torch.__version__, "load": os.getloadavg()},
            "seed": arguments.seed,
            "rows": [row for row in rows if row["policy"] != "biased_arrival_order"],
            "biased": [row for row in rows if row["policy"] == "biased_arrival_order"],
            "overhead": own,
        }  # fmt: skip
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def show(rows: Sequence[dict[str, Any]], own: Sequence[dict[str, Any]]) -> None:
    """Both tables."""
    table = Table(
        "model", "questions", "policy", "votes", "tokens", "cancelled", "seconds", "CPU s",
        "length", "slots", "tokens saved", "seconds saved", "ratio",
    )  # fmt: skip
    for row in rows:
        ratio, span = row["seconds_per_token_saved"], row["seconds_per_token_saved_range"]
        table.add_row(
            row["model"], str(row["questions"]), row["policy"], f"{row['votes']:.0f}",
            f"{row['tokens']:.0f}", f"{row['tokens_cancelled']:.0f}", f"{row['seconds']:.1f}",
            f"{row['cpu_seconds']:.1f}", f"{row['mean_counted_length']:.1f}",
            "" if row["slot_occupancy"] is None else f"{row['slot_occupancy']:.0%}",
            f"{row['saved_tokens']:.1%}", f"{row['saved_seconds']:.1%}",
            "" if ratio is None else f"{ratio:.3f} ({span[0]:.3f}-{span[1]:.3f})",
        )  # fmt: skip
    console = Console(width=150)
    console.print(table)
    table = Table("rule", "schedule", "questions", "rollouts", "µs a rollout", "of which the rule")
    for row in own:
        table.add_row(
            row["rule"], row["schedule"], str(row["questions"]), str(row["rollouts"]),
            f"{row['microseconds_a_rollout']:.0f}", f"{row['of_which_rule']:.0f}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
