"""How often labels of a claimed confidence were right."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from optpo.errors import DataError

CONFIDENCE_EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Finer towards 1, where the verdicts of a sequential test gather."""


@dataclass(frozen=True)
class CalibrationBin:
    """The labels whose claimed confidence lies in [low, high), or [low, high] for the last bin.

    Attributes:
        low: lower edge.
        high: upper edge.
        count: labels.
        questions: the questions that they are labels of.
        claimed: their mean confidence.
        observed: the share of them that agreed.
        interval_low: lower end of the confidence interval of `observed`.
        interval_high: upper end.
    """

    low: float
    high: float
    count: int
    questions: int
    claimed: float
    observed: float
    interval_low: float
    interval_high: float


def calibration_bins(
    confidences: ArrayLike,
    agrees: ArrayLike,
    questions: Sequence[Hashable] | None = None,
    edges: Sequence[float] = CONFIDENCE_EDGES,
    level: float = 0.95,
    method: Literal["wilson", "exact"] = "wilson",
) -> list[CalibrationBin]:
    """Compare claimed confidence with observed agreement, bin by bin; empty bins are left out.

    Labels of one question, from several orders or several visits, are not independent. The interval
    takes them for copies of a single label, the worst case: it is that of so many independent
    labels as m questions make, Kish's (sum of m)^2 / sum of m^2 with m labels of a question. That
    is the number of questions where each has equally many labels, and less where some have most.

    Args:
        confidences: what the verdicts claimed, each in [0, 1].
        agrees: whether each label agreed with what it is measured against.
        questions: what each label is a label of; each of another question where None.
        edges: rising edges of the bins, from 0 to 1.
        level: level of the interval of each share, in (0, 1).
        method: "wilson", or "exact" for Clopper-Pearson (wider, never below its level).

    Raises:
        DataError: lengths differ, a value is out of range, or the edges do not rise from 0 to 1.
    """
    claims, agreed = np.asarray(confidences, dtype=np.float64), np.asarray(agrees, dtype=np.bool_)
    if questions is None:
        questions = range(len(claims))
    if not len(claims) == len(agreed) == len(questions):
        raise DataError(
            f"{len(claims)} confidences, {len(agreed)} agreements and {len(questions)} questions"
        )
    outside = claims[~((claims >= 0) & (claims <= 1))]
    if outside.size:
        raise DataError(f"confidences must lie in [0, 1], found {outside[:5].tolist()}")
    rising = all(low < high for low, high in pairwise(edges))
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != 1 or not rising:
        raise DataError(f"edges must rise from 0 to 1, found {list(edges)}")
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, found {level}")
    numbers: dict[Hashable, int] = {}
    of_question = np.array([numbers.setdefault(name, len(numbers)) for name in questions], int)
    bins = []
    for low, high in pairwise(edges):
        inside = (claims >= low) & ((claims < high) | (high == edges[-1]))
        if not inside.any():
            continue
        labels = np.bincount(of_question[inside])
        observed = float(agreed[inside].mean())
        effective = float(labels.sum() ** 2 / (labels**2).sum())
        interval_low, interval_high = _interval(observed, effective, level, method)
        bins.append(
            CalibrationBin(
                low=low,
                high=high,
                count=int(labels.sum()),
                questions=int((labels > 0).sum()),
                claimed=float(claims[inside].mean()),
                observed=observed,
                interval_low=interval_low,
                interval_high=interval_high,
            )
        )
    return bins


def _interval(share: float, count: float, level: float, method: str) -> tuple[float, float]:
    """Wilson's or Clopper and Pearson's interval for a share of `count` labels, whole or not."""
    tail = (1 - level) / 2
    if method == "exact":
        # Imported here because it takes longer to load than the rest of the room.
        from scipy.special import betaincinv

        hits, misses = share * count, (1 - share) * count
        low = float(betaincinv(hits, misses + 1, tail)) if hits > 0 else 0.0
        high = float(betaincinv(hits + 1, misses, 1 - tail)) if misses > 0 else 1.0
        return low, high
    z2 = NormalDist().inv_cdf(1 - tail) ** 2
    centre = share + z2 / (2 * count)
    half = math.sqrt(z2 * share * (1 - share) / count + (z2 / (2 * count)) ** 2)
    # Rounding must not push an end past the share it belongs to.
    low, high = (centre - half) / (1 + z2 / count), (centre + half) / (1 + z2 / count)
    return max(0.0, min(share, low)), min(1.0, max(share, high))
