"""Before anything is sampled: can this model be trained here at all?"""

from collections.abc import Sequence

import torch

from optpo.batch import pack
from optpo.errors import ModelError
from optpo.rollout import Rollout
from optpo.training.policy import Policy

TOLERANCE = 1e-2
"""Nats; rounding in float32 is some 1e-5."""


def check_training(policy: Policy, prompts: Sequence[tuple[int, ...]]) -> None:
    """Score two packed prompts and compare with a plain forward of each.

    Raises ModelError where the model's attention cannot be packed: `optpo vote` still works then.
    """
    chosen = [prompt for prompt in prompts if len(prompt) > 1][:2]
    if not chosen:
        return
    rollouts = [
        [Rollout("", 0, 0, prompt[:1], prompt[1:], (0.0,) * (len(prompt) - 1), "stop")]
        for prompt in chosen
    ]
    batch = pack(rollouts, [-1] * len(rollouts))
    advice = "it can answer by `optpo vote`, but not be trained here"
    try:
        packed, _ = policy.score_all(batch)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"{type(policy.model).__name__} does not attend through transformers' attention "
            f"interface ({error}): {advice}"
        ) from error
    plain = torch.cat([_plain(policy, prompt) for prompt in chosen])
    gap = float((packed - plain).abs().max())
    if policy.autocast == torch.float32 and not gap < TOLERANCE:
        raise ModelError(
            f"{type(policy.model).__name__} gives other log-probs when sequences are packed "
            f"(by {gap:.3g} nats): {advice}"
        )


@torch.no_grad()
def _plain(policy: Policy, prompt: tuple[int, ...]) -> torch.Tensor:
    tokens = torch.tensor([prompt], device=policy.model.device)
    logits = policy.model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
    if policy.temperature > 0:
        logits = logits / policy.temperature
    chosen: torch.Tensor = logits.log_softmax(-1).gather(-1, tokens[0, 1:, None])[:, 0]
    return chosen.cpu()
