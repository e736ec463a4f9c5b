"""What no stopping rule can beat: bounds on the votes and the errors of any of them.

Every function takes `shares`, (..., classes) the probabilities of the answers in any order, and
returns one value a shape. What they miss to 1 is the share of unparsed votes. A shape of one class
has a rival that was never seen.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from optpo.errors import DataError
from optpo.voting.tally import Floats


def mode_divergence(shares: Any) -> Floats:
    """D*(P): the least KL(P || Q) over all Q with another mode, in nats a vote.

    The nearest such Q gives the two first answers the mean of their shares p1 and p2, so D* =
    p1 ln(2 p1 / (p1 + p2)) + p2 ln(2 p2 / (p1 + p2)); it lies between (p1 - p2)^2 / (2 (p1 + p2))
    and twice that, and is 0 where two answers share the lead.

    Raises:
        DataError: these are no shares.

    >>> float(mode_divergence([1.0]) / np.log(2))
    1.0
    """
    first, second = _two_first(shares)
    # Beside a mean of 0 both shares are 0, and so is what they add.
    mean = np.maximum((first + second) / 2, np.finfo(np.float64).tiny)
    divergence = _times_log(first, first / mean) + _times_log(second, second / mean)
    return np.maximum(divergence, 0.0)  # which rounding can push below


def least_mean_votes(shares: Any, error: Any) -> Floats:
    """kl(error, 1 - error) / D*(P): the fewest votes on average, whatever the rule.

    It holds for every rule that ends, and names a wrong answer with probability at most `error`
    whichever distribution with one mode the votes have (change of measure of Kaufmann, Cappé and
    Garivier 2016). Infinite where two answers share the lead. A rule that knows more
    of the distribution than that it has a mode may need fewer: see `known_shape_rate`.

    Args:
        shares: (..., classes).
        error: in (0, 1/2), of a shape that fits.

    Raises:
        DataError: these are no shares, or an error is out of range.
    """
    error = _errors(error)
    return _votes_at((1 - 2 * error) * np.log((1 - error) / error), mode_divergence(shares))


def least_mean_votes_log(shares: Any, error: Any) -> Floats:
    """ln(1 / (2.4 error)) / D*(P): the simpler and lower form of `least_mean_votes`.

    From an error of 1 / 2.4 on it is 0.

    Raises:
        DataError: these are no shares, or an error is out of range.
    """
    nats = np.maximum(-np.log(2.4 * _errors(error)), 0.0)
    return _votes_at(nats, mode_divergence(shares))


def fixed_vote_exponent(shares: Any) -> Floats:
    """-ln(1 - (sqrt p1 - sqrt p2)^2): how fast the error of a plain vote falls, in nats a vote.

    Of n votes a rival has as many as the mode with probability at most exp(-n times this), and as n
    grows that is the rate at which it falls.

    Raises:
        DataError: these are no shares.
    """
    first, second = _two_first(shares)
    with np.errstate(divide="ignore"):  # one certain answer: no error at all
        return np.asarray(-np.log1p(-((np.sqrt(first) - np.sqrt(second)) ** 2)))


def known_shape_rate(shares: Any) -> Floats:
    """(p1 - p2) ln(p1 / p2): what a vote tells where the shares are known but not whose, in nats.

    A test that knows the shape (MSPRT) needs about ln(1 / error) over this on average. Where the
    two first are close this is about 4 D*, so it needs a quarter of the votes of a test that must
    hold for every distribution. Infinite for p2 = 0.

    Raises:
        DataError: these are no shares.
    """
    first, second = _two_first(shares)
    gap = first - second
    with np.errstate(divide="ignore", invalid="ignore"):  # no second answer, or no lead
        return np.where(gap > 0, gap * (np.log(first) - np.log(second)), 0.0)


def _two_first(shares: Any) -> tuple[Floats, Floats]:
    array = np.asarray(shares, dtype=np.float64)
    if array.ndim < 1 or not array.shape[-1]:
        raise DataError(f"shares must be (..., classes), found shape {array.shape}")
    if not ((array >= 0).all() and (array.sum(axis=-1) <= 1 + 1e-9).all()):
        raise DataError(f"shares must be 0 or more and sum to 1 at most, found {shares}")
    padded = np.concatenate([np.zeros((*array.shape[:-1], 1)), array], axis=-1)
    top = np.partition(padded, -2, axis=-1)
    return top[..., -1], top[..., -2]


def _errors(error: Any) -> NDArray[np.float64]:
    array = np.asarray(error, dtype=np.float64)
    if not ((array > 0) & (array < 0.5)).all():
        raise DataError(f"error must be above 0 and below 0.5, found {error}")
    return array


def _times_log(factor: Floats, value: Floats) -> Floats:
    """factor ln(value), 0 where the value is."""
    return factor * np.log(np.where(value > 0, value, 1.0))


def _votes_at(nats: Floats, rate: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):  # no rate: no number of votes is enough
        return np.where(nats > 0, nats / rate, 0.0)
