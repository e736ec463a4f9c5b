"""Training in several processes at once: who does what, and how they come together again.

Every process runs the same program. Each asks its share of a step's questions, all get to see all
votes, and each makes its share of the gradient; one process alone shares with nobody.
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `world`. Every method is called by all of them, or hangs."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and talks."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """What falls to this process: every `world`-th item; calls nobody."""
        return list(items[self.rank :: self.world])

    def equal_share(self, items: Sequence[T]) -> list[tuple[T, bool]]:
        """As many items for every process; those that only make up the number come with False."""
        own = [(item, True) for item in self.share(items)]
        wanted = math.ceil(len(items) / self.world)
        return own + [(item, False) for item in items[:1]] * (wanted - len(own))

    def gather(self, own: Sequence[T]) -> list[T]:
        """All items that `share` dealt out, in the order they had."""
        shares: list[list[T]] = gather_object([list(own)]) if self.world > 1 else [list(own)]
        return [
            share[place]
            for place in range(max(map(len, shares)))
            for share in shares
            if place < len(share)
        ]

    def same(self, value: T) -> T:
        """The value that the first process has."""
        values = [value]
        if self.world > 1:
            broadcast_object_list(values)
        return values[0]

    def any(self, asked: bool) -> bool:
        """Whether one of them says so."""
        return any(self.gather([asked]))

    def sum(self, tensor: Tensor) -> None:
        """Add up what the processes have, in place."""
        if self.world > 1:
            shared = tensor.to(PartialState().device)
            torch.distributed.all_reduce(shared)
            tensor.copy_(shared)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up gradients; those of sharded parameters were added up as they were made.

        Once an optimiser step, where data-parallel wrappers do so after every pass.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        whole = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
        if self.world > 1 and whole:
            together = torch.cat([gradient.flatten() for gradient in whole])
            self.sum(together)
            begin = 0
            for gradient in whole:
                end = begin + gradient.numel()
                gradient.copy_(together[begin:end].view_as(gradient))
                begin = end

    def shard(self, modules: Iterable[torch.nn.Module], blocks: Sequence[str]) -> None:
        """Leave each process its part of the parameters that are trained.

        `blocks` are the names of the classes of module that are put together, used and taken apart
        again one at a time. Gradients are added up, and each process keeps those of its part.
        """
        mesh = init_device_mesh(PartialState().device.type, (self.world,))
        for module in modules:
            frozen = {p for p in module.parameters() if not p.requires_grad}
            inner = [part for part in module.modules() if type(part).__name__ in blocks]
            for part in (*inner, module):
                fully_shard(part, mesh=mesh, ignored_params=frozen)
            for part in module.modules():
                if isinstance(part, FSDPModule):
                    # Losses are weighted over all processes: theirs is a sum, not a mean.
                    part.set_gradient_divide_factor(1.0)
                    part.set_force_sum_reduction_for_comms(True)


ALONE = Processes()


def join_processes(device: str) -> Processes:
    """The processes that a launcher such as torchrun has started this one among; else it alone.

    `device` "cpu" talks over gloo, another one over what suits the accelerator. Each process has
    the accelerator of its number on its machine.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    # Who waits longer than usual waits for rollouts; that a process died is for the launcher to see.
    state = PartialState(
        cpu=device == "cpu" or not torch.cuda.is_available(), timeout=timedelta(days=1)
    )
    return Processes(state.process_index, state.num_processes)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, of which this process may hold a part only; then all of them must call."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """The part of a whole tensor that this process holds of another; the whole if it holds that."""
    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    return distribute_tensor(
        tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )
