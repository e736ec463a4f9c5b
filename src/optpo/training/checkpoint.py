"""Checkpoints: all that a run needs to go on to the same result as one never stopped."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from optpo.errors import RunDirectoryError
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
) -> None:
    """Write checkpoints/step-N whole, then drop the older ones.

    `sampling` is the policy that samples the next step, where it is another one.
    """
    final = folder / f"step-{checkpoint.step:05d}"
    temporary = folder / ".writing"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    _write_weights(policy, temporary / "weights.safetensors")
    save_file(
        {
            f"{name}/{key}": torch.as_tensor(value).contiguous()
            for name, parameter in policy.trainable().items()
            for key, value in optimizer.state.get(parameter, {}).items()
        },
        temporary / "optimizer.safetensors",
    )
    state = {"step": checkpoint.step, "version": policy.version, **checkpoint.state}
    if sampling is not None:
        state["sampling_version"] = sampling.version
        _write_weights(sampling, temporary / "sampling.safetensors")
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
        placed = value if entry == "step" else value.to(parameter.device)
        optimizer.state[parameter][entry] = placed
    state = json.loads((newest / "state.json").read_text())
    policy.version = state.pop("version")
    if sampling is not None:
        _read_weights(sampling, newest / "sampling.safetensors")
        sampling.version = state.pop("sampling_version")
    return Checkpoint(state.pop("step"), state)


def _write_weights(policy: Policy, file: Path) -> None:
    save_file(
        {name: value.detach().contiguous() for name, value in policy.trainable().items()}, file
    )


def _read_weights(policy: Policy, file: Path) -> None:
    trainable, weights = policy.trainable(), load_file(file)
    shapes = {name: value.shape for name, value in weights.items()}
    if shapes != {name: value.shape for name, value in trainable.items()}:
        raise RunDirectoryError(f"{file} holds the weights of another model")
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(weights[name])
