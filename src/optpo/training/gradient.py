"""The gradient of one optimiser step, made pass by pass, on all processes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optpo.batch import RolloutBatch
from optpo.needs import Need
from optpo.objectives.aggregate import Aggregate, token_weights
from optpo.objectives.token_batch import TokenBatch
from optpo.training.distributed import Processes, whole
from optpo.training.policy import Policy, Scored, completion_places
from optpo.training.stages import Loss, Objective


@dataclass(frozen=True)
class StepTargets:
    """What stays fixed during a step, (C,) float32 but for heads; see `TokenBatch` for their meaning.

    `logp_old` none: the behaviour policy is the policy itself at its only pass over the batch.
    `taught` (C,) bool are the tokens that the policy learns from (none: all); the critic learns from
    all. `longest` is the most tokens that a rollout may have, 0 where nothing says.
    `critic_only`: the policy stays as it is.
    """

    advantages: Tensor
    logp_old: Tensor | None = None
    logp_ref: Tensor | None = None
    values_old: Tensor | None = None
    returns: Tensor | None = None
    entropies: Tensor | None = None
    taught: Tensor | None = None
    longest: int = 0
    critic_only: bool = False
    head_tokens: Tensor | None = None
    head_logps: Tensor | None = None


def accumulate(
    policy: Policy,
    objective: Objective,
    batch: RolloutBatch,
    targets: StepTargets,
    rollouts: Tensor,
    processes: Processes,
    penalty: Loss | None = None,
    critic: Loss | None = None,
) -> tuple[dict[str, float], Tensor, float]:
    """Gradient of the aggregated loss over these rollouts, pass by pass, on all processes.

    The losses of a penalty and of a critic are added to the objective's and weighted as it is, or as
    a mean over tokens where it aggregates itself. Returns metrics, the gradient's norm and the
    sampling gap.
    """
    taught, longest = targets.taught, targets.longest
    weights = _weights(batch, rollouts, objective.aggregate, longest, taught)
    of_terms = "token-mean" if objective.aggregate == "sum" else objective.aggregate
    parts: list[tuple[Loss, Tensor]] = []
    if penalty is not None:
        parts.append((penalty, _weights(batch, rollouts, of_terms, longest, taught)))
    if critic is not None:
        parts.append((critic, _weights(batch, rollouts, of_terms, longest)))
    count = int(batch.lengths[rollouts].sum())
    fresh = (batch.versions == policy.version)[batch.token_rollouts]
    if "earlier" in batch.token_values:
        fresh &= batch.token_values["earlier"] == 0
    own, gap, slopes = {"loss": 0.0}, 0.0, None
    if "minibatch" in objective.needs:
        found, slopes = _slopes(policy, objective, batch, targets, rollouts, weights, processes)
        own = found if processes.first else own
    else:
        parts = [(objective, weights), *parts]
    needs = frozenset().union(*(part.needs for part, _ in parts))
    for piece, counts in processes.equal_share(list(policy.passes(batch, rollouts))):
        places = completion_places(batch, piece)
        scored = policy.score(batch, piece)
        logp = scored.logps
        loss, extra = _weighted(parts, _at(targets, places, batch, piece, scored, needs), places)
        whole_loss = loss if slopes is None else loss + _along(slopes, places, logp)
        (whole_loss * counts).backward()  # type: ignore[no-untyped-call]
        if not counts:
            continue
        gaps = (logp.detach().cpu() - batch.logps[places]).abs()[fresh[places]]
        gap = max(gap, float(gaps.max())) if len(gaps) else gap
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
    shares = processes.gather([(own, gap)])
    for share, _ in shares:
        for name, sum_of_share in share.items():
            metrics[name] = metrics.get(name, 0.0) + sum_of_share
    return metrics, whole(norm), max(of_share for _, of_share in shares)


def _weights(
    batch: RolloutBatch,
    rollouts: Tensor,
    aggregate: Aggregate,
    longest: int,
    taught: Tensor | None = None,
) -> Tensor:
    """What each of the batch's tokens weighs, (C,): 0 outside of these rollouts, and untaught."""
    weights = torch.zeros(int(batch.lengths.sum()))
    places, lengths = completion_places(batch, rollouts), batch.lengths[rollouts]
    if taught is not None:
        owners = torch.repeat_interleave(torch.arange(len(rollouts)), lengths)
        kept = taught[places]
        places, lengths = places[kept], owners[kept].bincount(minlength=len(rollouts))
        lengths = lengths[lengths > 0]
    if len(places):
        weights[places] = token_weights(lengths, aggregate, longest)
    return weights


def _weighted(
    parts: Sequence[tuple[Loss, Tensor]], seen: TokenBatch, places: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of weighted token losses of all parts, and the metrics of all."""
    loss = seen.logp.new_zeros(())
    metrics: dict[str, Tensor] = {}
    for part, weights in parts:
        losses, of_part = part(seen)
        loss = loss + (losses * weights[places].to(losses.device)).sum()
        metrics |= of_part
    return loss, metrics


def _slopes(
    policy: Policy,
    objective: Objective,
    batch: RolloutBatch,
    targets: StepTargets,
    rollouts: Tensor,
    weights: Tensor,
    processes: Processes,
) -> tuple[dict[str, float], Tensor]:
    """Metrics and slopes of an objective that must see all rollouts of an optimiser step.

    A slope is the derivative of the loss by a token's log-prob, (C,). By the chain rule the gradient
    is then made pass by pass, as that of a sum over tokens.
    """
    rollouts = rollouts.sort().values
    chosen = torch.zeros(batch.rollouts, dtype=torch.bool).index_fill(0, rollouts, value=True)
    places = completion_places(batch, rollouts)
    logp, _ = policy.score_all(batch.select(chosen), processes)
    # A critic's values are seen by terms alone, which have gradients of their own.
    scored = Scored(logp.requires_grad_(), None, logp)
    seen = _at(targets, places, batch, rollouts, scored, objective.needs - {"logits"})
    loss, extra = _weighted([(objective, weights)], seen, places)
    (slope,) = torch.autograd.grad(loss, logp)
    metrics = {name: float(value.mean()) for name, value in extra.items()}
    slopes = torch.zeros_like(weights).index_copy(0, places, slope)
    return {"loss": float(loss.detach()), **metrics}, slopes


def _along(slopes: Tensor, places: Tensor, logp: Tensor) -> Tensor:
    """A sum over tokens whose gradient is that of the loss with these slopes."""
    return (logp * slopes[places].to(logp.device)).sum()


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
        head_tokens=take(targets.head_tokens),
        head_logps=take(targets.head_logps),
    )
