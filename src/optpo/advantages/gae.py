"""Generalised advantage estimation over the tokens of each rollout."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from optpo.advantages.steps import step_ends
from optpo.advantages.token_rewards import token_rewards
from optpo.advantages.whitening import whiten
from optpo.batch import RolloutBatch
from optpo.errors import SettingsError
from optpo.needs import Need


@dataclass(frozen=True)
class GaeAdvantage:
    """GAE (1506.02438) with the reward on a rollout's last token, as PPO uses it (1707.06347).

    `whiten` brings the advantages of the batch to mean 0 and (unbiased) deviation 1.

    `kl_coefficient`, `guide_coefficient` and `guide_clip` add rewards a token (PPO-max and RTO, see
    `token_rewards`). With `action_token` discounting happens only where an action ends, after that
    token, and not inside it (POAD, 2405.15821); the trace decays by `lam` at every token.

    `cut` says what follows the last token of an unfinished rollout: terminal nothing, hold its own
    value again (EGAE of T-PPO, 2506.15050). Under hold an unfinished rollout has no outcome to
    learn from: its returns are not a number, and the critic must leave them out.
    `returns` are advantage plus value (lambda), or the discounted rewards alone (monte-carlo).
    """

    gamma: float = 1.0
    lam: float = 0.95
    whiten: bool = True
    cut: Literal["terminal", "hold"] = "terminal"
    returns: Literal["lambda", "monte-carlo"] = "lambda"
    kl_coefficient: float = 0.0
    guide_coefficient: float = 0.0
    guide_clip: float = 0.0
    action_token: int | None = None

    def __post_init__(self) -> None:
        shares = {"gamma": self.gamma, "lam": self.lam}
        problems = [
            f"{name} is {value}; it must lie between 0 and 1"
            for name, value in shares.items()
            if not 0 <= value <= 1
        ]
        terms = {
            "kl_coefficient": self.kl_coefficient,
            "guide_coefficient": self.guide_coefficient,
            "guide_clip": self.guide_clip,
            "action_token": self.action_token or 0,
        }
        problems += [
            f"{name} is {value}; it must be 0 or more" for name, value in terms.items() if value < 0
        ]
        if problems:
            raise SettingsError(problems)

    @property
    def needs(self) -> frozenset[Need]:
        """A critic always; the reference and the guide where their rewards count."""
        needs: set[Need] = {"critic"}
        if self.kl_coefficient > 0:
            needs.add("reference")
        if self.guide_coefficient > 0:
            needs |= {"guide", "reference"}
        return frozenset(needs)

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> tuple[Tensor, Tensor]:
        """Advantages and returns a completion token, (C,) each in the dtype of `rewards`.

        Where `cut` is hold an unfinished rollout's reward does not count. Advantages are whitened over
        the tokens that are taught (`token_values["taught"]`, where it is there).
        """
        values = batch.token_values["value"].to(rewards.dtype)
        rollouts, last = batch.token_rollouts, batch.completion_offsets[1:] - 1
        held = batch.unfinished if self.cut == "hold" else torch.zeros_like(batch.unfinished)
        by_token = token_rewards(
            batch,
            rewards.masked_fill(held, 0),
            kl_coefficient=self.kl_coefficient,
            guide_coefficient=self.guide_coefficient,
            guide_clip=self.guide_clip,
        )
        discounts = torch.full_like(values, self.gamma)
        if self.action_token is not None:
            discounts = torch.where(step_ends(batch, self.action_token), discounts, 1)
        advantages = generalised_advantages(
            by_token,
            values,
            rollouts,
            discounts,
            self.lam,
            final_values=torch.where(held, values[last], 0),
        )
        if self.returns == "lambda":
            returns = advantages + values
        else:
            returns = discounted_sum(by_token, rollouts, discounts)
        returns = torch.where(held[rollouts], torch.nan, returns)
        if self.whiten and len(advantages) > 1:
            counts = batch.token_values.get("taught", torch.ones_like(advantages))
            advantages = whiten(advantages, counts.to(advantages.dtype), 1e-8)
        return advantages, returns


def generalised_advantages(
    rewards: Tensor,
    values: Tensor,
    segments: Tensor,
    discounts: Tensor,
    lam: float,
    *,
    final_values: Tensor | None = None,
) -> Tensor:
    """A_t = d_t + gamma_t lam A_{t+1} with d_t = r_t + gamma_t V_{t+1} - V_t, (N,).

    `rewards`, `values` and `discounts` (gamma_t, which lies between t and t + 1) are (N,) floats,
    `segments` (N,) int64, sorted from 0, says which rollout each belongs to. `final_values` (S,) is
    what each rollout's last value is followed by (none: 0, it ended).
    """
    is_last = torch.ones_like(segments, dtype=torch.bool)
    is_last[:-1] = segments[1:] != segments[:-1]
    following = values.roll(-1)
    after = torch.zeros_like(values) if final_values is None else final_values[segments]
    deltas = rewards + discounts * torch.where(is_last, after, following) - values
    return discounted_sum(deltas, segments, discounts * lam)


def discounted_sum(values: Tensor, segments: Tensor, discount: float | Tensor) -> Tensor:
    """S_t = values_t + discount_t S_{t+1} within each segment, (N,); segments are sorted.

    `discount` is one number or (N,). A scan by doubling: after round j every entry holds its next
    2^j terms, and what the one after those is to be multiplied by.
    """
    total = values
    factor = torch.as_tensor(discount, dtype=values.dtype).expand_as(values).clone()
    factor[:-1].masked_fill_(segments[1:] != segments[:-1], 0)
    reach = 1
    while reach < len(values) and bool((segments[reach:] == segments[:-reach]).any()):
        rest = values.new_zeros(reach)
        total = total + factor * torch.cat([total[reach:], rest])
        factor = factor * torch.cat([factor[reach:], rest])
        reach *= 2
    return total
