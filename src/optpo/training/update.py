"""One policy update: from a batch with rewards to moved weights, or none where that would harm."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.errors import SettingsError
from optpo.objectives.aggregate import Aggregate, token_weights
from optpo.objectives.token_batch import TokenBatch
from optpo.training.distributed import ALONE, Processes, whole
from optpo.training.policy import Policy, completion_places


@dataclass(frozen=True)
class UpdateSettings:
    """How the gradient is made and applied.

    A step passes `epochs` times over its rollouts, each time in `minibatches` optimiser steps.
    `pass_tokens` bounds the tokens of one forward pass: memory, not results in exact arithmetic.
    `warmup` optimiser steps raise the learning rate from 0; `decay` cosine lowers it towards 0 at
    the last.

    `sharding` says what each of several processes keeps: "none" is all weights, gradients and
    moments; "full" its part of them, and one whole copy of the weights to sample from. Both take the
    same steps but for rounding; one process keeps all in any case.
    """

    learning_rate: float = 1e-6
    value_learning_rate: float = 1e-3
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    epochs: int = 1
    minibatches: int = 1
    pass_tokens: int = 2048
    warmup: int = 0
    decay: Literal["none", "cosine"] = "none"
    sharding: Literal["none", "full"] = "none"

    def __post_init__(self) -> None:
        checks = {
            f"learning_rate is {self.learning_rate}; it must be above 0": self.learning_rate > 0,
            f"value_learning_rate is {self.value_learning_rate}; it must be above 0": (
                self.value_learning_rate > 0
            ),
            f"weight_decay is {self.weight_decay}; it must be 0 or more": self.weight_decay >= 0,
            f"gradient_clip is {self.gradient_clip}; it must be above 0": self.gradient_clip > 0,
            f"epochs is {self.epochs}; it must be 1 or more": self.epochs >= 1,
            f"minibatches is {self.minibatches}; it must be 1 or more": self.minibatches >= 1,
            f"pass_tokens is {self.pass_tokens}; it must be 1 or more": self.pass_tokens >= 1,
            f"warmup is {self.warmup}; it must be 0 or more": self.warmup >= 0,
            f"sharding is {self.sharding!r}; it must be 'none' or 'full'": (
                self.sharding in ("none", "full")
            ),
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)


class Objective(Protocol):
    """A loss a token, and how token losses are weighted."""

    @property
    def aggregate(self) -> Aggregate:
        """How token losses become one number."""
        ...

    @property
    def needs_reference(self) -> bool:
        """Whether the reference policy's log-probs are needed."""
        ...

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses and token metrics, (C,) each."""
        ...


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


@dataclass(frozen=True)
class StepTargets:
    """What stays fixed during a step, (C,) float32 each; see `TokenBatch` for their meaning.

    `logp_old` none: the behaviour policy is the policy itself at its only pass over the batch.
    """

    advantages: Tensor
    logp_old: Tensor | None = None
    logp_ref: Tensor | None = None
    values_old: Tensor | None = None
    returns: Tensor | None = None


def behaviour(
    policy: Policy, settings: UpdateSettings, batch: RolloutBatch, processes: Processes = ALONE
) -> tuple[Tensor | None, Tensor | None]:
    """Log-probs of the policy that sampled (none: see `StepTargets`), and the critic's values.

    Rollouts of the current version are scored by the policy itself, in the packing they are trained
    in: the recorded log-probs are the same numbers but for rounding, and rounding that depends on
    the sampling batch must not reach the weights. Older rollouts keep what was recorded.
    """
    stale = batch.versions != policy.version
    once = settings.epochs == 1 and settings.minibatches == 1
    if policy.value_head is None:
        if stale.all():
            return batch.logps, None
        if once and not stale.any():
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
) -> dict[str, float]:
    """Move the policy by a step's rollouts; returns metrics, means over trained tokens.

    All processes are given the same, and end with the same.

    `rate(version)` scales the learning rate. An optimiser step whose loss or gradient is not finite
    is skipped and counted in `skipped_updates`; weights and optimiser state are then as they were.
    `sampling_gap` is the largest difference between a recorded log-prob of the policy's version and
    the policy's own: rounding, unless an engine is wrong.
    """
    sums: dict[str, float] = {}
    sampling_gap, skipped, steps = 0.0, 0, 0
    for epoch in range(settings.epochs):
        for rollouts in _minibatches(batch, settings, policy.version, epoch):
            metrics, gradient_norm, gap = _accumulate(
                policy, objective, batch, targets, rollouts, processes
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
    return {**means, "sampling_gap": sampling_gap, "skipped_updates": skipped}


def _minibatches(
    batch: RolloutBatch, settings: UpdateSettings, version: int, epoch: int
) -> list[Tensor]:
    """Rollout numbers an optimiser step; shuffled by a generator of their own if several."""
    if settings.minibatches == 1:
        return [torch.arange(batch.rollouts)]
    generator = torch.Generator().manual_seed(version * 1009 + epoch)
    order = torch.randperm(batch.rollouts, generator=generator)
    return [piece for piece in order.tensor_split(settings.minibatches) if len(piece)]


def _accumulate(
    policy: Policy,
    objective: Objective,
    batch: RolloutBatch,
    targets: StepTargets,
    rollouts: Tensor,
    processes: Processes,
) -> tuple[dict[str, float], Tensor, float]:
    """Gradient of the aggregated loss over these rollouts, pass by pass, on all processes.

    Returns its metrics, its norm and the sampling gap.
    """
    weights = torch.zeros(int(batch.lengths.sum()))
    weights[completion_places(batch, rollouts)] = token_weights(
        batch.lengths[rollouts], objective.aggregate
    )
    count = int(batch.lengths[rollouts].sum())
    fresh = (batch.versions == policy.version)[batch.token_rollouts]
    own, gaps = {"loss": 0.0}, [0.0]
    for piece, counts in processes.equal_share(list(policy.passes(batch, rollouts))):
        places = completion_places(batch, piece)
        logp, values = policy.score(batch, piece)
        device = logp.device
        losses, extra = objective(_at(targets, places, logp, values))
        loss = (losses * (weights[places] * counts).to(device)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        if not counts:
            continue
        own["loss"] += float(loss.detach())
        gaps += (logp.detach().cpu() - batch.logps[places]).abs()[fresh[places]].tolist()
        for name, value in extra.items():
            own[name] = own.get(name, 0.0) + float(value.sum()) / count
    parameters = policy.trainable().values()
    processes.sum_gradients(parameters)
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    metrics: dict[str, float] = {}
    shares = processes.gather([(own, max(gaps))])
    for share, _ in shares:
        for name, sum_of_share in share.items():
            metrics[name] = metrics.get(name, 0.0) + sum_of_share
    return metrics, whole(norm), max(gap for _, gap in shares)


def _at(targets: StepTargets, places: Tensor, logp: Tensor, values: Tensor | None) -> TokenBatch:
    """The fixed quantities at these completion tokens, beside the ones that carry gradients."""

    def take(fixed: Tensor | None) -> Tensor | None:
        return None if fixed is None else fixed[places].to(logp.device)

    logp_old = take(targets.logp_old)
    advantages = take(targets.advantages)
    assert advantages is not None
    return TokenBatch(
        logp=logp,
        logp_old=logp.detach() if logp_old is None else logp_old,
        advantages=advantages,
        logp_ref=take(targets.logp_ref),
        values=values,
        values_old=take(targets.values_old),
        returns=take(targets.returns),
    )
