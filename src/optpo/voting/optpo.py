"""The Bayesian sequential probability ratio test of OptPO (arXiv 2512.02882)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from optpo.errors import SettingsError
from optpo.voting.rule import (
    AtCap,
    Claim,
    Decision,
    Decisions,
    budget_problems,
    conclude,
    conclude_many,
)
from optpo.voting.tally import Floats, Tallies, Tally

# Ratios that equal the threshold on paper (3^2 = (1 - 0.1) / 0.1) must stop in floating point too.
_SLACK = 1e-9


@dataclass(frozen=True)
class OptpoRule:
    """Stop once a Bayesian test between answers is sure of the leader (dossier 1.2).

    The model: one of m = `candidates` answers is the model's own; a vote is for it with probability
    p0 and for each other one with probability (1 - p0) / (m - 1). With vL votes for the leader, vS
    for the runner-up and rho = p0 (m - 1) / (1 - p0):

    - "runner-up" stops when the odds of leader against runner-up, rho^(vL - vS), reach
      (1 - error) / error. That is a rule of a fixed `lead` in votes. The confidence is the
      posterior of the leader against the runner-up alone.
    - "posterior" stops when P(leader | votes) = rho^vL / (sum over seen classes of rho^vc +
      m - seen) reaches 1 - error; the confidence is that posterior. It is the stricter of the two.
      Where more classes than `candidates` were seen, as many hypotheses as classes are used.

    An unparsed vote counts towards floor and cap and is never a hypothesis. At the cap an unsure
    vote ends `capped`, `tied` or `empty`.

    What holds, for independent votes and short of the cap: "runner-up" errs with probability at
    most `error` against a single rival whose true share is 1/rho of the leader's or less; several
    rivals add up (at its own model, with these defaults but floor 1, 6.5 % of labels are wrong).
    "posterior" errs at most `error` of the time averaged over its own model. What does not hold:
    there is no guarantee for other distributions (true shares of .6 and .4 under a lead of 3 go
    wrong in 23 % of cases), and the test asks which answer the model gives most often, never
    whether that answer is correct. The paper leaves p0, m, the threshold and what happens at the
    cap open: the defaults here are ours.

    Args:
        p0: probability in (1/candidates, 1) of a vote for the model's own answer.
        candidates: answers that compete, m, 2 or more.
        error: error rate in (0, 0.5) of the test at its own model.
        floor: fewest votes before it may stop.
        cap: most votes.
        statistic: "runner-up" or "posterior", as above.
        at_cap: what becomes of a vote it is not sure of at the cap.

    Raises:
        SettingsError: settings out of range, all of them together.

    >>> OptpoRule(p0=0.5, candidates=4, error=0.05).lead
    3
    """

    claims: ClassVar[Claim | None] = "mode"
    refuses: ClassVar[Mapping[str, str]] = {
        "weights": "its likelihood is that of whole votes; a weighted one has none"
    }

    p0: float = 0.5
    candidates: int = 4
    error: float = 0.05
    floor: int = 8
    cap: int = 64
    statistic: Literal["runner-up", "posterior"] = "runner-up"
    at_cap: AtCap = "abstain"

    def __post_init__(self) -> None:
        problems = []
        many = type(self.candidates) is int and self.candidates >= 2
        if not many:
            problems.append(f"candidates = {self.candidates!r}: must be a whole number, 2 or more")
        if not 0 < self.p0 < 1:
            problems.append(f"p0 = {self.p0!r}: must be above 1/candidates and below 1")
        elif many and self.p0 <= 1 / self.candidates:
            problems.append(
                f"p0 = {self.p0!r}: must be above 1/candidates = {1 / self.candidates:.4g}; at or "
                "below it a vote for an answer is no evidence for it, and the test cannot end"
            )
        if not 0 < self.error < 0.5:
            problems.append(f"error = {self.error!r}: must be above 0 and below 0.5")
        problems += budget_problems(self.floor, self.cap, self.at_cap)
        if self.statistic not in ("runner-up", "posterior"):
            problems.append(f"statistic = {self.statistic!r}: must be 'runner-up' or 'posterior'")
        if problems:
            raise SettingsError(problems)

    @property
    def log_ratio(self) -> float:
        """ln rho: what one vote for an answer is worth against another answer, in nats."""
        return math.log(self.p0) + math.log(self.candidates - 1) - math.log1p(-self.p0)

    @property
    def log_threshold(self) -> float:
        """ln((1 - error) / error): the log odds at which the test is sure, in nats."""
        return (math.log1p(-self.error) - math.log(self.error)) * (1 - _SLACK)

    @property
    def lead(self) -> int:
        """The lead in votes at which the runner-up form stops."""
        return math.ceil(self.log_threshold / self.log_ratio)

    def decide(self, tally: Tally) -> Decision:
        """Say whether the vote is over."""
        evidence = self._log_evidence(tally)
        return conclude(
            self,
            tally,
            at_cap=self.at_cap,
            sure=evidence >= self.log_threshold,
            confidence=0.5 * (1 + math.tanh(0.5 * evidence)),
            log_evidence=evidence,
        )

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say the same of many questions at once."""
        evidence = self._log_evidence_many(tallies)
        return conclude_many(
            self,
            tallies,
            at_cap=self.at_cap,
            sure=evidence >= self.log_threshold,
            confidence=0.5 * (1 + np.tanh(0.5 * evidence)),
            log_evidence=evidence,
        )

    def look_ahead(self, tally: Tally) -> int:
        """Return the fewest further votes that could end the test if they all agreed.

        All for the leader is the soonest: each raises its log odds by ln rho in both forms.
        """
        if self.decide(tally).stop:
            return 0
        missing = self.log_threshold - self._log_evidence(tally)
        needed = max(self.floor - tally.total, math.ceil(missing / self.log_ratio))
        return min(needed, self.cap - tally.total)

    def _log_evidence(self, tally: Tally) -> float:
        votes = sorted(tally.scores.values(), reverse=True) or [0]
        if self.statistic == "runner-up":
            return (votes[0] - (votes[1] if len(votes) > 1 else 0)) * self.log_ratio
        unseen = max(0, self.candidates - len(votes))
        others = [count * self.log_ratio for count in votes[1:]]
        if unseen:
            others.append(math.log(unseen))
        largest = max(others)
        sum_of_others = sum(math.exp(other - largest) for other in others)
        return votes[0] * self.log_ratio - largest - math.log(sum_of_others)

    def _log_evidence_many(self, tallies: Tallies) -> Floats:
        if self.statistic == "runner-up":
            lead = tallies.leader_votes - tallies.runner_up_votes
            return np.asarray(lead * self.log_ratio, dtype=np.float64)
        evidence = np.empty(tallies.total.shape)
        rows = np.arange(len(tallies))
        for n, scores in enumerate(tallies.scores()):
            first, leaders = tallies.leader_votes[:, n], tallies.leader[:, n]
            # Without any answer every one of the m hypotheses is unseen and one of them would lead.
            seen = np.maximum(1, tallies.seen[:, n])
            unseen = np.maximum(0, self.candidates - seen)
            largest = tallies.runner_up_votes[:, n] * self.log_ratio
            others = np.where(scores > 0, scores * self.log_ratio, -np.inf)
            voted = leaders >= 0
            others[rows[voted], leaders[voted]] = -np.inf
            sum_of_others = np.exp(others - largest[:, None]).sum(axis=1)
            sum_of_others += unseen * np.exp(-largest)
            evidence[:, n] = first * self.log_ratio - largest - np.log(sum_of_others)
        return evidence
