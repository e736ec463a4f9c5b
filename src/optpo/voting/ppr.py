"""PPR-1v1: every pair of answers tested by its prior-posterior ratio (arXiv 2109.05047)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from optpo.errors import SettingsError
from optpo.voting.appearance import by_appearance
from optpo.voting.look_ahead import fewest_equal_votes
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
from optpo.voting.tally import Floats, Tallies, Tally


@dataclass(frozen=True)
class PprRule:
    """Stop once the leader beats every rival in a test of the two that holds at any time.

    With v1 votes for the leader and v2 for a rival, the ratio of prior to posterior density at a
    tie is R(v1, v2) = 1 / f(1/2), f the density of Beta(v1 + 1, v2 + 1). The rule stops

    - with K = `candidates` known, when R(v1, v2) >= (K - 1) / error for every rival (the paper's);
    - with K unknown, when R(v1 - 1, v2) >= k (k + 1) / error, the leader being the k-th answer that
      was given (ours): its first vote, which gave it its name, is no evidence.

    The runner-up is the rival that decides, as R(v1, v2 + 1) / R(v1, v2) = 2 (v2 + 1) /
    (v1 + v2 + 2) is at most 1 while v2 <= v1. An unseen rival has v2 = 0, so it is beaten too.

    Guaranteed: the probability that a label is ever decided, short of the cap, to which another
    answer is truly preferred is at most `error`. It takes that one answer, the mode, is at every
    vote at least as likely as any other whatever the votes before it; independent votes of one
    model are the plain case. Proof: R is the mean over theta in [0, 1] of (2 theta)^v1
    (2 - 2 theta)^v2. Where v1 >= v2 the half above 1/2 is the larger one, so R is at most its mean
    U over that half, and for a label no likelier than the mode U against the mode is a
    supermartingale that starts at 1: it reaches x with probability at most 1/x (Ville). A wrong
    label must beat the mode; over the K - 1 wrong labels that adds up to `error`. With K unknown U
    starts anew when the k-th answer is named, leaving out rather than counting what the rival had
    before (which only makes U larger), and the sum of 1 / (k (k + 1)) over all k is 1.

    What breaks it: a model that prefers different answers at different votes, more answers than
    `candidates` (as many as were seen are then reckoned with, without a guarantee), and `at_cap`
    other than "abstain". The mode need not be correct. An unparsed vote counts towards floor and
    cap only. With K known its mean votes reach the lower bound as the error goes to 0 (paper).

    The confidence is 1 minus the smallest error at which the votes so far would end the test, and
    the evidence is minus the log of that error.

    Args:
        error: probability in (0, 0.5) of a wrong label.
        candidates: how many answers there can be, K, 2 or more; None where that is not known.
        floor: fewest votes before it may stop.
        cap: most votes.
        at_cap: what becomes of a vote it is not sure of at the cap.

    Raises:
        SettingsError: settings out of range, all of them together.

    >>> PprRule(candidates=2).look_ahead(Tally()), PprRule().look_ahead(Tally())
    (8, 10)
    """

    claims: ClassVar[Claim | None] = "mode"
    refuses: ClassVar[Mapping[str, str]] = {
        "weights": "the ratio counts whole votes for two answers; a weighted one is none",
        "carried": "the test starts at 1 and bets on this visit's votes; it cannot start ahead",
    }

    error: float = 0.05
    candidates: int | None = None
    floor: int = 1
    cap: int = 64
    at_cap: AtCap = "abstain"

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.error < 0.5:
            problems.append(f"error = {self.error!r}: must be above 0 and below 0.5")
        if self.candidates is not None and not (
            type(self.candidates) is int and self.candidates >= 2
        ):
            problems.append(
                f"candidates = {self.candidates!r}: must be a whole number, 2 or more, or None "
                "where it is not known how many answers there are"
            )
        problems += budget_problems(self.floor, self.cap, self.at_cap)
        if problems:
            raise SettingsError(problems)

    def decide(self, tally: Tally) -> Decision:
        """Say whether the vote is over."""
        check_accepted(self, tally)
        place = [*tally.counts].index(tally.leader) if tally.leader is not None else 0
        evidence = self._evidence(tally.leader_votes, tally.runner_up_votes, tally.seen, place)
        return conclude(
            self,
            tally,
            sure=evidence >= -np.log(self.error),
            confidence=-np.expm1(-evidence),
            log_evidence=evidence,
        )

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say the same of many questions at once."""
        check_accepted(self, tallies)
        _, place = by_appearance(tallies)
        first, second = tallies.leader_votes, tallies.runner_up_votes
        evidence = self._evidence(first, second, tallies.seen, place.clip(0))
        return conclude_many(
            self,
            tallies,
            sure=evidence >= -np.log(self.error),
            confidence=-np.expm1(-evidence),
            log_evidence=evidence,
        )

    def look_ahead(self, tally: Tally) -> int:
        """Return the fewest further votes that could end the test if they all agreed.

        With K unknown they need not be for the leader: a rival named sooner needs a smaller ratio.
        """
        return fewest_equal_votes(self, tally)

    def _evidence(self, first: Any, second: Any, seen: Any, place: Any) -> Floats:
        if self.candidates is None:
            needed = np.log((np.asarray(place) + 1) * (place + 2))
            first = np.maximum(np.asarray(first) - 1, 0)
        else:
            needed = np.log(np.maximum(self.candidates, seen) - 1)
        ratio = log_prior_posterior_ratio(first, second)
        return np.asarray(np.maximum(ratio - needed, 0.0))


def log_prior_posterior_ratio(first: Any, second: Any) -> Floats:
    """ln R = (v1 + v2) ln 2 + ln(v1! v2! / (v1 + v2 + 1)!), in nats.

    Args:
        first: v1, whole numbers of any shape.
        second: v2, of a shape that fits.
    """
    both = np.asarray(first) + second
    log_factorial = np.cumsum(np.log(np.maximum(1, np.arange(both.max(initial=0) + 2))))
    return np.asarray(
        both * np.log(2) + log_factorial[first] + log_factorial[second] - log_factorial[both + 1]
    )
