"""Draws with matplotlib and hands back SVG that belongs to the page around it.

Colours are placeholders while drawing and CSS variables afterwards, so one drawing follows light
and dark. Text stays text, in the page's own font.
"""

import html
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010101"
MUTED = "#020202"
GRID = "#030303"
SURFACE = "#040404"
SERIES = ("#050501", "#050502", "#050503", "#050504", "#050505", "#050506")
DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))

_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    SURFACE: "var(--surface)",
    **{colour: f"var(--series-{place})" for place, colour in enumerate(SERIES, start=1)},
}
# Width and height, at the scale where text is 12 high.
WIDE = (400.0, 230.0)
COMPACT = (310.0, 185.0)


def draw(
    identity: str,
    title: str,
    description: str,
    paint: "Callable[[Axes], None]",
    size: tuple[float, float] = WIDE,
) -> str:
    """Return what `paint` draws as one inline `<svg>` element.

    `identity` must be unique in the page: it prefixes every id, and the same input gives the same
    bytes. `title` and `description` are what a screen reader says.
    """
    import matplotlib
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": identity,
        "font.size": 12,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": GRID,
        "axes.facecolor": "none",
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.spines.left": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "hatch.linewidth": 0.8,
        "lines.linewidth": 2.0,
        "lines.solid_capstyle": "round",
        "xtick.color": GRID,
        "ytick.color": GRID,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "ytick.major.size": 0,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        paint(figure.add_subplot())
        return _inline(figure, identity, title, description)


def _inline(figure: "Figure", identity: str, title: str, description: str) -> str:
    buffer = io.StringIO()
    # Without these the file would name its maker and the moment it was made.
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"<!--.*?-->", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"font-family: [^;\"]+;?", "", drawing)
    drawing = re.sub(r"font: ([0-9.]+px) [^;\"]+", r"font-size: \1", drawing)
    drawing = re.sub(r'\bid="([^"]+)"', rf'id="{identity}-\1"', drawing)
    drawing = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{identity}-\1"', drawing)
    drawing = re.sub(r"url\(#([^)]+)\)", rf"url(#{identity}-\1)", drawing)
    for placeholder, variable in _VARIABLES.items():
        drawing = drawing.replace(placeholder, variable)
    box = re.search(r'viewBox="([^"]+)"', drawing)
    if box is None:
        raise AssertionError("matplotlib writes a viewBox into every drawing")
    opening = (
        f'<svg viewBox="{box[1]}" width="100%" role="img" '
        f'aria-labelledby="{identity}-title {identity}-description">'
        f'<title id="{identity}-title">{html.escape(title)}</title>'
        f'<desc id="{identity}-description">{html.escape(description)}</desc>'
    )
    body = drawing[drawing.index(">") + 1 :]
    return opening + re.sub(r"\s*\n\s*", "\n", body).strip()
