"""The picture of a replay: agreement against mean votes, one curve a rule over its levels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg", ".pdf")
"""The kinds of picture that can be written."""

Curve = Sequence[tuple[float, float]]
"""Points of mean votes and agreement, in order of the votes."""

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)))
_MARKERS = "os^Dv"


def draw_replay(
    panels: Mapping[str, Mapping[str, Curve]], limits: Mapping[str, Curve], path: Path
) -> None:
    """Draw a panel for each file of recorded votes, and write the picture.

    Args:
        panels: by file, the curve of each rule.
        limits: by file, what dynamic programming reaches; empty where that is not known.
        path: the picture, of a kind in `SUFFIXES`.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # The same input gives the same bytes; text stays text, and a $ in a name is a dollar sign.
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "replay",
        "text.parse_math": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#dddddd",
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=(7.0 * len(panels), 5.0), layout="constrained")
        figure.supylabel("agreement with the majority of all recorded answers", fontsize="medium")
        for place, (title, curves) in enumerate(panels.items(), start=1):
            axes = figure.add_subplot(1, len(panels), place)
            _paint(axes, curves, limits[title])
            axes.set_title(Path(title).name)
        date = {".svg": "Date", ".pdf": "CreationDate"}.get(path.suffix.lower())
        figure.savefig(path, dpi=150, metadata={date: None} if date else None)


def _paint(axes: "Axes", curves: Mapping[str, Curve], limit: Curve) -> None:
    from matplotlib.ticker import FuncFormatter

    for place, (name, points) in enumerate(curves.items()):
        axes.plot(
            [votes for votes, _ in points],
            [agreement for _, agreement in points],
            color=_COLOURS[place % len(_COLOURS)],
            linestyle=_DASHES[place // len(_COLOURS) % len(_DASHES)],
            marker=_MARKERS[place % len(_MARKERS)],
            markersize=4,
            label=name,
        )
    if limit:
        axes.plot(
            [votes for votes, _ in limit],
            [agreement for _, agreement in limit],
            color="black",
            linewidth=1,
            label="dynamic-programming limit",
        )
    # Both axes are linear: what lies on a line between two settings is reached by asking some
    # questions with the one and some with the other.
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    axes.set_xlabel("mean votes a question")
    axes.legend(fontsize="small")
