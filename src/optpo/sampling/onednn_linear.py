"""Linear layers by oneDNN where a model samples in float32 on a CPU.

PyTorch computes them by MKL, which leaves half the width of some processors unused: on an AMD EPYC
with AVX-512 oneDNN takes about half the time for 64 rows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.nn import Linear, Module

# Multiplications from which on oneDNN's greater cost a call pays.
WORTH = 2**20

Forwards = dict[Linear, Callable[[Tensor], Tensor]]


def onednn_forwards(model: Module) -> Forwards:
    """What computes a layer by oneDNN, for the plain layers of a model in float32 on a CPU."""
    if not _works():
        return {}
    return {
        module: partial(_forward, module)
        for module in model.modules()
        if type(module) is Linear
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
    }


@contextmanager
def by_onednn(forwards: Forwards) -> Iterator[None]:
    """Within this context these layers compute by oneDNN, without gradients."""
    for layer, forward in forwards.items():
        # Of the instance alone, so that no other model has a part in it.
        layer.__dict__["forward"] = forward
    try:
        yield
    finally:
        for layer in forwards:
            del layer.__dict__["forward"]


def _forward(layer: Linear, states: Tensor) -> Tensor:
    weight, bias = layer.weight, layer.bias
    if states.numel() // weight.shape[1] * weight.numel() < WORTH:
        return torch.nn.functional.linear(states, weight, bias)
    return _multiply(states, weight, bias)


def _multiply(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    output: Tensor = torch.ops.mkldnn._linear_pointwise.default(
        states, weight, bias, "none", [], ""
    )
    return output


def _works() -> bool:
    # Not a public function of PyTorch's: used where it is there and right.
    try:
        output = _multiply(torch.ones(2, 1, 4), torch.ones(3, 4), torch.ones(3))
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((output == 5).all())
