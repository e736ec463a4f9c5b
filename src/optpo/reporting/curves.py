"""Curves on axes: drawing them, naming their ends, and axes in percent or in amounts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optpo.reporting import svg
from optpo.reporting.run_data import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Curve:
    """Points in order of x, and how to draw them."""

    x: Sequence[float]
    y: Sequence[float]
    label: str
    colour: str
    dash: Any = "solid"
    marker: str = "o"
    hollow: bool = False


def pairs_of(rows: Sequence[Any], x_key: str, y_key: str) -> tuple[list[float], list[float]]:
    """Return the values of two keys, over the rows that have both.

    A list of values is spread over the step that ends at x.
    """
    pairs: list[tuple[float, float]] = []
    for row in rows:
        x, y, several = number(row, x_key), number(row, y_key), row.get(y_key)
        if x is not None and y is not None:
            pairs.append((x, y))
        elif x is not None and isinstance(several, list):
            count = len(several)
            pairs += [(x - 1 + (n + 0.5) / count, value) for n, value in enumerate(several)]
    return [x for x, _ in pairs], [y for _, y in pairs]


def plot(axes: "Axes", curves: Sequence[Curve]) -> None:
    """Draw the curves."""
    for curve in curves:
        axes.plot(
            curve.x,
            curve.y,
            color=curve.colour,
            linestyle=curve.dash,
            # A line needs two points; a single one must still be seen.
            marker=curve.marker or ("o" if len(curve.x) == 1 else ""),
            markersize=5.5,
            markerfacecolor=svg.SURFACE if curve.hollow else curve.colour,
            linewidth=1.6 if curve.hollow else 2.0,
        )


def label_ends(axes: "Axes", curves: Sequence[Curve]) -> None:
    """Write each curve's name at its right end, pushed up where another name is close."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    line, near = 0.085 * (high - low), 0.1 * (right - left)
    placed: list[tuple[float, float]] = []
    for curve in sorted(curves, key=lambda curve: curve.y[-1]):
        x, y = curve.x[-1], curve.y[-1]
        for other_x, other_y in placed:
            if abs(x - other_x) < near:
                y = max(y, other_y + line)
        placed.append((x, y))
        axes.annotate(
            curve.label, (x, y), (8, 0), textcoords="offset points", va="center",
            color=curve.colour, fontweight="bold", annotation_clip=False,
        )  # fmt: skip


def share_axis(axes: "Axes") -> None:
    """Percent, never zoomed so far that noise looks like news."""
    from matplotlib.ticker import MaxNLocator

    low, high = axes.get_ylim()
    middle, reach = (low + high) / 2, max(0.06, (high - low) / 2)
    low, high = middle - reach, middle + reach
    if low < 0:
        low, high = -0.01, high - low
    if high > 1:
        low, high = max(-0.01, low - (high - 1)), 1.01
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(percent_formatter())


def amount_axis(axes: "Axes", label: str) -> None:
    """Write the ticks along x as amounts (250 k) and name the axis."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _round_amount(value)))
    axes.set_xlabel(label)


def _round_amount(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


def percent_formatter() -> Any:
    """Write the ticks of an axis of shares in percent."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{100 * value:.0f} %")


def describe(curves: Sequence[Curve], scale: float, unit: str) -> str:
    """Return in words, for a screen reader, where each curve begins and ends."""
    return "; ".join(
        f"{curve.label}: from {scale * curve.y[0]:.3g}{unit} to {scale * curve.y[-1]:.3g}{unit}"
        for curve in curves
    )
