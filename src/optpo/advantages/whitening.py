"""Bringing the advantages of a batch to mean 0 and deviation 1."""

from torch import Tensor


def whiten(values: Tensor, counts: Tensor, epsilon: float) -> Tensor:
    """`values` (N,), each there `counts` (N,) times, at mean 0 and unbiased deviation 1.

    `epsilon` is added to the variance. A single entry becomes 0.
    """
    total = counts.sum()
    deviation = values - exact_mean(values, counts)
    variance = (deviation.square() * counts).sum() / (total - 1).clamp(min=1)
    return deviation * (variance + epsilon).rsqrt()


def exact_mean(values: Tensor, counts: Tensor) -> Tensor:
    """Mean of `values` (N,), each there `counts` (N,) times, (); exactly theirs where all are equal.

    A rounding error would be all there is to normalise, and come out as large as a signal.
    """
    first = values[0]
    return first + ((values - first) * counts).sum() / counts.sum()
