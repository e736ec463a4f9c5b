"""What votes say for an answer in OptPO's model, with p0 known or integrated over.

The model: one of m answers is the model's own; a vote is for it with probability p0 and for each
other one with probability (1 - p0) / (m - 1). With v votes for an answer out of n, the likelihood
of the votes if that answer were the own one is p0^v ((1 - p0) / (m - 1))^(n - v).
"""

from typing import Any

import numpy as np

from optpo.voting.tally import Floats

# Below this the incomplete beta function nears the smallest number that a float can hold.
_SMALL = 1e-290


def log_ratio(own: Any, other: Any, candidates: Any) -> Any:
    """ln rho: what one vote for an answer is worth against another answer, in nats.

    rho = p0 (m - 1) / (1 - p0) is the ratio of the likelihoods of two answers a vote apart.

    Args:
        own: a number above 0, any shape; p0 is to 1 - p0 as it is to `other`.
        other: a number above 0, of a shape that fits.
        candidates: answers that compete, m, 2 or more, of a shape that fits.
    """
    return np.log(own) - np.log(other) + np.log(candidates - 1)


def integrated_log_likelihood(
    votes: Any, total: Any, candidates: Any, *, p0: float, strength: float
) -> Floats:
    """ln of the likelihood of an answer averaged over p0, less what is the same for every answer.

    p0 has the distribution Beta(strength p0, strength (1 - p0)) cut off below 1/m. The average is
    in proportion to (m - 1)^v times the integral from 1/m to 1 of
    p^(v + strength p0 - 1) (1 - p)^(n - v + strength (1 - p0) - 1) dp: an incomplete beta function.

    Args:
        votes: votes for the answer, v, 0 or more, any shape.
        total: all votes, n, of a shape that fits.
        candidates: answers that compete, m, 2 or more, of a shape that fits.
        p0: mean of the distribution before it is cut off, in (0, 1).
        strength: how many votes it is worth, above 0.
    """
    from scipy.special import betainc, betaln

    votes, total, candidates = np.broadcast_arrays(votes, total, candidates)
    own = votes + strength * p0
    other = total - votes + strength * (1 - p0)
    at_most = 1 - 1 / candidates
    share = betainc(other, own, at_most)
    log_integral = np.asarray(betaln(own, other) + np.log(np.maximum(share, _SMALL)))
    if (far := share < _SMALL).any():
        # The integral is at_most^other (1 - at_most)^own / other times a series whose terms shrink
        # at least as fast as a geometric one. That sum is a little too large, in favour of an
        # answer with few votes: on the careful side.
        own, other, at_most = own[far], other[far], at_most[far]
        shrink = at_most * np.maximum(1, (own + other) / (other + 1))
        log_integral[far] = other * np.log(at_most) + own * np.log1p(-at_most)
        log_integral[far] -= np.log(other) + np.log1p(-shrink)
    return np.asarray(log_integral + votes * np.log(candidates - 1))
