"""A corridor with a key at one end and a door at the other, played in turns by a table of logits."""

from dataclasses import dataclass

import torch
from torch import Tensor

CELLS = 5
LEFT, RIGHT, PICK, OPEN = range(4)
STATES = 2 * CELLS


@dataclass(frozen=True)
class Turns:
    """What was played, episode by episode: one entry a step, and the task of each episode."""

    rewards: Tensor
    episodes: Tensor
    states: Tensor
    actions: Tensor
    tasks: Tensor

    @property
    def success(self) -> float:
        return float(self.rewards.sum()) / len(self.tasks)


def play(logits: Tensor, group: int, horizon: int, generator: torch.Generator) -> Turns:
    """`group` episodes from every cell (the task) without the key; opening with it is worth 1."""
    tasks = torch.arange(CELLS).repeat_interleave(group)
    cell, key = tasks.clone(), torch.zeros_like(tasks, dtype=torch.bool)
    playing = torch.ones_like(key)
    states, actions, rewards, played = [], [], [], []
    for _ in range(horizon):
        state = cell + CELLS * key
        action = torch.multinomial(logits[state].softmax(-1), 1, generator=generator)[:, 0]
        opened = playing & (action == OPEN) & (cell == CELLS - 1) & key
        states.append(state)
        actions.append(action)
        rewards.append(opened.float())
        played.append(playing)
        key = key | ((action == PICK) & (cell == 0))
        cell = (cell + (action == RIGHT).long() - (action == LEFT).long()).clamp(0, CELLS - 1)
        playing = playing & ~opened
    keep = torch.stack(played, 1)
    episodes = torch.arange(len(tasks))[:, None].expand_as(keep)
    return Turns(
        *(torch.stack(some, 1)[keep] if isinstance(some, list) else some[keep]
          for some in (rewards, episodes, states, actions)),
        tasks=tasks,
    )  # fmt: skip
