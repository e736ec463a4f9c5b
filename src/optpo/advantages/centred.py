"""Advantages relative to a centre, at a scale: what most policy-gradient methods differ in."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from optpo.advantages.beta_scale import beta_weights
from optpo.advantages.gae import discounted_sum
from optpo.advantages.token_rewards import log_ratios
from optpo.advantages.whitening import exact_mean, whiten
from optpo.batch import RolloutBatch, segment_mean, segment_spread, segment_std, segment_sum
from optpo.errors import SettingsError
from optpo.needs import Need

Centre = Literal["mean", "leave-one-out", "token-mean", "greedy", "tracked", "none"]
Scale = Literal["std", "population-std", "token-std", "beta", "batch", "batch-tokens", "none"]

_OF_THE_GROUP = (
    "mean",
    "leave-one-out",
    "token-mean",
    "std",
    "population-std",
    "token-std",
    "beta",
)


@dataclass(frozen=True)
class CentredAdvantage:
    """(reward - centre) / scale, the same for all tokens of a rollout unless said.

    `centre` mean, leave-one-out (RLOO, 2402.14740) or token-mean (each reward weighed by its
    rollout's length: OPO, 2505.23585) of the question's rollouts; greedy, the score of the greedy
    rollout (ReMax, 2310.10505); tracked, what is remembered of the question (SPO, 2509.13232);
    none (REINFORCE).

    `scale` std is the group's unbiased deviation (GRPO, 2402.03300, as in verl and TRL),
    population-std divides by the number of rollouts, token-std is over the tokens of the group
    (HAPO, 2509.16591, its part B with centre token-mean; its code's fallback to GRPO is left out);
    beta is BNPO's density (2506.02864, see `beta_scale`). batch subtracts the mean over all
    rollouts of the batch and divides by their unbiased deviation (SPO); batch-tokens does so over
    all completion tokens (REINFORCE++, 2501.03262). none is Dr.GRPO (2503.20783) with centre mean.
    `epsilon` is added to the deviation; under batch-tokens to the variance, as in verl.

    A group of one has no peers: where centre or scale is the group's its advantage is 0, or with
    `singleton` reward the reward itself (verl: centre 0, scale 1). A group whose rewards are all
    equal has 0 under a centre of the group, and scale 1 under another centre, whose difference the
    bare epsilon would blow up.

    `gamma` discounts the reward by its distance in tokens. `kl_coefficient` times
    logp - logp_ref is taken off: by `kl_placement` to-go from each token what it and all later
    tokens owe, discounted (REINFORCE++); token, only its own (the code of ReMax); sequence, the
    rollout's sum off its reward before that is centred (RLOO, and P3O, 2310.00212).
    """

    centre: Centre = "mean"
    scale: Scale = "std"
    epsilon: float = 1e-6
    singleton: Literal["zero", "reward"] = "zero"
    gamma: float = 1.0
    kl_coefficient: float = 0.0
    kl_placement: Literal["to-go", "token", "sequence"] = "to-go"

    def __post_init__(self) -> None:
        checks = {
            f"epsilon is {self.epsilon}; it must be above 0": self.epsilon > 0,
            f"gamma is {self.gamma}; it must lie between 0 and 1": 0 <= self.gamma <= 1,
            f"kl_coefficient is {self.kl_coefficient}; it must be 0 or more": (
                self.kl_coefficient >= 0
            ),
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    @property
    def needs(self) -> frozenset[Need]:
        """The centre's source, and the reference where its divergence counts."""
        needs: set[Need] = {"reference"} if self.kl_coefficient > 0 else set()
        if self.centre in ("greedy", "tracked"):
            needs.add(self.centre)
        return frozenset(needs)

    @property
    def compares(self) -> bool:
        """Whether a rollout without others of its question has advantage 0."""
        of_the_group = self.centre in _OF_THE_GROUP or self.scale in _OF_THE_GROUP
        return of_the_group and self.singleton == "zero"

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> tuple[Tensor, None]:
        """Advantages a completion token, (C,) in the dtype of `rewards`; there are no returns.

        Raises RewardError under scale beta for rewards outside [0, 1].
        """
        rollouts = batch.token_rollouts
        # Much quicker on a processor than the same by an index in brackets.
        advantages = self._before_tokens(batch, rewards).index_select(0, rollouts)
        if self.gamma < 1:
            to_come = batch.completion_offsets[1:][rollouts] - 1 - torch.arange(len(rollouts))
            advantages = advantages * self.gamma ** to_come.to(rewards.dtype)
        if self.kl_coefficient > 0 and self.kl_placement != "sequence":
            penalties = self.kl_coefficient * log_ratios(batch, rewards.dtype)
            if self.kl_placement == "to-go":
                penalties = discounted_sum(penalties, rollouts, self.gamma)
            advantages = advantages - penalties
        if self.scale == "batch-tokens":
            counts = batch.token_values.get("taught", torch.ones_like(advantages))
            advantages = whiten(advantages, counts.to(advantages.dtype), self.epsilon)
        return advantages, None

    def of_rollouts(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Advantages a rollout, (R,) in the dtype of `rewards`; nothing a token is in them."""
        advantages = self._before_tokens(batch, rewards)
        if self.scale == "batch-tokens":
            advantages = whiten(advantages, batch.lengths.to(advantages.dtype), self.epsilon)
        return advantages

    def _before_tokens(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        if self.kl_coefficient > 0 and self.kl_placement == "sequence":
            ratios = log_ratios(batch, rewards.dtype)
            sums = segment_sum(ratios, batch.token_rollouts, batch.rollouts)
            rewards = rewards - self.kl_coefficient * sums
        groups, count = batch.groups, batch.group_count
        equal = (segment_spread(rewards, groups, count) == 0)[groups]
        advantages = rewards - self._centres(batch, rewards)
        if self.centre in _OF_THE_GROUP:
            advantages = torch.where(equal, 0, advantages)
        if self.scale == "beta":
            advantages = advantages * beta_weights(rewards, groups, count)[groups]
        elif self.scale in _OF_THE_GROUP:
            scales = self._deviations(batch, rewards) + self.epsilon
            advantages = advantages / torch.where(equal, 1, scales)
        elif self.scale == "batch":
            deviation = advantages - exact_mean(advantages, torch.ones_like(advantages))
            variance = deviation.square().sum() / max(len(deviation) - 1, 1)
            advantages = deviation / (variance.sqrt() + self.epsilon)
        if self.centre in _OF_THE_GROUP or self.scale in _OF_THE_GROUP:
            alone = segment_sum(torch.ones_like(rewards), groups, count)[groups] == 1
            by_itself = rewards if self.singleton == "reward" else torch.zeros_like(rewards)
            advantages = torch.where(alone, by_itself, advantages)
        return advantages

    def _centres(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        groups, count = batch.groups, batch.group_count
        if self.centre == "none":
            return torch.zeros_like(rewards)
        if self.centre in ("greedy", "tracked"):
            return batch.question_values[self.centre].to(rewards.dtype)[groups]
        if self.centre == "token-mean":
            return token_mean(rewards, batch)[groups]
        if self.centre == "mean":
            return segment_mean(rewards, groups, count)[groups]
        sizes = segment_sum(torch.ones_like(rewards), groups, count)[groups]
        others = segment_sum(rewards, groups, count)[groups] - rewards
        return others / (sizes - 1).clamp(min=1)

    def _deviations(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        groups, count = batch.groups, batch.group_count
        if self.scale == "token-std":
            deviation = rewards - token_mean(rewards, batch)[groups]
            return token_mean(deviation.square(), batch).sqrt()[groups]
        return segment_std(rewards, groups, count, unbiased=self.scale == "std")[groups]


def token_mean(values: Tensor, batch: RolloutBatch) -> Tensor:
    """Mean of `values` (R,) over the completion tokens of each group, (G,)."""
    lengths = batch.lengths.to(values.dtype)
    weighted = segment_sum(values * lengths, batch.groups, batch.group_count)
    return weighted / segment_sum(lengths, batch.groups, batch.group_count)
