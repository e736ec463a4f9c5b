"""Load a policy: embedded, from a folder, from a GGUF file, or from the hub."""

from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from optpo.data import embedded_model_path
from optpo.errors import ModelError
from optpo.training.policy import Policy
from optpo.training.settings import LoraSettings, ModelSettings

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def load_policy(settings: ModelSettings, temperature: float, pass_tokens: int = 2048) -> Policy:
    """The policy these settings name, in evaluation mode, version 0.

    Raises ModelError if the folder is missing, or holds no weights, not all of them, or pickles.
    """
    # Its bars would run through the run's own view.
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # not typed there
    name, keywords = _source(settings.name)
    device = _device(settings.device)
    precision = _precision(settings.precision, device)
    keywords |= {"trust_remote_code": settings.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **keywords)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name,
            output_loading_info=True,
            # Adapters train well on rounded weights; weights that are trained themselves do not.
            dtype=precision if settings.lora.rank > 0 else torch.float32,
            use_safetensors=True,
            **keywords,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"the model {settings.name!r} cannot be loaded: {reason}") from error
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"the model {settings.name!r} lacks {len(missing)} of its weights ({missing[0]}, ...): "
            "they would be random numbers; save it again, or name another"
        )
    if "gguf_file" in keywords:
        _as_plain_weights(model)
    model = model.to(device).eval()
    policy = Policy(
        model=_with_lora(model, settings.lora),
        tokenizer=tokenizer,
        end_tokens=_end_tokens(model, tokenizer),
        temperature=temperature,
        autocast=precision,
        pass_tokens=pass_tokens,
    )
    if not policy.end_tokens:
        raise ModelError(
            f"neither the generation config nor the tokenizer of {settings.name!r} names an "
            "end-of-text token; set eos_token_id in generation_config.json"
        )
    return policy


def _source(name: str | None) -> tuple[str, dict[str, Any]]:
    """What to hand to transformers: a folder or hub name, and the GGUF file where it is one."""
    if name is None:
        return str(embedded_model_path()), {}
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"there is no file {path}")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} is no model folder: it has no config.json")
        if not list(path.glob("*.safetensors")):
            pickles = sorted(file.name for kind in PICKLES for file in path.glob(kind))
            if pickles:
                raise ModelError(
                    f"{path} holds its weights as a pickle ({pickles[0]}), which can run code when "
                    "it is read; save the model as safetensors (model.save_pretrained does) and "
                    "use that folder"
                )
            raise ModelError(f"{path} holds no weights: there is no *.safetensors file in it")
        return str(path), {}
    if path.exists():
        raise ModelError(f"{path} is a file; name the model's folder, or a .gguf file")
    looks_like_path = path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
    if looks_like_path:
        raise ModelError(f"there is no model folder {path}")
    return name, {}


def _as_plain_weights(model: Any) -> None:
    """Let a model read from GGUF be saved: its weights were de-quantised when they were read."""
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"model.device is {name!r}, which this machine does not have") from error
    return device


def _precision(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if has_bfloat16 else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _with_lora(model: PreTrainedModel, settings: LoraSettings) -> PreTrainedModel:
    if settings.rank == 0:
        return model
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # any positive number will do
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    # Adapters begin at random: from a seed of their own, so that a resumed run has the same.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        adapted: Any = get_peft_model(model, config, autocast_adapter_dtype=True)
    # Not a PreTrainedModel itself, but it hands on all that is asked of one.
    return cast(PreTrainedModel, adapted.eval())


def _end_tokens(model: PreTrainedModel, tokenizer: Any) -> tuple[int, ...]:
    generation = model.generation_config
    configured = generation.eos_token_id if generation is not None else None
    if configured is None:
        configured = tokenizer.eos_token_id
    if configured is None:
        return ()
    return tuple(configured) if isinstance(configured, list) else (int(configured),)
