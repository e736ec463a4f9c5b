"""Prices on thinking where it is not needed, and on not thinking where it is."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, segment_mean, segment_sum
from optpo.errors import SettingsError
from optpo.masks.decision import decision_mask
from optpo.needs import Need


@dataclass(frozen=True)
class TriggerShape:
    """AdaCoT's penalties (2505.11896): the model pays for thinking, and learns when it pays off.

    A rollout thinks if its completion, or the end of its prompt, opens a thought by `think_token`
    and does not close it at once by `close_token` (-1: any token that follows is a thought). It
    pays `needless` for a thought that was not needed, `missed` for none where one was, and
    `ill_formed`, whatever else it pays, where no answer could be read from it.

    Whether thinking is needed the paper has labelled beforehand. Here a question may say so in a
    column `needed`, true or false; for the others it is read off the group: thinking is not
    needed where the rollouts that did not think are right at least at the rate `easy_share`. Where
    all of them thought, or none was rewarded, nothing says that it could have been left out: it is
    needed, and nobody pays for it. A hard question is one too that thinking does not solve either.

    The sizes of the penalties are ours, the paper's were not obtained; it is known by summaries.

    Raises SettingsError for penalties below 0, an `easy_share` outside 0..1 or a token below 0.
    """

    think_token: int
    close_token: int = -1
    missed: float = 0.1
    needless: float = 0.3
    ill_formed: float = 1.0
    easy_share: float = 0.5

    needs: ClassVar[frozenset[Need]] = frozenset({"needed"})

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {value}; it must be 0 or more"
            for name, value in (
                ("think_token", self.think_token),
                ("missed", self.missed),
                ("needless", self.needless),
                ("ill_formed", self.ill_formed),
            )
            if not 0 <= value < float("inf")
        ]
        if self.close_token < -1:
            problems.append(
                f"close_token is {self.close_token}; it must be a token, or -1 for none"
            )
        if not 0 <= self.easy_share <= 1:
            problems.append(f"easy_share is {self.easy_share}; it must lie between 0 and 1")
        if problems:
            raise SettingsError(problems)

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Rewards (R,) in the dtype of `rewards`."""
        thinks = self.thinks(batch)
        needed = self.needed(batch, rewards, thinks)[batch.groups]
        paid = (
            self.missed * (needed & ~thinks).to(rewards.dtype)
            + self.needless * (thinks & ~needed).to(rewards.dtype)
            + self.ill_formed * (batch.votes < 0).to(rewards.dtype)
        )
        return rewards - paid

    def thinks(self, batch: RolloutBatch) -> Tensor:
        """Whether each rollout thinks, (R,) bool."""
        opened = decision_mask(batch, self.think_token)
        opened &= batch.completion_tokens != self.close_token
        return segment_sum(opened.long(), batch.token_rollouts, batch.rollouts) > 0

    def needed(self, batch: RolloutBatch, rewards: Tensor, thinks: Tensor) -> Tensor:
        """Whether each question needs thinking, (G,) bool."""
        skipped = ~thinks & ~rewards.isnan()
        right = segment_mean(
            (rewards[skipped] > 0).to(rewards.dtype), batch.groups[skipped], batch.group_count
        )
        any_skipped = segment_sum(skipped.long(), batch.groups, batch.group_count) > 0
        needed = ~any_skipped | (right < self.easy_share)
        if "needed" in batch.question_values:
            given = batch.question_values["needed"]
            needed = torch.where(given.isnan(), needed, given > 0)
        return needed
