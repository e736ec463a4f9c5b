"""The Bayesian sequential probability ratio test of OptPO (arXiv 2512.02882)."""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from optpo.errors import SettingsError
from optpo.voting.optpo_likelihood import integrated_log_likelihood, log_ratio
from optpo.voting.rule import (
    AtCap,
    Claim,
    Decision,
    Decisions,
    budget_problems,
    check_accepted,
    conclude,
    conclude_many,
)
from optpo.voting.tally import Floats, Integers, Tallies, Tally

P0From = Literal["setting", "votes", "prior"]
"""Where a test has p0 from: it is the setting; estimated from the votes; or integrated over."""

# Ratios that equal the threshold on paper (3^2 = (1 - 0.1) / 0.1) must stop in floating point too.
_SLACK = 1e-9

# Questions that are worked out together, so that they stay in the processor's cache.
_ROWS = 1024

# ln P(votes | an answer is the own one) of its votes, those of the leader, all, and the candidates.
_LogLikelihood = Callable[[Any, Any, Any, Any], Any]


@dataclass(frozen=True)
class OptpoRule:
    """Stop once a Bayesian test between answers is sure of the leader.

    The model: one of m = `candidates` answers is the model's own; a vote is for it with probability
    p0 and for each other one with probability (1 - p0) / (m - 1). With vL votes for the leader, vS
    for the runner-up and rho = p0 (m - 1) / (1 - p0):

    - "runner-up" stops when the odds of leader against runner-up, rho^(vL - vS), reach
      (1 - error) / error. That is a rule of a fixed `lead` in votes. The confidence is the
      posterior of the leader against the runner-up alone.
    - "posterior" stops when P(leader | votes) = rho^vL / (sum over seen classes of rho^vc +
      m - seen) reaches 1 - error; the confidence is that posterior. It is the stricter of the two.
      Where more classes than `candidates` were seen, as many hypotheses as classes are used.

    The paper leaves open where p0 and m come from. `p0_from` says where p0 does:

    - "setting": it is `p0`.
    - "votes": it is the leader's share of the votes and of `p0_strength` pseudo-votes with the
      share `p0`, never below 1/m, where votes are no evidence. It is a plug-in: the confidence
      takes an estimate for the truth, and stopping at a good moment makes the share too high.
    - "prior": the likelihoods are averages over p0 ~ Beta(`p0_strength` p0, `p0_strength` (1 - p0))
      cut off below 1/m, so that the confidence knows that p0 is not known.

    Both become "setting" as `p0_strength` grows. Where `candidates` is None, m is one more than the
    classes seen, 2 at least: one unseen answer may yet be the own one. A first vote for an answer
    can then raise the evidence for the leader, because it says that other votes are scattered:
    where answers are very many, the confidence is far too high.

    An unparsed vote counts towards floor and cap and is never a hypothesis. At the cap an unsure
    vote ends `capped`, `tied` or `empty`.

    What holds, for independent votes and short of the cap, with p0 from the setting: "runner-up"
    errs with probability at most `error` against a single rival whose true share is 1/rho of the
    leader's or less; several rivals add up (at its own model, with these defaults but floor 1,
    6.5 % of labels are wrong). "posterior" errs at most `error` of the time averaged over its own
    model, and so it does with p0 drawn from the prior, if `candidates` is right. With p0 from the
    votes, or m read off the votes, the confidence is a heuristic even there. What does not hold:
    there is no guarantee for other distributions (true shares of .6 and .4 under a lead of 3 go
    wrong in 23 % of cases), and the test asks which answer the model gives most often, never
    whether that answer is correct. The paper leaves the threshold and what happens at the cap open
    too: the defaults here are ours.

    Args:
        p0: probability in (1/candidates, 1) of a vote for the model's own answer, above 1/2 where
            candidates are unknown; in (0, 1) where it is only what an estimate or a prior begins
            with.
        candidates: answers that compete, m, 2 or more; None where that is unknown.
        error: error rate in (0, 0.5) of the test at its own model.
        floor: fewest votes before it may stop.
        cap: most votes.
        statistic: "runner-up" or "posterior", as above.
        at_cap: what becomes of a vote it is not sure of at the cap.
        p0_from: "setting", "votes" or "prior", as above.
        p0_strength: how many votes `p0` is worth, from 0.01 to 1e9; unused where p0 is from the setting.

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
    candidates: int | None = 4
    error: float = 0.05
    floor: int = 8
    cap: int = 64
    statistic: Literal["runner-up", "posterior"] = "runner-up"
    at_cap: AtCap = "abstain"
    p0_from: P0From = "setting"
    p0_strength: float = 4.0

    def __post_init__(self) -> None:
        problems = []
        unknown = self.candidates is None
        many = unknown or (type(self.candidates) is int and self.candidates >= 2)
        if not many:
            problems.append(f"candidates = {self.candidates!r}: must be a whole number, 2 or more")
        if not 0 < self.p0 < 1:
            problems.append(f"p0 = {self.p0!r}: must be above 1/candidates and below 1")
        elif many and self.p0_from == "setting" and self.p0 <= 1 / (self.candidates or 2):
            least = "1/2 where candidates are unknown"
            if self.candidates is not None:
                least = f"1/candidates = {1 / self.candidates:.4g}"
            problems.append(
                f"p0 = {self.p0!r}: must be above {least}; at or "
                "below it a vote for an answer is no evidence for it, and the test cannot end"
            )
        if not 0 < self.error < 0.5:
            problems.append(f"error = {self.error!r}: must be above 0 and below 0.5")
        problems += budget_problems(self.floor, self.cap, self.at_cap)
        if self.statistic not in ("runner-up", "posterior"):
            problems.append(f"statistic = {self.statistic!r}: must be 'runner-up' or 'posterior'")
        if self.p0_from not in get_args(P0From):
            names = ", ".join(get_args(P0From))
            problems.append(f"p0_from = {self.p0_from!r}: must be one of {names}")
        if not 0.01 <= self.p0_strength <= 1e9:
            problems.append(f"p0_strength = {self.p0_strength!r}: must be from 0.01 to 1e9 votes")
        if problems:
            raise SettingsError(problems)

    @property
    def log_threshold(self) -> float:
        """ln((1 - error) / error): the log odds at which the test is sure, in nats."""
        return (math.log1p(-self.error) - math.log(self.error)) * (1 - _SLACK)

    @property
    def lead(self) -> int | None:
        """The lead in votes at which the runner-up form stops; None where it is not a fixed one."""
        return None if self._ratio is None else math.ceil(self.log_threshold / self._ratio)

    @cached_property
    def _ratio(self) -> float | None:
        """What a vote is worth, in nats; None where that depends on the votes."""
        if self.p0_from != "setting" or self.candidates is None:
            return None
        return float(log_ratio(self.p0, 1 - self.p0, self.candidates))

    def decide(self, tally: Tally) -> Decision:
        """Say whether the vote is over."""
        evidence = self._log_evidence(_descending(tally))
        return conclude(
            self,
            tally,
            sure=evidence >= self.log_threshold,
            confidence=0.5 * (1 + math.tanh(0.5 * evidence)),
            log_evidence=evidence,
        )

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say the same of many questions at once."""
        check_accepted(self, tallies)
        evidence = self._log_evidence_many(tallies)
        return conclude_many(
            self,
            tallies,
            sure=evidence >= self.log_threshold,
            confidence=0.5 * (1 + np.tanh(0.5 * evidence)),
            log_evidence=evidence,
        )

    def look_ahead(self, tally: Tally) -> int:
        """Return the fewest further votes that could end the test if they all agreed.

        All for the leader is the soonest, and its evidence rises with each of them; only where the
        candidates are unknown can a new answer be sooner, by making them more.
        """
        if self.decide(tally).stop:
            return 0
        votes = _descending(tally)
        further = range(max(1, self.floor - tally.total), self.cap - tally.total)
        needed = bisect_left(
            further, True, key=lambda more: self._sure([votes[0] + more, *votes[1:]])
        )
        if self.candidates is None:
            for more in further[:needed]:
                if self._sure(sorted([*votes, more], reverse=True)):
                    return more
        return further.start + needed

    def _sure(self, votes: list[float]) -> bool:
        return self._log_evidence(votes) >= self.log_threshold

    def _log_evidence(self, votes: list[float]) -> float:
        """The log odds of the first class, from the votes of all classes in descending order."""
        if self._ratio is not None and self.statistic == "runner-up":
            # The common case, in plain numbers: a vote at a time is much of what a scheduler does.
            return votes[0] * self._ratio - sum(votes[1:2]) * self._ratio
        seen = np.count_nonzero(votes)
        candidates = self._hypotheses(seen)
        # The 0 behind them is for the answers not seen.
        counts = np.array([*votes, 0.0])
        own, *others = self._log_likelihood(counts, votes[0], sum(votes), candidates)
        if self.statistic == "runner-up":
            return float(own - others[0])
        classes = np.ones(len(others))
        classes[-1] = max(0, candidates - max(1, seen))
        return float(own - others[0] - np.log(classes @ np.exp(others - others[0])))

    def _log_evidence_many(self, tallies: Tallies) -> Floats:
        first, seen, total = tallies.leader_votes, tallies.seen, tallies.parsed
        if tallies.carried is not None:
            total = total + tallies.carried.sum(axis=1, keepdims=True)
        candidates = self._hypotheses(seen)
        likelihood = self._tabled(tallies, candidates)
        own = likelihood(first, first, total, candidates)
        second = likelihood(tallies.runner_up_votes, first, total, candidates)
        if self.statistic == "runner-up":
            return np.asarray(own - second)
        unseen = np.maximum(0, candidates - np.maximum(1, seen))
        empty = np.exp(likelihood(np.zeros_like(first), first, total, candidates) - second)
        rivals = np.empty(total.shape)
        for n, scores in enumerate(tallies.scores()):
            for start in range(0, len(tallies), _ROWS):
                rows = slice(start, start + _ROWS)
                at = (rows, slice(n, n + 1))
                others = likelihood(scores[rows], first[at], total[at], candidates[at]) - second[at]
                leaders = tallies.leader[rows, n]
                led = np.flatnonzero(leaders >= 0)
                others[led, leaders[led]] = -np.inf
                # The sum holds all classes of the matrix: those without votes are not yet `unseen`.
                missing = unseen[at] - (scores.shape[1] - seen[at])
                rivals[at] = np.exp(others).sum(axis=1, keepdims=True) + missing * empty[at]
        return np.asarray(own - second - np.log(rivals))

    def _hypotheses(self, seen: Any) -> Any:
        """The candidates m, where so many classes were seen."""
        if self.candidates is None:
            return np.maximum(2, seen + 1)
        return np.full_like(seen, self.candidates)

    def _log_likelihood(self, votes: Any, leader: Any, total: Any, candidates: Any) -> Any:
        """ln P(votes | an answer is the own one), less what is the same for every answer."""
        if self.p0_from == "prior":
            return integrated_log_likelihood(
                votes, total, candidates, p0=self.p0, strength=self.p0_strength
            )
        own, other = self.p0, 1 - self.p0
        if self.p0_from == "votes":
            own, other = leader + self.p0_strength * own, total - leader + self.p0_strength * other
        return votes * np.maximum(0.0, log_ratio(own, other, candidates))

    def _tabled(self, tallies: Tallies, candidates: Integers) -> _LogLikelihood:
        """The likelihood, looked up where that is less work than integrating every time."""
        if self.p0_from != "prior" or tallies.carried is not None:
            return self._log_likelihood
        sizes, counts = np.unique(candidates), np.arange(tallies.total.shape[1])
        if len(sizes) * len(counts) ** 2 > tallies.total.size:
            return self._log_likelihood
        total = np.maximum(counts, counts[:, None])
        table = self._log_likelihood(counts, None, total, sizes[:, None, None]).ravel()

        def look_up(votes: Any, _: Any, total: Any, candidates: Any) -> Any:
            row = np.searchsorted(sizes, candidates) * len(counts) + total
            return table[row * len(counts) + votes]

        return look_up


def _descending(tally: Tally) -> list[float]:
    return sorted(tally.scores.values(), reverse=True) or [0]
