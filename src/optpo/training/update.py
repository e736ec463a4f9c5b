"""One policy update: from a batch with rewards to moved weights, or none where that would harm."""

from collections.abc import Callable

import torch
from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.objectives.ratio import mean_ratio_deviation
from optpo.training.distributed import ALONE, Processes
from optpo.training.gradient import StepTargets, accumulate
from optpo.training.policy import Policy
from optpo.training.stages import Loss, Objective
from optpo.training.update_settings import UpdateSettings


def make_optimizer(policy: Policy, settings: UpdateSettings) -> torch.optim.AdamW:
    """AdamW over everything trainable; the critic has its own learning rate."""
    trainable = policy.trainable()
    critic = [value for name, value in trainable.items() if name.startswith("value_head.")]
    actor = [value for name, value in trainable.items() if not name.startswith("value_head.")]
    groups = [
        {"params": actor, "lr": settings.learning_rate},
        {"params": critic, "lr": settings.value_learning_rate},
    ]
    return torch.optim.AdamW(
        [{**group, "base_lr": group["lr"]} for group in groups if group["params"]],
        weight_decay=settings.weight_decay,
    )


def behaviour(
    policy: Policy,
    settings: UpdateSettings,
    batch: RolloutBatch,
    processes: Processes = ALONE,
    *,
    wanted: bool = False,
) -> tuple[Tensor | None, Tensor | None]:
    """Log-probs of the policy that sampled (none: see `StepTargets`), and the critic's values.

    Rollouts of the current version are scored by the policy itself, in the packing they are trained
    in: the recorded log-probs are the same numbers but for rounding, and rounding that depends on
    the sampling batch must not reach the weights. Older rollouts keep what was recorded. `wanted`:
    log-probs are read by more than the ratio, so that there must be some.
    """
    stale = batch.versions != policy.version
    once = settings.epochs == 1 and settings.minibatches == 1
    if policy.value_head is None:
        if stale.all():
            return batch.logps, None
        if once and not wanted and not stale.any():
            return None, None
    logps, values = policy.score_all(batch, processes)
    return torch.where(stale[batch.token_rollouts], batch.logps, logps), values


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    settings: UpdateSettings,
    batch: RolloutBatch,
    targets: StepTargets,
    rate: Callable[[int], float],
    processes: Processes = ALONE,
    penalty: Loss | None = None,
    critic: Loss | None = None,
) -> dict[str, float]:
    """Move the policy by a step's rollouts; returns metrics, means over trained tokens.

    All processes are given the same, and end with the same. The losses of a penalty and of a critic
    are added to the objective's (see `accumulate`).

    `rate(version)` scales the learning rate. An optimiser step whose loss or gradient is not finite
    is skipped and counted in `skipped_updates`; weights and optimiser state are then as they were.
    `sampling_gap` is the largest difference between a recorded log-prob of the policy's version and
    the policy's own: rounding, unless an engine is wrong.
    """
    sums: dict[str, float] = {}
    sampling_gap, skipped, steps, epochs = 0.0, 0, 0, 0
    for epoch in range(settings.epochs):
        if epoch and _strayed(policy, settings, batch, targets, processes):
            break
        epochs += 1
        together = "minibatch" in objective.needs
        for rollouts in _minibatches(batch, settings, policy.version, epoch, together):
            metrics, gradient_norm, gap = accumulate(
                policy, objective, batch, targets, rollouts, processes, penalty, critic
            )
            sampling_gap = max(sampling_gap, gap)
            finite = all(torch.isfinite(torch.tensor(list(metrics.values()))))
            if finite and torch.isfinite(gradient_norm):
                parameters = list(policy.trainable().values())
                torch.nn.utils.clip_grads_with_norm_(
                    parameters, settings.gradient_clip, gradient_norm
                )
                for group in optimizer.param_groups:
                    group["lr"] = group["base_lr"] * rate(policy.version)
                optimizer.step()
                policy.version += 1
                steps += 1
                metrics["gradient_norm"] = float(gradient_norm)
                for name, value in metrics.items():
                    sums[name] = sums.get(name, 0.0) + value
            else:
                skipped += 1
            optimizer.zero_grad(set_to_none=True)
    means = {name: value / steps for name, value in sums.items()}
    return {**means, "sampling_gap": sampling_gap, "skipped_updates": skipped, "epochs": epochs}


def _strayed(
    policy: Policy,
    settings: UpdateSettings,
    batch: RolloutBatch,
    targets: StepTargets,
    processes: Processes,
) -> bool:
    """Whether the policy is too far from the one that sampled to learn more from its rollouts."""
    if settings.most_deviation == 0:
        return False
    assert targets.logp_old is not None
    logp, _ = policy.score_all(batch, processes)
    return mean_ratio_deviation(logp, targets.logp_old) > settings.most_deviation


def _minibatches(
    batch: RolloutBatch, settings: UpdateSettings, version: int, epoch: int, together: bool
) -> list[Tensor]:
    """Rollout numbers an optimiser step; shuffled by a generator of their own if several.

    `together` leaves the rollouts of a question in one of them, for objectives that compare them.
    """
    if settings.minibatches == 1:
        return [torch.arange(batch.rollouts)]
    generator = torch.Generator().manual_seed(version * 1009 + epoch)
    if not together:
        order = torch.randperm(batch.rollouts, generator=generator)
        return [piece for piece in order.tensor_split(settings.minibatches) if len(piece)]
    order = torch.randperm(batch.group_count, generator=generator)
    return [
        torch.isin(batch.groups, piece).nonzero()[:, 0]
        for piece in order.tensor_split(settings.minibatches)
        if len(piece)
    ]
