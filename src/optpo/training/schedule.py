"""The learning rate over a run."""

import math

from optpo.training.update_settings import UpdateSettings


def learning_rate_factor(settings: UpdateSettings, done: int, total: int) -> float:
    """What multiplies the learning rate after `done` of `total` optimiser steps, in (0, 1]."""
    if done < settings.warmup:
        return (done + 1) / settings.warmup
    if settings.decay == "none" or total <= settings.warmup:
        return 1.0
    progress = min((done - settings.warmup) / (total - settings.warmup), 1.0)
    # The last step still moves: a factor of 0 would waste its rollouts.
    return max(0.5 * (1 + math.cos(math.pi * progress)), 1 / total)
