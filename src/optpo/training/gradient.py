"""The gradient of one optimiser step, made pass by pass, on all processes."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.needs import Need
from optpo.objectives.aggregate import Aggregate, token_weights
from optpo.objectives.token_batch import TokenBatch
from optpo.training.distributed import Processes, whole
from optpo.training.policy import Policy, Scored, completion_places


class Objective(Protocol):
    """A loss a token, and how token losses are weighted."""

    @property
    def aggregate(self) -> Aggregate:
        """How token losses become one number."""
        ...

    @property
    def needs(self) -> frozenset[Need]:
        """What it asks for beside ratio and advantages."""
        ...

    def __call__(self, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Token losses and token metrics, (C,) each."""
        ...


@dataclass(frozen=True)
class StepTargets:
    """What stays fixed during a step, (C,) float32 each; see `TokenBatch` for their meaning.

    `logp_old` none: the behaviour policy is the policy itself at its only pass over the batch.
    `longest` is the most tokens that a rollout may have, 0 where nothing says.
    `critic_only`: the policy stays as it is.
    """

    advantages: Tensor
    logp_old: Tensor | None = None
    logp_ref: Tensor | None = None
    values_old: Tensor | None = None
    returns: Tensor | None = None
    entropies: Tensor | None = None
    longest: int = 0
    critic_only: bool = False


def accumulate(
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
        batch.lengths[rollouts], objective.aggregate, targets.longest
    )
    count = int(batch.lengths[rollouts].sum())
    fresh = (batch.versions == policy.version)[batch.token_rollouts]
    if "earlier" in batch.token_values:
        fresh &= batch.token_values["earlier"] == 0
    own, gaps = {"loss": 0.0}, [0.0]
    slopes = None
    if "minibatch" in objective.needs:
        own, slopes = _slopes(policy, objective, batch, targets, rollouts, weights, processes)
        own = own if processes.first else {"loss": 0.0}
    for piece, counts in processes.equal_share(list(policy.passes(batch, rollouts))):
        places = completion_places(batch, piece)
        scored = policy.score(batch, piece)
        logp = scored.logps
        if slopes is None:
            losses, extra = objective(_at(targets, places, batch, piece, scored, objective.needs))
            loss = (losses * (weights[places] * counts).to(logp.device)).sum()
        else:
            loss, extra = _along(slopes, places, scored) * counts, {}
        loss.backward()  # type: ignore[no-untyped-call]
        if not counts:
            continue
        gaps += (logp.detach().cpu() - batch.logps[places]).abs()[fresh[places]].tolist()
        if slopes is None:
            own["loss"] += float(loss.detach())
        for name, value in extra.items():
            own[name] = own.get(name, 0.0) + float(value.sum()) / count
    if targets.critic_only:
        for name, parameter in policy.trainable().items():
            if not name.startswith("value_head."):
                parameter.grad = None
    parameters = policy.trainable().values()
    processes.sum_gradients(parameters)
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    metrics: dict[str, float] = {}
    shares = processes.gather([(own, max(gaps))])
    for share, _ in shares:
        for name, sum_of_share in share.items():
            metrics[name] = metrics.get(name, 0.0) + sum_of_share
    return metrics, whole(norm), max(gap for _, gap in shares)


Slopes = tuple[Tensor, Tensor | None]
"""The derivative of a loss by each token's log-prob, and by its value where there is a critic."""


def _slopes(
    policy: Policy,
    objective: Objective,
    batch: RolloutBatch,
    targets: StepTargets,
    rollouts: Tensor,
    weights: Tensor,
    processes: Processes,
) -> tuple[dict[str, float], Slopes]:
    """Metrics and slopes (C,) of an objective that must see all rollouts of an optimiser step.

    By the chain rule the gradient is then made pass by pass, as that of a sum over tokens.
    """
    rollouts = rollouts.sort().values
    chosen = torch.zeros(batch.rollouts, dtype=torch.bool).index_fill(0, rollouts, value=True)
    places = completion_places(batch, rollouts)
    logp, values = policy.score_all(batch.select(chosen), processes)
    logp.requires_grad_()
    if values is not None:
        values.requires_grad_()
    scored = Scored(logp, values, logp)
    seen = _at(targets, places, batch, rollouts, scored, objective.needs - {"logits"})
    losses, extra = objective(seen)
    loss = (losses * weights[places]).sum()
    leaves = [logp] if values is None else [logp, values]
    slopes = torch.autograd.grad(loss, leaves, allow_unused=True)
    spread = [
        None if slope is None else torch.zeros_like(weights).index_copy(0, places, slope)
        for slope in (*slopes, None)[:2]
    ]
    metrics = {name: float(value.mean()) for name, value in extra.items()}
    by_logp = spread[0]
    assert by_logp is not None
    return {"loss": float(loss.detach()), **metrics}, (by_logp, spread[1])


def _along(slopes: Slopes, places: Tensor, scored: Scored) -> Tensor:
    """A sum over tokens whose gradient is that of the loss with these slopes."""
    by_logp, by_value = slopes
    total = (scored.logps * by_logp[places].to(scored.logps.device)).sum()
    if by_value is not None and scored.values is not None:
        total = total + (scored.values * by_value[places].to(scored.values.device)).sum()
    return total


def _at(
    targets: StepTargets,
    places: Tensor,
    batch: RolloutBatch,
    rollouts: Tensor,
    scored: Scored,
    needs: frozenset[Need],
) -> TokenBatch:
    """The fixed quantities at these rollouts' tokens, beside the ones that carry gradients."""
    logp = scored.logps

    def take(fixed: Tensor | None) -> Tensor | None:
        return None if fixed is None else fixed[places].to(logp.device)

    logp_old = take(targets.logp_old)
    advantages = take(targets.advantages)
    assert advantages is not None
    numbers = torch.repeat_interleave(torch.arange(len(rollouts)), batch.lengths[rollouts])
    return TokenBatch(
        logp=logp,
        logp_old=logp.detach() if logp_old is None else logp_old,
        advantages=advantages,
        logp_ref=take(targets.logp_ref),
        values=scored.values,
        values_old=take(targets.values_old),
        returns=take(targets.returns),
        rollouts=numbers.to(logp.device),
        groups=torch.unique(batch.groups[rollouts], return_inverse=True)[1].to(logp.device),
        entropies=take(targets.entropies),
        tokens=batch.completion_tokens[places].to(logp.device),
        logits=scored.logits if "logits" in needs else None,
    )
