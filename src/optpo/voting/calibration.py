"""How often labels of a claimed confidence were right."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

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
        claimed: their mean confidence.
        observed: the share of them that agreed.
        interval_low: lower end of the confidence interval of `observed`.
        interval_high: upper end.
    """

    low: float
    high: float
    count: int
    claimed: float
    observed: float
    interval_low: float
    interval_high: float


def calibration_bins(
    confidences: Sequence[float],
    agrees: Sequence[bool],
    edges: Sequence[float] = CONFIDENCE_EDGES,
    level: float = 0.95,
    method: Literal["wilson", "exact"] = "wilson",
) -> list[CalibrationBin]:
    """Compare claimed confidence with observed agreement, bin by bin; empty bins are left out.

    Args:
        confidences: what the verdicts claimed, each in [0, 1].
        agrees: whether each label agreed with what it is measured against.
        edges: rising edges of the bins, from 0 to 1.
        level: level of the interval of each share, in (0, 1).
        method: "wilson", or "exact" for Clopper-Pearson (wider, never below its level).

    Raises:
        DataError: lengths differ, a value is out of range, or the edges do not rise from 0 to 1.
    """
    if len(confidences) != len(agrees):
        raise DataError(f"{len(confidences)} confidences, but {len(agrees)} agreements")
    wrong = [confidence for confidence in confidences if not 0 <= confidence <= 1]
    if wrong:
        raise DataError(f"confidences must lie in [0, 1], found {wrong[:5]}")
    rising = all(low < high for low, high in pairwise(edges))
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != 1 or not rising:
        raise DataError(f"edges must rise from 0 to 1, found {list(edges)}")
    if not 0 < level < 1:
        raise DataError(f"level must lie between 0 and 1, found {level}")
    # Imported here because scipy.stats takes most of a second to load.
    from scipy.stats import binomtest

    bins = []
    for low, high in pairwise(edges):
        inside = [
            (confidence, agreed)
            for confidence, agreed in zip(confidences, agrees, strict=True)
            if low <= confidence < high or confidence == high == edges[-1]
        ]
        if not inside:
            continue
        count = len(inside)
        right = sum(bool(agreed) for _, agreed in inside)
        interval = binomtest(right, count).proportion_ci(confidence_level=level, method=method)
        bins.append(
            CalibrationBin(
                low=low,
                high=high,
                count=count,
                claimed=sum(confidence for confidence, _ in inside) / count,
                observed=right / count,
                interval_low=float(interval.low),
                interval_high=float(interval.high),
            )
        )
    return bins
