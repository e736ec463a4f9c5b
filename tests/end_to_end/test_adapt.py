"""`optpo adapt` from the command line: what it leaves behind, and what may not change its result."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from optpo.data import embedded_model_path, load_questions
from tests.end_to_end.conftest import Command, figures, rows, small, weights

SUMMARY = {
    "recipe", "model", "seed", "steps", "questions", "rollouts", "tokens_generated",
    "tokens_cancelled", "seconds", "seconds_sampling", "seconds_update", "accuracy_before",
    "accuracy_after", "majority_before", "majority_after", "unseen_accuracy_before",
    "unseen_accuracy_after", "label_accuracy", "verdicts", "fixed_budget_tokens",
}  # fmt: skip


def test_a_run_leaves_all_its_files(optpo: Command, tmp_path: Path) -> None:
    """The run directory holds settings, ledgers, rollouts, model, summary and report."""
    done = optpo("adapt", "--out", "run", "--json", "--audit", "0.5", *small())
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    summary = json.loads(done.stdout)
    assert summary.keys() >= SUMMARY
    assert summary["unseen_accuracy_before"] is None
    metrics, verdicts = rows(run / "metrics.jsonl"), rows(run / "verdicts.jsonl")
    assert [row["step"] for row in metrics] == [1, 2, 3]
    assert len(verdicts) == 3 * 24
    assert sum(row["audit"] is not None for row in verdicts) in range(20, 53)
    kept = sum(len(rows(run / f"rollouts/step-{step:05d}.jsonl")) for step in (1, 2, 3))
    assert kept == summary["rollouts"] == sum(row["rollouts"] for row in verdicts)
    assert sum(row["tokens"] for row in verdicts) == summary["tokens_generated"]
    assert summary["tokens_generated"] == metrics[-1]["tokens_total"]
    assert (run / "report.html").stat().st_size > 10_000
    assert (run / "config.yaml").exists()
    model = AutoModelForCausalLM.from_pretrained(run / "final")
    tokenizer = AutoTokenizer.from_pretrained(run / "final")
    prompt = tokenizer("start 20 times 2 take 6 ?", return_tensors="pt")
    answer = model.generate(**prompt, do_sample=False)
    assert "####" in tokenizer.decode(answer[0], skip_special_tokens=True)


def test_a_policy_that_stands_still_ends_the_run(optpo: Command, tmp_path: Path) -> None:
    """Where the guards hold back step after step the run ends early, and says so."""
    settings = small("steps=9", "guards.entropy_floor=5")
    done = optpo("adapt", "--out", "run", "--json", *settings)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["steps"], summary["steps_trained"]) == (3, 0)
    assert summary["tokens_kept"] == 0
    assert "entropy_floor" in done.stderr
    assert "ended after step 3 of 9" in done.stderr
    assert weights(tmp_path / "run") == (embedded_model_path() / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["optpo", "optpo-ppo", "optpo-sft", "optpo-warm", "ttrl"])
def test_every_recipe_runs_and_learns(optpo: Command, tmp_path: Path, recipe: str) -> None:
    """Each recipe moves the weights and does not lose accuracy on what it trains on."""
    settings = ["steps=5", "evaluate.unseen_samples=0", "audit=0"]
    done = optpo("adapt", "--recipe", recipe, "--out", "run", "--set", *settings)
    assert done.returncode == 0, done.stderr
    found = figures(tmp_path / "run")
    assert found["accuracy_after"] > found["accuracy_before"] + 0.1
    assert found["recipe"] == recipe


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["optpo", "optpo-ppo", "optpo-warm"])
def test_the_sampling_batch_changes_nothing(optpo: Command, tmp_path: Path, recipe: str) -> None:
    """Batches of 4, 16 and 64 rows end in the same weights, to the bit, and the same figures."""
    for size in (4, 16, 64):
        settings = small(f"sample.rows={size}")
        done = optpo("adapt", "--recipe", recipe, "--out", f"rows{size}", *settings)
        assert done.returncode == 0, done.stderr
    assert len({weights(tmp_path / f"rows{size}") for size in (4, 16, 64)}) == 1
    assert figures(tmp_path / "rows4") == figures(tmp_path / "rows64")


def test_a_tracker_carries_votes_and_lets_questions_rest(optpo: Command, tmp_path: Path) -> None:
    """From the second step on past votes count, new ones are fewer, and what rests is in the ledger."""
    done = optpo("adapt", "--recipe", "optpo-warm", "--out", "run", *small("steps=4"))
    assert done.returncode == 0, done.stderr
    metrics = rows(tmp_path / "run" / "metrics.jsonl")
    assert (metrics[0]["votes_carried"], metrics[0]["drift"]) == (0, None)
    assert min(row["votes_carried"] for row in metrics[1:]) > 0
    assert min(row["drift"] for row in metrics[1:]) > 0
    assert metrics[1]["mean_votes"] < metrics[0]["mean_votes"]
    rested = [row["questions_rested"] for row in metrics]
    assert rested[0] == 0 < sum(rested)
    assert [row["questions"] for row in metrics] == [24 - count for count in rested]
    found = figures(tmp_path / "run")
    assert found["questions_rested"] == sum(rested)
    carried = [row["carried"] for row in rows(tmp_path / "run" / "verdicts.jsonl")]
    assert not any(carried[:24])
    assert any(carried[24:])


def test_a_tracker_that_the_rule_cannot_use_is_refused(optpo: Command) -> None:
    """A plain vote counts no votes of earlier visits: said before anything is loaded."""
    done = optpo("adapt", "--recipe", "ttrl", "--out", "run", "--set", "tracker.most_kept=0.5")
    assert done.returncode == 2
    assert "takes no carried votes" in done.stderr


@pytest.mark.slow
def test_gold_answers_are_read_to_report_only(optpo: Command, tmp_path: Path) -> None:
    """With every gold answer replaced by nonsense, or left out, the weights are the same to the bit."""
    questions = load_questions("adapt")[:24]
    for name, gold in (("nonsense", "-1 apples"), ("none", None)):
        lines = [
            json.dumps({"id": question.id, "prompt": question.prompt, "gold": gold})
            for question in questions
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    for name, data in (("true", "adapt"), ("nonsense", "nonsense.jsonl"), ("none", "none.jsonl")):
        done = optpo("adapt", "--data", data, "--out", name, *small())
        assert done.returncode == 0, done.stderr
    assert figures(tmp_path / "true")["label_accuracy"] > 0.5
    assert figures(tmp_path / "nonsense")["label_accuracy"] == 0
    assert figures(tmp_path / "none")["label_accuracy"] is None
    assert weights(tmp_path / "true") == weights(tmp_path / "nonsense")
    assert weights(tmp_path / "true") == weights(tmp_path / "none")


@pytest.mark.slow
def test_the_seed_decides(optpo: Command, tmp_path: Path) -> None:
    """Another seed is another run; the same seed is the same one."""
    for name, seed in (("one", "1"), ("again", "1"), ("two", "2")):
        done = optpo("adapt", "--seed", seed, "--out", name, *small())
        assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "one") == weights(tmp_path / "again")
    assert weights(tmp_path / "one") != weights(tmp_path / "two")
