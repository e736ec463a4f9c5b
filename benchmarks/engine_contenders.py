"""The contenders of engines.py, each in a process of its own: `python engine_contenders.py CELL`.

CELL is the JSON that engines.py hands over. The process loads the model, warms up, and answers each
line on standard input, a seed, with a line of what sampling all questions once cost. Nothing of
optpo is imported but by its own contender, so that another interpreter can run the others.
"""

import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

# vLLM's engine in this process: its seconds and its memory are then this process's.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

import torch

VOCABULARY, END, PAD = 90, 1, 0
LONGEST_PROMPT = 32

Cell = dict[str, Any]
Prompts = list[list[int]]
Contender = Callable[[Prompts, int], int]
"""Samples a rollout a prompt with this seed; returns the tokens up to and with the end tokens."""


def main() -> None:
    """Load, warm up, and sample once a line of standard input."""
    cell = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    # Libraries print to standard output as they like; the answers go where they were expected.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with ExitStack() as stack:
        prompts = prompts_of(cell)
        sample = CONTENDERS[cell["engine"]](cell, stack)
        loaded = peak_megabytes()
        sample(prompts[:4], cell["seed"])
        print(json.dumps({"ready": True}), file=answers, flush=True)
        for line in sys.stdin:
            wall, cpu = time.perf_counter(), time.process_time()
            tokens = sample(prompts, int(line))
            cost = {
                "tokens": tokens,
                "seconds": time.perf_counter() - wall,
                "cpu_seconds": time.process_time() - cpu,
                "peak_mb": peak_megabytes(),
                "loaded_mb": loaded,
            }
            print(json.dumps(cost), file=answers, flush=True)


def peak_megabytes() -> float:
    """The most memory this process has held resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def prompts_of(cell: Cell) -> Prompts:
    """The questions, one prompt a rollout; the same for every contender."""
    draw = random.Random(cell["seed"])
    questions = [
        [draw.randrange(2, VOCABULARY) for _ in range(draw.randrange(8, LONGEST_PROMPT + 1))]
        for _ in range(cell["questions"])
    ]
    return [question for question in questions for _ in range(cell["rollouts"])]


def load(cell: Cell) -> Any:
    """The model, for the contenders that share a process with it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(cell["folder"]).eval()


def optpo(cell: Cell, stack: ExitStack) -> Contender:
    """Our loop: rows leave and enter."""
    from optpo.sampling.engine import Request, SampleSettings, stream_seed
    from optpo.sampling.transformers_engine import TransformersEngine

    settings = SampleSettings(max_new_tokens=cell["cap"], rows=cell["rows"])
    engine = TransformersEngine(load(cell), str, (END,), settings)

    def sample(prompts: Prompts, seed: int) -> int:
        # As after an update: nothing computed for an earlier repeat is left.
        engine.update_weights(seed)
        for place, prompt in enumerate(prompts):
            stream = stream_seed(seed, 0, "q", place, "benchmark")
            engine.submit(Request("q", tuple(prompt), place, stream))
        tokens = 0
        while done := engine.poll():
            tokens += sum(len(completion.tokens) for completion in done)
        return tokens

    return sample


def generate(cell: Cell, stack: ExitStack) -> Contender:
    """Plain `generate`, left-padded batches of `rows`; every row runs on to its batch's longest."""
    model = load(cell)

    def sample(prompts: Prompts, seed: int) -> int:
        torch.manual_seed(seed)
        tokens = 0
        for first in range(0, len(prompts), cell["rows"]):
            batch = prompts[first : first + cell["rows"]]
            longest = max(map(len, batch))
            padded = torch.tensor([[PAD] * (longest - len(one)) + one for one in batch])
            lengths = torch.tensor([len(one) for one in batch])
            mask = torch.arange(longest) >= longest - lengths[:, None]
            output = model.generate(
                input_ids=padded,
                attention_mask=mask.long(),
                do_sample=True,
                top_k=0,
                max_new_tokens=cell["cap"],
                eos_token_id=END,
                pad_token_id=PAD,
            )
            tokens += useful(output[:, longest:])
        return tokens

    return sample


def useful(completions: torch.Tensor) -> int:
    """Tokens up to and with each row's first end token."""
    ended = (completions == END).cumsum(-1)
    return int(((ended == 0) | ((ended == 1) & (completions == END))).sum())


def tuned(cell: Cell) -> dict[str, int]:
    """Continuous batching as it does best on a CPU: small pages and passes, a cache that fits."""
    page, rows = 32, min(cell["rows"], cell["questions"] * cell["rollouts"])
    pages = rows * -(-(LONGEST_PROMPT + cell["cap"]) // page)
    return {
        "page_size": page,
        "max_batch_tokens": 256,
        "num_blocks": pages + pages // 8,
        "max_requests_per_batch": cell["rows"],
    }


def continuous(cell: Cell, stack: ExitStack) -> Contender:
    """transformers' continuous batching, its manager kept from repeat to repeat."""
    from transformers import GenerationConfig
    from transformers.generation import ContinuousBatchingConfig

    generation = GenerationConfig(
        do_sample=True, top_k=0, max_new_tokens=cell["cap"], eos_token_id=END, pad_token_id=PAD
    )
    config = ContinuousBatchingConfig(seed=cell["seed"], **tuned(cell))
    manager = stack.enter_context(
        load(cell).continuous_batching_context_manager(
            generation_config=generation, continuous_batching_config=config
        )
    )

    def sample(prompts: Prompts, seed: int) -> int:
        missing = set(manager.add_requests(prompts, max_new_tokens=cell["cap"]))
        tokens = 0
        while missing:
            result = manager.get_result(timeout=60)
            if result is None or result.error is not None:
                raise RuntimeError("continuous batching lost a request")
            if result.is_finished():
                missing.remove(result.request_id)
                tokens += len(result.generated_tokens)
        return tokens

    return sample


def trl(cell: Cell, stack: ExitStack) -> Contender:
    """What GRPOTrainer samples with, by continuous batching tuned the same way."""
    import tempfile

    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    words = {f"w{token}": token for token in range(VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w2")),
        pad_token="w0",
        eos_token="w1",
    )
    settings = GRPOConfig(
        output_dir=stack.enter_context(tempfile.TemporaryDirectory()),
        use_cpu=True,
        bf16=False,
        report_to=[],
        num_generations=2,
        per_device_train_batch_size=2,
        max_completion_length=cell["cap"],
        use_transformers_continuous_batching=True,
        transformers_continuous_batching_config=tuned(cell),
    )
    trainer = GRPOTrainer(
        model=load(cell),
        args=settings,
        processing_class=tokenizer,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_dict({"prompt": ["w2"] * 2}),
    )

    def sample(prompts: Prompts, seed: int) -> int:
        torch.manual_seed(seed)
        completions, _ = trainer._generate_single_turn(prompts, None, {}, 1)
        if len(completions) != len(prompts):
            raise RuntimeError(f"TRL returned {len(completions)} of {len(prompts)} rollouts")
        return sum(map(len, completions))

    return sample


def vllm(cell: Cell, stack: ExitStack) -> Contender:
    """vLLM on the CPU, offline."""
    from vllm import LLM, SamplingParams

    engine = LLM(
        model=cell["folder"],
        skip_tokenizer_init=True,
        dtype="float32",
        max_model_len=512,
        max_num_seqs=cell["rows"],
        block_size=32,
        enable_prefix_caching=False,
        disable_log_stats=True,
    )

    def sample(prompts: Prompts, seed: int) -> int:
        settings = [
            SamplingParams(
                temperature=1.0,
                max_tokens=cell["cap"],
                stop_token_ids=[END],
                seed=seed * len(prompts) + place,
                detokenize=False,
                logprobs=0,
            )
            for place in range(len(prompts))
        ]
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs = engine.generate(asked, settings, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return sample


CONTENDERS = {
    "optpo": optpo,
    "generate": generate,
    "continuous": continuous,
    "trl": trl,
    "vllm": vllm,
}

if __name__ == "__main__":
    main()
