"""Read a folder's weights into a module that is already there."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from optpo.errors import EngineError


def read_weights(model: PreTrainedModel, folder: Path) -> None:
    """Give `model` the weights of a folder written by `save_pretrained`, in place.

    Raises EngineError if they cannot be read, are not all there, or are those of another model.
    """
    # Its bars would run through the run's own view.
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # not typed there
    try:
        # The library's own loader: a folder may name and cut weights otherwise than the module.
        loaded: Any = type(model).from_pretrained(
            folder, dtype=model.dtype, use_safetensors=True, output_loading_info=True
        )
        fresh, report = loaded
        wrong = sorted({*report["missing_keys"], *report["unexpected_keys"]})
        if not wrong:
            model.load_state_dict(fresh.state_dict())
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise EngineError(f"the weights in {folder} cannot be taken over: {reason}") from error
    if wrong:
        raise EngineError(
            f"the weights in {folder} are not those of this model: {len(wrong)} are missing or too "
            f"many ({wrong[0]}, ...)"
        )
