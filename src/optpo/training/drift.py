"""How far the policy has moved on a question since its last visit, measured on stored rollouts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from optpo.batch import pack, segment_mean
from optpo.rollout import Rollout
from optpo.sampling.ballot import Ballot
from optpo.training.distributed import ALONE, Processes
from optpo.training.policy import Policy
from optpo.training.prompt_state import Probe


def take_probes(
    policy: Policy,
    ballots: Sequence[Ballot],
    count: int,
    processes: Processes = ALONE,
    *,
    longest: int | None = None,
) -> dict[str, tuple[Probe, ...]]:
    """The first `count` rollouts of each question, scored by the policy as it is now.

    Of each its first `longest` tokens; all of them where that is None.
    The log-probs recorded at sampling would do but for rounding, which depends on the sampling
    batch and must not reach a verdict.
    """
    groups = [
        [
            replace(rollout, tokens=rollout.tokens[:longest], logps=rollout.logps[:longest])
            for rollout in ballot.rollouts[:count]
        ]
        for ballot in ballots
    ]
    scores = iter(_scores(policy, groups, processes).tolist())
    return {
        ballot.prompt_id: tuple(
            Probe(rollout.tokens, tuple(next(scores) for _ in rollout.tokens)) for rollout in group
        )
        for ballot, group in zip(ballots, groups, strict=True)
    }


def drifts(
    policy: Policy,
    prompts: Mapping[str, tuple[int, ...]],
    probes: Mapping[str, Sequence[Probe]],
    processes: Processes = ALONE,
) -> dict[str, float]:
    """Mean absolute change in log-prob, nats a token, over each question's probes.

    D of Single-stream Policy Optimization (2509.13232) as its published code measures it.
    """
    stored = {name: some for name, some in probes.items() if some}
    if not stored:
        return {}
    groups = [
        [
            Rollout(name, index, policy.version, prompts[name], probe.tokens, probe.logps, "stop")
            for index, probe in enumerate(some)
        ]
        for name, some in stored.items()
    ]
    then = torch.tensor([logp for some in stored.values() for p in some for logp in p.logps])
    sizes = torch.tensor([sum(len(probe.tokens) for probe in some) for some in stored.values()])
    questions = torch.repeat_interleave(torch.arange(len(stored)), sizes)
    changes = (_scores(policy, groups, processes) - then).abs()
    means = segment_mean(changes, questions, len(stored))
    return dict(zip(stored, means.tolist(), strict=True))


def _scores(policy: Policy, groups: Sequence[Sequence[Rollout]], processes: Processes) -> Tensor:
    return policy.score_all(pack(groups, [-1] * len(groups)), processes)[0]
