"""Checkpoints: all that a run needs to go on to the same result as one never stopped."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from optpo.errors import RunDirectoryError
from optpo.training.distributed import part_of, whole
from optpo.training.policy import Policy
from optpo.training.run_directory import replace_folder, replace_text


@dataclass(frozen=True)
class Checkpoint:
    """A saved step: its number and whatever JSON the loop keeps beside the weights."""

    step: int
    state: dict[str, Any]


def save_checkpoint(
    folder: Path,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    checkpoint: Checkpoint,
    sampling: Policy | None = None,
    *,
    writes: bool = True,
) -> None:
    """Write checkpoints/step-N whole, then drop the older ones.

    `sampling` is the policy that samples the next step, where it is another one. Of several
    processes one writes; the others call too, and hand over what they hold of the tensors.
    """
    tensors = {"weights": _together(policy.trainable(), writes)}
    tensors["optimizer"] = _together(
        {
            f"{name}/{key}": torch.as_tensor(value)
            for name, parameter in policy.trainable().items()
            for key, value in optimizer.state.get(parameter, {}).items()
        },
        writes,
    )
    state = {"step": checkpoint.step, "version": policy.version, **checkpoint.state}
    if sampling is not None:
        tensors["sampling"] = _together(sampling.trainable(), writes)
        state["sampling_version"] = sampling.version
    if writes:
        _write(folder, checkpoint.step, tensors, state)


def _write(
    folder: Path, step: int, tensors: Mapping[str, dict[str, Tensor]], state: Mapping[str, Any]
) -> None:
    final = folder / f"step-{step:05d}"
    temporary = folder / ".writing"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, of in tensors.items():
        save_file(of, temporary / f"{name}.safetensors")
    replace_text(temporary / "state.json", json.dumps(state))
    replace_folder(temporary, final)
    for older in folder.glob("step-*"):
        if older != final:
            shutil.rmtree(older)


def load_checkpoint(
    folder: Path,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    sampling: Policy | None = None,
) -> Checkpoint | None:
    """Put the newest checkpoint's weights and optimiser state in place; none where there is none.

    Raises RunDirectoryError if it does not belong to this policy.
    """
    newest = max(folder.glob("step-*"), key=lambda saved: int(saved.name[5:]), default=None)
    if newest is None:
        return None
    _read_weights(policy, newest / "weights.safetensors")
    trainable = policy.trainable()
    for key, value in load_file(newest / "optimizer.safetensors").items():
        name, entry = key.rsplit("/", 1)
        parameter = trainable[name]
        placed = value if entry == "step" else part_of(value, like=parameter)
        optimizer.state[parameter][entry] = placed
    state = json.loads((newest / "state.json").read_text())
    policy.version = state.pop("version")
    if sampling is not None:
        _read_weights(sampling, newest / "sampling.safetensors")
        sampling.version = state.pop("sampling_version")
    return Checkpoint(state.pop("step"), state)


def _together(named: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors, put together one at a time, and kept where they are written."""
    together = {}
    for name, value in named.items():
        tensor = whole(value.detach())
        if keep:
            together[name] = tensor.contiguous()
    return together


def _read_weights(policy: Policy, file: Path) -> None:
    trainable, weights = policy.trainable(), load_file(file)
    shapes = {name: value.shape for name, value in weights.items()}
    if shapes != {name: value.shape for name, value in trainable.items()}:
        raise RunDirectoryError(f"{file} holds the weights of another model")
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(part_of(weights[name], like=parameter))
