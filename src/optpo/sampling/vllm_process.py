"""How vLLM is started: its processes, what they compute with, and the memory they take."""

import os
import signal
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from optpo.errors import EngineError, SettingsError
from optpo.sampling.engine import SampleSettings

LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.01, 2.0

BLOCK = 128
"""Tokens in the largest block that vLLM cuts its cache into; a rollout may leave most of one empty."""


def require_vllm(settings: SampleSettings) -> None:
    """Import vLLM. Raises SettingsError where that fails, or it would draw otherwise than asked."""
    temperature = settings.temperature
    if temperature != 0 and not LEAST_TEMPERATURE <= temperature <= MOST_TEMPERATURE:
        raise SettingsError(
            [
                f"temperature is {temperature}; vLLM draws at 0 (greedy) or from "
                f"{LEAST_TEMPERATURE} to {MOST_TEMPERATURE}"
            ]
        )
    # Standard output may be where verdicts go; and nothing is reported to anybody without being asked.
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        # Imports that fail on the way keep frames alive and all they hold: not so what is started.
        import vllm.engine.arg_utils
        import vllm.v1.engine.async_llm  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise SettingsError(
            [f"vLLM cannot be imported ({error}): pip install 'optpo[vllm]'"]
        ) from error


async def start_vllm(
    folder: Path, settings: SampleSettings, longest_prompt: int, precision: str
) -> Any:
    """Start vLLM's processes, which takes a while; returns its AsyncLLM.

    Runs in the loop's thread, which it leaves deaf to interrupts, as are the processes.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    # What this thread starts inherits what it blocks: an interrupt is the caller's to answer, who may
    # want rollouts yet to end a step well. The tracker, started later, would lift it again.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    longest = longest_prompt + settings.max_new_tokens
    on_cpu: dict[str, Any] = {
        # A seeded rollout whose prompt is computed in pieces ends vLLM on a CPU, whose generators
        # cannot step back. Compiling takes long there, and small models are no faster for it.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(longest, 2048),
        "enforce_eager": True,
        # The least that its kernels take; of a prompt only full blocks are shared.
        "block_size": 32,
        "worker_extension_cls": "optpo.sampling.vllm_worker.TiedHeads",
    }
    config = AsyncEngineArgs(
        model=str(folder),
        load_format="safetensors",
        dtype=precision,
        max_model_len=longest,
        max_num_seqs=settings.rows,
        use_tqdm_on_load=False,
        skip_tokenizer_init=not settings.stop,
        logprobs_mode=logprobs_mode(settings) or "raw_logprobs",
        disable_log_stats=True,
        **(on_cpu if current_platform.is_cpu() else {}),
    ).create_engine_config()
    model, parallel = config.model_config, config.parallel_config
    heads = model.get_num_kv_heads(parallel) * model.get_num_layers(parallel)
    a_token = 2 * heads * model.get_head_size() * model.dtype.itemsize
    # Left to itself it takes most of the memory there is, which the policy needs too. One row more
    # than asked, for the block that it keeps back.
    config.cache_config.kv_cache_memory_bytes = a_token * (longest + BLOCK) * (settings.rows + 1)
    llm = AsyncLLM.from_vllm_config(config, disable_log_stats=True)
    # Asked once, it is known, and no rollout waits for it.
    await llm.get_supported_tasks()
    return llm


async def read_weights(llm: Any, folder: Path) -> None:
    """Let vLLM read a folder's weights in place of those it has; nothing may be in flight."""
    from vllm.platforms import current_platform

    path = {"weights_path": str(folder.resolve())}
    await llm.collective_rpc("reload_weights", kwargs=path)
    if current_platform.is_cpu():
        await llm.collective_rpc("pack_tied_heads")
    if not await llm.reset_prefix_cache():
        raise EngineError("prompts computed with the old weights are still in use")


def tensor_names(folder: Path) -> frozenset[str]:
    """The names of all weights in a folder."""
    from safetensors import safe_open

    names: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            names |= set(tensors.keys())
    return frozenset(names)


def logprobs_mode(settings: SampleSettings) -> str | None:
    """Which of vLLM's log-probs are a rollout's: at the temperature, before tokens are cut off.

    vLLM has them before both ("raw") and after both ("processed"); None where neither will do.
    """
    cuts = settings.top_p < 1 or settings.top_k > 0 or settings.min_p > 0
    if settings.temperature == 0 or not cuts:
        return "processed_logprobs"
    return "raw_logprobs" if settings.temperature == 1 else None
