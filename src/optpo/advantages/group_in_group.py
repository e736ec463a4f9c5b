"""GiGPO: whole episodes against each other, and steps that were taken from the same state."""

from typing import Literal

import torch
from torch import Tensor

from optpo.advantages.gae import discounted_sum
from optpo.batch import segment_mean, segment_spread, segment_std, segment_sum


def group_in_group(
    rewards: Tensor,
    episodes: Tensor,
    tasks: Tensor,
    states: Tensor,
    *,
    gamma: float = 0.95,
    weight: float = 1.0,
    scale: Literal["std", "none"] = "std",
    statistics: Literal["episodes", "steps"] = "episodes",
    singleton: Literal["zero", "reward"] = "zero",
    epsilon: float = 1e-6,
) -> Tensor:
    """Advantages a step, (N,), to be shared by its tokens: A_episode + weight A_state (2505.10978).

    `rewards` (N,) floats by step, `episodes` (N,) int64, sorted, in 0..E-1 with each present,
    `tasks` (E,) int64 of the episodes, `states` (N,) int64 that name the environment's state before
    a step: equal numbers in one task are one state.

    A_episode compares the sum of an episode's rewards with the other episodes of its task, A_state
    the discounted return from a step with those of all steps of the task from the same state, however
    late, also of the same episode. Both are (value - mean) / F, F the unbiased deviation plus `epsilon`
    (`scale` std) or 1 (none).

    `statistics` episodes counts each episode once; steps, as the published code does by default, once
    for each of its steps, so that long episodes count for more. A task with one episode has
    A_episode 0, or with `singleton` reward, as in the code, its sum of rewards; a state met once has
    A_state 0. With weight 0 it is GRPO over episodes, and so it is where no state is met twice.

    Raises ValueError where the numbers of steps or episodes do not fit.
    """
    if not len(rewards) == len(episodes) == len(states):
        raise ValueError(
            f"{len(rewards)} rewards, {len(episodes)} episodes and {len(states)} states; there must "
            "be one of each for every step"
        )
    count = len(tasks)
    if len(episodes) and int(episodes[-1]) + 1 != count:
        raise ValueError(f"the last step is of episode {int(episodes[-1])}, but tasks has {count}")
    _, numbers = torch.unique(tasks, return_inverse=True)
    outcomes, places = segment_sum(rewards, episodes, count), episodes
    if statistics == "episodes":
        of_episodes = _relative(outcomes, numbers, scale, epsilon)[places]
    else:
        of_episodes = _relative(outcomes[places], numbers[places], scale, epsilon)
    if singleton == "reward":
        sizes = segment_sum(torch.ones_like(numbers), numbers, count)
        of_episodes = torch.where((sizes[numbers] == 1)[places], outcomes[places], of_episodes)
    keys = torch.stack([numbers[places], states])
    _, anchors = torch.unique(keys, dim=1, return_inverse=True)
    returns = discounted_sum(rewards, episodes, gamma)
    return of_episodes + weight * _relative(returns, anchors, scale, epsilon)


def _relative(values: Tensor, segments: Tensor, scale: str, epsilon: float) -> Tensor:
    count = len(values)
    apart = (segment_spread(values, segments, count) > 0)[segments]
    deviation = values - segment_mean(values, segments, count)[segments]
    if scale == "std":
        deviation = deviation / (segment_std(values, segments, count)[segments] + epsilon)
    return torch.where(apart, deviation, 0)
