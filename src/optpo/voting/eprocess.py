"""An anytime-valid test for the model's most frequent answer, by betting against every other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

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
    conclude_many,
)
from optpo.voting.tally import Floats, Integers, Tallies, Tally

# Part of its wealth that a bet puts at stake. Nodes of the arcsine law folded to (0, 1), equally
# likely: the Krichevsky-Trofimov mixture, of which only the half that favours the leader is kept.
# None is 1, so no bet loses everything; 32 are as good as the law itself up to about 1000 votes.
_STAKES = np.cos(np.pi * (np.arange(32) + 0.5) / 64)
_FLOAT = np.finfo(np.float64)


@dataclass(frozen=True)
class EprocessRule:
    """Stop once every answer but the leader is ruled out as the one the model gives most often.

    For each answer b, seen or not, a gambler who holds b to be no mode starts with wealth 1 and
    bets before each vote that it will be for L, the leader among the answers other than b, rather
    than for b: at stake x the wealth grows by 1 + x w for a vote of weight w for L, by 1 - x w for
    one for b, and stays for all others. The very first vote is no bet: it only names an answer. Until
    another answer than b is named there is nothing to win, but votes for b still cost. The wealth
    against b is the mean over a fixed grid of stakes. The rule stops when the wealth against every
    answer but the leader, those not seen included, is 1 / `error` or more.

    Guaranteed: the probability that a label is ever decided, short of the cap, to which another
    answer is truly preferred is at most `error`, however many answers there are. It takes that one
    answer, the mode, is at every vote at least as likely as any other whatever the votes before it
    (with weights: has at least as large a mean of weight times vote); independent votes of one
    model are the plain case, and shares that change are allowed while the mode stays. Proof: L and
    the stake are fixed before the vote and L is no likelier than the mode, so the wealth against
    the mode is a supermartingale from 1 and reaches 1 / `error` with probability at most `error`
    (Ville); a wrong label needs that. It is one event, so nothing is shared out over candidates,
    and a leader that changes takes no wealth with it: wealth is held against an answer, not for
    one. An answer gets no credit for its first vote, since nobody could bet on it by name.

    What breaks it: a model that prefers different answers at different votes, and `at_cap` other
    than "abstain". The mode need not be correct. An unparsed vote counts towards floor and cap
    only. Against the runner-up the bets are those of a test of the two, so that votes are near the
    lower bound of `bounds` for small errors; but where the two differ by less than a hundredth of
    their sum, which takes tens of thousands of votes, even the smallest stake is too large. To test
    against every rival is the idea of CITE (2605.05873) and MMC (2510.17472); to bet against an
    answer rather than for one, which needs neither a target fixed beforehand nor a share of the
    error for each, is in neither.

    The confidence is 1 minus the smallest error at which the votes so far would end the test, and
    the evidence is minus the log of that error: the least log wealth against another answer, or 0.

    Args:
        error: probability in (0, 0.5) of a wrong label.
        floor: fewest votes before it may stop.
        cap: most votes.
        at_cap: what becomes of a vote it is not sure of at the cap.

    Raises:
        SettingsError: settings out of range, all of them together.

    >>> EprocessRule(error=0.05).look_ahead(Tally())
    7
    """

    claims: ClassVar[Claim | None] = "mode"
    refuses: ClassVar[Mapping[str, str]] = {
        "carried": "every bet is placed before its vote; votes of an earlier visit are past betting"
    }

    error: float = 0.05
    floor: int = 1
    cap: int = 64
    at_cap: AtCap = "abstain"

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.error < 0.5:
            problems.append(f"error = {self.error!r}: must be above 0 and below 0.5")
        problems += budget_problems(self.floor, self.cap, self.at_cap)
        if problems:
            raise SettingsError(problems)

    def decide(self, tally: Tally) -> Decision:
        """Say whether the vote is over."""
        return self.decide_many(Tallies.of([tally]))[0, -1]

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say the same of many questions at once."""
        check_accepted(self, tallies)
        _, leader = by_appearance(tallies)
        evidence = np.zeros(leader.shape)
        for n, wealth in enumerate(log_wealth(tallies)):
            named = np.flatnonzero(leader[:, n] >= 0)
            wealth[named, leader[named, n]] = np.inf
            evidence[:, n] = wealth.min(axis=1).clip(0)
        return conclude_many(
            self,
            tallies,
            sure=evidence >= -np.log(self.error),
            confidence=-np.expm1(-evidence),
            log_evidence=evidence,
        )

    def look_ahead(self, tally: Tally) -> int:
        """Return the fewest further votes that could end the test if they all agreed.

        They need not be for the leader: a gambler may have won more against it than it has lost.
        """
        return fewest_equal_votes(self, tally)


def log_wealth(tallies: Tallies) -> Iterator[Floats]:
    """Yield the log wealth against every answer after 0, 1, 2, ... votes, in nats.

    Each is (questions, classes + 1): column k is for the answer that was given as the k-th, from 0;
    until then, like the last column always, for an answer that was not given yet.
    """
    votes, _ = by_appearance(tallies)
    shape = len(tallies), 2 + int(votes.max(initial=-1))
    weights = np.ones(votes.shape) if tallies.weights is None else tallies.weights
    outcomes = _outcomes(votes, weights)
    yield np.zeros(shape)
    if tallies.weights is None and votes.shape[1] < 1024:
        # Bets that all pay the same: the numbers won and lost say it all, and index a table.
        table = _log_wealth_by_bets(1 << votes.shape[1].bit_length())
        place = np.zeros(shape, dtype=np.int64)
        steps = np.array([0, len(table), 1])
        for outcome in outcomes:
            place += steps[outcome]
            yield table.ravel()[place]
        return
    wealth = np.ones((*shape, len(_STAKES)))
    for outcome, weight in zip(outcomes, weights.T, strict=True):
        with np.errstate(
            over="ignore"
        ):  # wealth beyond what a number can hold is no less than that
            wealth *= 1 + np.multiply.outer(outcome * weight[:, None], _STAKES)
            mean = wealth.mean(axis=-1)
        yield np.log(mean.clip(_FLOAT.tiny, _FLOAT.max))


def _outcomes(votes: Integers, weights: Floats) -> Iterator[Integers]:
    """Yield how the bets against each answer ended with each vote: 1 won, -1 lost, 0 neither.

    Args:
        votes: (questions, votes) numbered by appearance.
        weights: (questions, votes).
    """
    rows, columns = np.arange(len(votes)), 2 + int(votes.max(initial=-1))
    scores, seen = np.zeros((len(rows), columns)), np.zeros(len(rows), dtype=np.int64)
    outcome = np.empty((len(rows), columns), dtype=np.int64)
    for vote, weight in zip(votes.T, weights.T, strict=True):
        # The leader is what they bet on against all others, the second what they bet on against it.
        leader = scores.argmax(axis=1)
        lead = scores[rows, leader]
        scores[rows, leader] = -1
        second = scores.argmax(axis=1)
        scores[rows, leader] = lead
        known = (vote >= 0) & (vote < seen)
        outcome[:] = (known & (vote == leader))[:, None]
        outcome[rows, leader] = known & (vote == second)
        against = rows[(vote >= 0) & (seen > 0)]
        outcome[against, vote[against]] = -1
        yield outcome
        cast = rows[vote >= 0]
        scores[cast, vote[cast]] += weight[cast]
        seen[cast] = np.maximum(seen[cast], vote[cast] + 1)


@lru_cache(maxsize=16)
def _log_wealth_by_bets(size: int) -> Floats:
    """(size, size) the log wealth after as many bets won (row) and lost (column)."""
    count = np.arange(size)
    total = np.full((size, size), -np.inf)
    for stake in _STAKES:
        at_stake = np.add.outer(count * np.log1p(stake), count * np.log1p(-stake))
        np.logaddexp(total, at_stake, out=total)
    return np.asarray(total - np.log(len(_STAKES)))
