"""Accuracy of a model that is asked several times: mean@k, pass@k, maj@k, and their intervals."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction

from optpo.errors import DataError
from optpo.voting.tally import UNPARSED

NORMAL_QUANTILE = 1.959963984540054
"""Of 0.975: the intervals have level 0.95."""


USUAL_K = (1, 4, 16, 64)
"""For which k accuracies are given where nobody says."""


@dataclass(frozen=True)
class Asked:
    """One question's rollouts: their votes as in `Tally`, the right classes, and how many are right.

    `hits` may differ from the votes for right classes where rollouts are judged by more than their
    answers.
    """

    votes: Sequence[int]
    right: Collection[int]
    hits: int


@dataclass(frozen=True)
class Estimate:
    """A mean over questions, and the low and high end of its 95 % interval."""

    value: float
    low: float
    high: float


def usual_k(samples: int) -> list[int]:
    """Those of `USUAL_K` below the samples, and all of them."""
    return [*(k for k in USUAL_K if k < samples), samples]


def mean_at_n(questions: Sequence[Asked]) -> Estimate:
    """Share of right rollouts: mean@n of n rollouts a question."""
    return _over([asked.hits / len(asked.votes) for asked in questions])


def passes(questions: Sequence[Asked], k: int) -> Estimate:
    """pass@k, unbiased: see `pass_at_k`."""
    return _over([pass_at_k(len(asked.votes), asked.hits, k) for asked in questions])


def majorities(questions: Sequence[Asked], k: int) -> Estimate:
    """maj@k, over all subsets: see `majority_at_k`."""
    return _over([majority_at_k(asked.votes, asked.right, k) for asked in questions])


def _over(shares: Sequence[float]) -> Estimate:
    return Estimate(*mean_with_interval(shares))


def mean_with_interval(shares: Sequence[float]) -> tuple[float, float, float]:
    """Mean over questions, and the low and high end of its 95 % interval.

    The interval is Wilson's, with the questions as the sample. For shares that are 0 or 1 (maj@k)
    it is Wilson's own; for shares in between (mean@k, pass@k) it is wider than needed, because
    nothing in [0, 1] varies more about a given mean than a coin. Unlike a bootstrap it does not
    shrink to a point where all questions agree, and it draws nothing.

    Args:
        shares: one a question, each in [0, 1].

    Raises:
        DataError: there are none, or one is outside [0, 1].

    >>> mean_with_interval([1.0] * 10)
    (1.0, 0.7224672001371107, 1.0)
    """
    wrong = [share for share in shares if not 0 <= share <= 1]
    if wrong or not shares:
        raise DataError(f"shares must lie in [0, 1], one or more, found {wrong[:5] or 'none'}")
    count, z2 = len(shares), NORMAL_QUANTILE**2
    mean = math.fsum(shares) / count
    centre = (mean + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * mean * (1 - mean) / count + (z2 / (2 * count)) ** 2) / (1 + z2 / count)
    # Rounding must not push an end past the mean it belongs to.
    return mean, max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Probability that k of the samples, drawn at random, hold a right one.

    1 - C(n - c, k) / C(n, k) for c right ones of n, the unbiased estimate of pass@k
    (2107.03374, equation 1).

    Raises:
        DataError: not 0 <= right <= samples, or not 1 <= k <= samples.

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if not 0 <= right <= samples:
        raise DataError(f"{right} right of {samples} samples: must lie between 0 and all of them")
    _check_k(samples, k)
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def majority_at_k(votes: Sequence[int], right: Collection[int], k: int) -> float:
    """Probability that the vote of k of these votes, drawn at random, is right: maj@k.

    Exact over all subsets of k in all orders, so it has no noise of its own. An unparsed vote is
    one of the k and never leads; between tied leaders the first in order leads, which over all
    orders is each of them equally often.

    Args:
        votes: a question's votes as in `Tally`: class numbers, or `UNPARSED`.
        right: the classes whose answer is right; others than those voted for are ignored.
        k: votes drawn.

    Raises:
        DataError: k is not between 1 and the number of votes.

    >>> majority_at_k([0, 0, 1], right={0}, k=2)
    0.6666666666666666
    """
    _check_k(len(votes), k)
    counts = Counter(vote for vote in votes if vote != UNPARSED)
    ways = Fraction(0)
    for winner in counts.keys() & set(right):
        rivals = [count for vote, count in counts.items() if vote != winner]
        for lead in range(1, min(counts[winner], k) + 1):
            rest = k - lead
            # A rival with fewer votes than `lead` cannot matter: it is drawn from freely.
            free = len(votes) - counts[winner] - sum(count for count in rivals if count >= lead)
            draws = _ways_below([count for count in rivals if count >= lead], lead, rest)
            ways += math.comb(counts[winner], lead) * sum(
                Fraction(many * math.comb(free, rest - drawn), 1 + ties)
                for ties, row in enumerate(draws)
                for drawn, many in enumerate(row)
            )
    return float(ways / math.comb(len(votes), k))


def _ways_below(rivals: Sequence[int], lead: int, most: int) -> list[list[int]]:
    """In how many ways rivals draw votes, `lead` at most each: [rivals that tie][votes drawn].

    The coefficients of a product of polynomials, one a rival, in exact whole numbers; draws of more
    than `most` votes are left out.
    """
    ways = [[1] + [0] * most]
    for count in rivals:
        below = [math.comb(count, drawn) for drawn in range(lead)]
        tie = [0] * lead + [math.comb(count, lead)]
        nothing = [0] * (most + 1)
        without = [*(_product(row, below) for row in ways), nothing]
        with_tie = [nothing, *(_product(row, tie) for row in ways)]
        ways = [
            [a + b for a, b in zip(*rows, strict=True)]
            for rows in zip(without, with_tie, strict=True)
        ]
        while not any(ways[-1]):
            ways.pop()
    return ways


def _product(row: Sequence[int], factor: Sequence[int]) -> list[int]:
    """The product of two polynomials, up to the degree of the first."""
    product = [0] * len(row)
    for i, a in enumerate(row):
        if a:
            for j, b in enumerate(factor[: len(row) - i]):
                product[i + j] += a * b
    return product


def _check_k(samples: int, k: int) -> None:
    if not 1 <= k <= samples:
        raise DataError(f"k is {k}; it must lie between 1 and the {samples} samples")
