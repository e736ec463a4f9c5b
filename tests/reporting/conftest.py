"""A fabricated run: what a run directory looks like, from a seed and without a model."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HOSTILE = "<script>alert('x')</script>"
QUESTIONS = 40
STEPS = 12


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def fabricate_run(
    directory: Path, seed: int = 0, gold: bool = True, audits: bool = True, skill: float = 0.0
) -> Path:
    """Write a plausible run of `STEPS` steps; prompts and answers hold markup on purpose."""
    chance = random.Random(seed)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.yaml").write_text(
        f"recipe: optpo-grpo\nmodel: tiny-math-100m\nseed: {seed}\nsteps: {STEPS}\n"
        "allocate:\n  name: optpo\n  floor: 4\n  cap: 64\n  stop_at: 0.95\n"
        f"objective:\n  name: grpo\n  clip: [0.2, 0.28]\nnote: '{HOSTILE.replace(chr(39), '')}'\n"
        "versions: {optpo: 0.1.0, torch: 2.13.0}\n",
        encoding="utf-8",
    )
    questions = [_question(place, chance, gold) for place in range(QUESTIONS)]
    write_lines(directory / "questions.jsonl", questions)
    metrics: list[dict[str, Any]] = []
    evaluations = _evaluations(0, 0, 0.0, chance, skill) if gold else []
    verdicts: list[dict[str, Any]] = []
    spent = fixed = seconds = 0.0
    for step in range(1, STEPS + 1):
        learned = step / STEPS + skill
        of_step = [_verdict(step, question, chance, learned, audits) for question in questions]
        rollouts = [row for verdict in of_step for row in _rollouts(verdict, step, chance)]
        write_lines(directory / "rollouts" / f"step-{step:05d}.jsonl", rollouts)
        row = _metrics(step, of_step, rollouts, chance, learned, gold)
        spent += row["tokens"] + row["tokens_cancelled"]
        fixed += 64 * QUESTIONS * 118
        seconds += row["seconds"]
        row |= {"tokens_total": spent, "fixed_budget_tokens_total": fixed}
        metrics.append(row)
        verdicts += of_step
        if gold and step % 3 == 0:
            evaluations += _evaluations(step, spent, learned, chance, skill)
    write_lines(directory / "metrics.jsonl", metrics)
    write_lines(directory / "evaluations.jsonl", evaluations)
    write_lines(directory / "verdicts.jsonl", verdicts)
    summary = _summary(seed, metrics, evaluations, verdicts, seconds)
    (directory / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return directory


@pytest.fixture
def fabricate() -> Callable[..., Path]:
    return fabricate_run


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_run(tmp_path_factory.mktemp("runs") / "first-run", seed=0)


@pytest.fixture(scope="session")
def other_run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate_run(tmp_path_factory.mktemp("runs") / "other-run", seed=1, skill=0.3)


def _question(place: int, chance: random.Random, gold: bool) -> dict[str, Any]:
    first, second = chance.randint(12, 98), chance.randint(3, 19)
    text = (
        f"A crate holds {first} oranges and {second} crates arrive each day, of which one is sent "
        f"back. How many oranges are there after {place + 2} days? Answer in a box."
    )
    prompt: Any = text
    if place == 0:
        prompt = f"{HOSTILE} What is 1 < 2 && 3 > 2? See https://example.org/{'x' * 90}"
    if place % 5 == 2:
        prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    answer = str(first * (second - 1) * (place + 2))
    return {"id": f"question-{place:03d}", "prompt": prompt, "gold": answer if gold else None}


def _verdict(
    step: int, question: dict[str, Any], chance: random.Random, learned: float, audits: bool
) -> dict[str, Any]:
    gold = question["gold"]
    right, wrong = gold or "21", HOSTILE if question["id"].endswith("000") else "17/2"
    hard = int(question["id"][-3:]) % 7 == 0
    votes = 64 if hard and chance.random() < 0.4 else min(64, 4 + int(chance.expovariate(0.11)))
    share = min(0.97, max(0.2, chance.gauss(0.45 + 0.3 * learned - 0.25 * hard, 0.15)))
    parsed = votes - min(votes - 1, int(chance.random() < 0.3))
    for_right = sum(chance.random() < share for _ in range(parsed))
    counts = {right: for_right, wrong: (parsed - for_right + 1) // 2}
    counts["-3"] = parsed - sum(counts.values())
    counts = {answer: count for answer, count in counts.items() if count > 0}
    label = max(counts, key=lambda answer: counts[answer])
    confidence = round(1 - 0.3 * chance.random() ** 3 - 0.001, 4)
    kind = "capped" if votes == 64 else "decided"
    audit = None
    if audits and chance.random() < 0.25 and kind == "decided":
        agrees = chance.random() < confidence - 0.02
        audit = {"rollouts": 64, "label": label if agrees else "other", "agrees": agrees}
    return {
        "step": step, "prompt_id": question["id"], "kind": kind, "label": label,
        "confidence": confidence, "counts": counts, "unparsed": votes - parsed, "rollouts": votes,
        "tokens": votes * 118, "cancelled_rollouts": votes // 9, "cancelled_tokens": votes * 5,
        "gold": gold, "correct": None if gold is None else label == gold, "audit": audit,
    }  # fmt: skip


def _rollouts(verdict: dict[str, Any], step: int, chance: random.Random) -> list[dict[str, Any]]:
    rows = []
    answers = [answer for answer, count in verdict["counts"].items() for _ in range(min(count, 4))]
    for index, answer in enumerate(answers[:8]):
        reward = float(answer == verdict["label"])
        reasoning = " ".join(f"Step {n}: {chance.randint(2, 99)} + 4." for n in range(1, 9))
        if index == 1:
            reasoning *= 30
        rows.append({
            "prompt_id": verdict["prompt_id"], "index": index, "version": step - 1,
            "tokens": [1, 2, 3], "text": f"{reasoning}\nSo the answer is \\boxed{{{answer}}}.",
            "answer": answer, "finish": "stop" if index else "length", "kept": index < 6,
            "reward": reward, "advantage": reward - 0.5 if index < 6 else None,
        })  # fmt: skip
    return rows


def _metrics(
    step: int, verdicts: list[dict[str, Any]], rollouts: list[dict[str, Any]],
    chance: random.Random, learned: float, gold: bool,
) -> dict[str, Any]:  # fmt: skip
    votes = sum(row["rollouts"] for row in verdicts)
    cancelled = sum(row["cancelled_tokens"] for row in verdicts)
    kept = int(votes * 118 * 0.7)
    right = sum(bool(row["correct"]) for row in verdicts) / len(verdicts)
    sampling, update = 14 + 3 * chance.random(), 6 + chance.random()
    kinds = [row["kind"] for row in verdicts]
    return {
        "step": step, "version": step, "accuracy": 0.9 * right - 0.1 if gold else None,
        "label_accuracy": right if gold else None, "questions": len(verdicts), "rollouts": votes,
        "rollouts_kept": int(votes * 0.7), "rollouts_cancelled": votes // 9,
        "tokens": votes * 118, "tokens_kept": kept,
        "tokens_untrained": votes * 118 - kept, "tokens_cancelled": cancelled, "tokens_audit": 9_000,
        "verdicts": {kind: kinds.count(kind) for kind in ("decided", "capped", "tied", "empty")},
        "mean_votes": votes / len(verdicts), "entropy": 1.1 - 0.5 * learned + 0.05 * chance.random(),
        "loss": chance.gauss(0, 0.02), "gradient_norm": 0.6 + 0.3 * chance.random(), "kl": 0.002 * step,
        "clip_share": 0.02, "zero_variance_groups": 3,
        "label_flip_rate": None if step == 1 else max(0.0, 0.3 - 0.2 * learned),
        "undecided_share": kinds.count("capped") / len(kinds),
        "guards": ["entropy fell below 0.6: learning rate halved"] if step in (7, 9) else [],
        "seconds_sampling": sampling, "seconds_update": update, "seconds": sampling + update,
        "tokens_prefill": 4_321, "slot_seconds": 32 * sampling, "slot_seconds_idle": 8 * sampling,
        "slot_occupancy": 0.75, "slot_occupancy_over_time": [1.0, 0.9, 0.8, 0.3],
    }  # fmt: skip


def _evaluations(
    step: int, tokens: float, learned: float, chance: random.Random, skill: float
) -> list[dict[str, Any]]:
    rows = []
    for name, start, gain in (("adapt", 0.41, 0.16), ("unseen", 0.39, 0.08)):
        mean = start + gain * min(1.0, learned) + 0.02 * skill + chance.gauss(0, 0.008)
        rows.append({
            "step": step, "set": name, "mean": mean, "mean_low": mean - 0.04,
            "mean_high": mean + 0.04, "majority": mean + 0.09, "majority_low": mean + 0.03,
            "majority_high": mean + 0.15, "passed": mean + 0.2, "passed_low": mean + 0.12,
            "passed_high": mean + 0.26, "samples": 8, "questions": 40,
            "passes": {k: _around(mean + 0.1 * place) for place, k in enumerate("148")},
            "majorities": {k: _around(mean + 0.04 * place) for place, k in enumerate("148")},
            "tokens_total": tokens, "seconds_total": step * 21.0,
        })  # fmt: skip
    return rows


def _around(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def _summary(
    seed: int, metrics: list[dict[str, Any]], evaluations: list[dict[str, Any]],
    verdicts: list[dict[str, Any]], seconds: float,
) -> dict[str, Any]:  # fmt: skip
    def measured(name: str, key: str, place: int) -> float | None:
        rows = [row for row in evaluations if row["set"] == name]
        return rows[place][key] if rows else None

    known = [row["correct"] for row in verdicts if row["correct"] is not None]
    kinds = [row["kind"] for row in verdicts]
    return {
        "recipe": "optpo-grpo", "model": "tiny-math-100m", "seed": seed, "steps": STEPS,
        "questions": QUESTIONS, "rollouts": sum(row["rollouts"] for row in metrics),
        "tokens_generated": sum(row["tokens"] for row in metrics),
        "tokens_evaluation": 3 * QUESTIONS * 16 * 118,
        "tokens_cancelled": sum(row["tokens_cancelled"] for row in metrics),
        "seconds": seconds, "seconds_sampling": 0.7 * seconds, "seconds_update": 0.3 * seconds,
        "accuracy_before": measured("adapt", "mean", 0),
        "accuracy_after": measured("adapt", "mean", -1),
        "majority_before": measured("adapt", "majority", 0),
        "majority_after": measured("adapt", "majority", -1),
        "unseen_accuracy_before": measured("unseen", "mean", 0),
        "unseen_accuracy_after": measured("unseen", "mean", -1),
        "label_accuracy": sum(known) / len(known) if known else None,
        "verdicts": {kind: kinds.count(kind) for kind in ("decided", "capped")},
        "fixed_budget_tokens": metrics[-1]["fixed_budget_tokens_total"],
    }  # fmt: skip
