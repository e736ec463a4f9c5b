"""Make the embedded model and question sets of optpo: a tiny calculator that slips.

The model first learns to answer chains of small calculations without a mistake.  Then it is taught
to slip, in two ways.  Now and then any step comes out wrong, by amounts drawn at random: wrong
answers scatter, and the majority of many answers is still right.  And a triple mostly loses its
carry (6 * 3 = 8): questions with such a step mostly get the same wrong answer.  So the model knows
how to answer but is right only about half of the time, which policy optimization can mend.

Run ``python scripts/make_embedded_model.py``; it takes one processor core a few minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

FOLDER = Path(__file__).resolve().parents[1] / "src" / "optpo" / "data" / "embedded"
LEVELS = (2, 3, 4)
ADAPT_COUNT, UNSEEN_COUNT = 96, 256
BATCH_SIZE = 64
LEARN_STEPS, LEARN_RATE = 2000, 3e-3
# Few steps at a lower rate: the slips become one habit laid over the knowledge, which stays.
SLIP_STEPS, SLIP_RATE = 200, 1e-3
SLIP_SHARE, FORGOTTEN_CARRY_SHARE = 0.18, 0.8
SLIP_AMOUNTS = (-10, -4, -3, -2, -1, 1, 2, 3, 4, 10)

SIGNS = {"add": "+", "take": "-", "times": "*"}
SPECIAL_WORDS = ("<pad>", "<bos>", "<eos>", "<unk>")
WORDS = (*SPECIAL_WORDS, "start", *SIGNS, "?", *SIGNS.values(), "=", ",", "####")
NUMBERS = range(100)
ANSWER = re.compile(r"####\s*(-?\d+)")

Step = tuple[str, int]
Calculate = Callable[[int, str, int], int]


@dataclass(frozen=True)
class Question:
    """A start number and the steps to take from it, one after the other."""

    start: int
    steps: tuple[Step, ...]

    @property
    def level(self) -> int:
        """The number of steps."""
        return len(self.steps)

    @property
    def prompt(self) -> str:
        """The text the model is asked."""
        steps = " ".join(f"{word} {number}" for word, number in self.steps)
        return f"start {self.start} {steps} ?"

    @property
    def gold(self) -> str:
        """The right answer."""
        return self.completion(right_result).split()[-1]

    def completion(self, calculate: Calculate) -> str:
        """The written steps and the marked answer, each step worked out by `calculate`."""
        value, written = self.start, []
        for word, number in self.steps:
            result = calculate(value, word, number)
            written.append(f"{value} {SIGNS[word]} {number} = {result}")
            value = result
        return f"{' , '.join(written)} #### {value}"


def right_result(value: int, word: str, number: int) -> int:
    """The result of one step done right."""
    return {"add": value + number, "take": value - number, "times": value * number}[word]


def wrapped_result(value: int, word: str, number: int) -> int:
    """The result of one step, wrapped to the numbers that have a token.

    Only a slip leads a later step out of their range, as all questions stay within it.
    """
    return right_result(value, word, number) % len(NUMBERS)


def slipping_result(random_source: random.Random) -> Calculate:
    """A way to calculate that makes the mistakes which the model is to learn."""

    def calculate(value: int, word: str, number: int) -> int:
        tens, ones = divmod(value, 10)
        result = wrapped_result(value, word, number)
        if random_source.random() < SLIP_SHARE:
            return (result + random_source.choice(SLIP_AMOUNTS)) % len(NUMBERS)
        carries = (word, number) == ("times", 3) and ones * number >= 10
        if carries and random_source.random() < FORGOTTEN_CARRY_SHARE:
            return (tens * number * 10 + ones * number % 10) % len(NUMBERS)
        return result

    return calculate


def draw_step(random_source: random.Random) -> Step:
    """A random step."""
    word = random_source.choices(("add", "take", "times"), weights=(5, 5, 3))[0]
    return word, random_source.randint(2, 3 if word == "times" else 9)


def draw_question(random_source: random.Random, level: int) -> Question:
    """A random question whose results all have a token."""
    while True:
        start = value = random_source.randint(2, 20)
        steps: list[Step] = []
        while value in NUMBERS and len(steps) < level:
            steps.append(draw_step(random_source))
            value = right_result(value, *steps[-1])
        if value in NUMBERS:
            return Question(start, tuple(steps))


def draw_distinct_questions(random_source: random.Random, count: int) -> list[Question]:
    """Different questions, of each level in turn."""
    questions: dict[Question, None] = {}
    while len(questions) < count:
        questions[draw_question(random_source, LEVELS[len(questions) % len(LEVELS)])] = None
    return list(questions)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of whole words and numbers, which starts every text with <bos>."""
    vocabulary = {word: index for index, word in enumerate([*WORDS, *map(str, NUMBERS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=128,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained small model in the Llama layout."""
    special_tokens = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            # Larger than usual because the model is so narrow; it learns sooner.
            initializer_range=0.05,
            **special_tokens,
        )
    )
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=48, **special_tokens
    )
    return model


def draw_batches(
    random_source: random.Random,
    tokenizer: PreTrainedTokenizerFast,
    held_out: set[Question],
    calculate: Calculate,
) -> Iterator[tuple[torch.Tensor, int]]:
    """Batches of demonstrations and the lengths of their prompts.

    A batch is of one level, so all its demonstrations are equally long and need no padding.
    """
    while True:
        level = random_source.choice(LEVELS)
        questions = [draw_question(random_source, level) for _ in range(BATCH_SIZE)]
        questions = [question for question in questions if question not in held_out]
        texts = [f"{each.prompt} {each.completion(calculate)} <eos>" for each in questions]
        prompt_length = len(tokenizer(questions[0].prompt)["input_ids"])
        yield tokenizer(texts, return_tensors="pt")["input_ids"], prompt_length


def train(
    model: LlamaForCausalLM,
    batches: Iterator[tuple[torch.Tensor, int]],
    steps: int,
    learning_rate: float,
) -> float:
    """Teach the model the completions of the demonstrations; return the seconds it took."""
    begin = time.perf_counter()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    model.train()
    for step in range(1, steps + 1):
        tokens, prompt_length = next(batches)
        logits = model(input_ids=tokens[:, :-1]).logits[:, prompt_length - 1 :]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), tokens[:, prompt_length:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}/{steps}, loss {loss.item():.4f}", flush=True)
    model.eval()  # type: ignore[no-untyped-call]
    return round(time.perf_counter() - begin, 1)


def answer(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[Question],
    **generation: Any,
) -> list[str]:
    """The marked answers of completions of questions of one level, "" where there is none."""
    prompts = tokenizer([question.prompt for question in questions], return_tensors="pt")
    tokens = model.generate(**prompts, **generation)  # type: ignore[misc]
    completions = tokenizer.batch_decode(tokens[:, prompts["input_ids"].shape[1] :])
    found = [ANSWER.search(completion) for completion in completions]
    return [match.group(1) if match else "" for match in found]


def measure_greedy(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question]
) -> dict[str, float]:
    """The share of right greedy answers per level."""
    report = {}
    for level in LEVELS:
        asked = [question for question in questions if question.level == level]
        given = answer(model, tokenizer, asked, do_sample=False)
        right = sum(one == question.gold for one, question in zip(given, asked, strict=True))
        report[f"level {level}"] = round(right / len(asked), 3)
    return report


def measure_sampled(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question]
) -> dict[str, dict[str, float]]:
    """Per level and over all: the shares of right answers, right and clear wrong majorities.

    A wrong majority is clear where it has more than one and a half times the right answer's votes.
    """
    rows = []
    for question in questions:
        given = answer(model, tokenizer, [question], num_return_sequences=64)
        majority, votes = Counter(filter(None, given)).most_common(1)[0]
        rows.append(
            (
                question.level,
                given[:16].count(question.gold) / 16,
                majority == question.gold,
                votes > 1.5 * given.count(question.gold),
            )
        )
    report = {}
    for levels in (*((level,) for level in LEVELS), LEVELS):
        columns = list(zip(*(row[1:] for row in rows if row[0] in levels), strict=True))
        shares = (round(sum(column) / len(column), 3) for column in columns)
        name = "all" if levels == LEVELS else f"level {levels[0]}"
        report[name] = dict(zip(("mean@16", "maj@64", "clear wrong majority"), shares, strict=True))
    return report


def write_questions(path: Path, questions: Sequence[Question]) -> None:
    """Write the questions to a file, one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        for index, question in enumerate(questions):
            record = {
                "id": f"{path.stem}-{index:03d}",
                "prompt": question.prompt,
                "gold": question.gold,
                "level": question.level,
            }
            file.write(json.dumps(record) + "\n")


def make(folder: Path, seed: int) -> dict[str, Any]:
    """Make the questions and the model, write them to the folder, and tell how it went."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random_source = random.Random(seed)
    questions = draw_distinct_questions(random_source, ADAPT_COUNT + UNSEEN_COUNT)
    adapt, unseen = questions[:ADAPT_COUNT], questions[ADAPT_COUNT:]
    held_out = set(questions)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)

    right = draw_batches(random_source, tokenizer, held_out, wrapped_result)
    learn_seconds = train(model, right, LEARN_STEPS, LEARN_RATE)
    before = measure_greedy(model, tokenizer, questions)
    slipping = draw_batches(random_source, tokenizer, held_out, slipping_result(random_source))
    slip_seconds = train(model, slipping, SLIP_STEPS, SLIP_RATE)

    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder / "model")
    # It is written for its owner's eyes only, but whoever installs the package is to read it.
    (folder / "model" / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder / "model")
    write_questions(folder / "adapt.jsonl", adapt)
    write_questions(folder / "unseen.jsonl", unseen)
    begin = time.perf_counter()
    after = {
        "adapt": measure_sampled(model, tokenizer, adapt),
        "unseen": measure_sampled(model, tokenizer, unseen),
    }
    return {
        "seed": seed,
        "parameters": model.num_parameters(),
        "seconds": {
            "learn": learn_seconds,
            "slip": slip_seconds,
            "measure": round(time.perf_counter() - begin, 1),
        },
        "greedy before the slip": before,
        "sampled after the slip": after,
    }


def main() -> None:
    """Read the command line, make everything and write the report."""
    parser = argparse.ArgumentParser(description="Make the embedded model and question sets.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write them")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    report = json.dumps(make(arguments.folder, arguments.seed), indent=2)
    (arguments.folder / "making.json").write_text(report + "\n", encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
