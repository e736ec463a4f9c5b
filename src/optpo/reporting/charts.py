"""The charts of a report; each takes one run or several and returns SVG, or None without data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optpo.reporting import svg
from optpo.reporting.curves import (
    Curve,
    amount_axis,
    describe,
    label_ends,
    pairs_of,
    percent_formatter,
    plot,
    share_axis,
)
from optpo.reporting.formatting import amount
from optpo.reporting.overview import Ledger
from optpo.reporting.run_data import RunData, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from optpo.voting.calibration import CalibrationBin

FIXED_VOTES = 64
"""The votes a question that runs are compared with."""


@dataclass(frozen=True)
class Track:
    """A run as charts show it: its short mark (A, B, ...), colour and dash stay the same throughout."""

    run: RunData
    place: int
    mark: str

    @property
    def colour(self) -> str:
        """The placeholder of this run's colour."""
        return svg.SERIES[self.place % len(svg.SERIES)]

    @property
    def dash(self) -> Any:
        """Solid for as long as the colours last, then dashed, so that colour is never alone."""
        return svg.DASHES[self.place // len(svg.SERIES) % len(svg.DASHES)]


def tracks(runs: Sequence[RunData]) -> tuple[Track, ...]:
    """Give every run its mark."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return tuple(
        Track(run, place, letters[place % 26] + (str(place // 26 + 1) if place >= 26 else ""))
        for place, run in enumerate(runs)
    )


def evaluation_chart(runs: Sequence[Track], set_name: str) -> str | None:
    """Accuracy on a question set against tokens generated; one run also shows its majority vote."""
    alone = len(runs) == 1
    curves: list[Curve] = []
    bands: list[tuple[list[float], list[float], list[float], str]] = []
    dots: list[tuple[list[float], list[float], str]] = []
    for track in runs:
        rows = [row for row in track.run.evaluations if row.get("set") == set_name]
        points = [
            (x, y, number(row, "mean_low"), number(row, "mean_high"))
            for row in rows
            if (x := number(row, "tokens_total")) is not None
            and (y := number(row, "mean")) is not None
        ]
        if not points:
            continue
        label = "mean" if alone else track.mark
        curves.append(
            Curve([p[0] for p in points], [p[1] for p in points], label, track.colour, track.dash)
        )
        banded = [
            (x, low, high) for x, _, low, high in points if low is not None and high is not None
        ]
        bands.append(
            ([b[0] for b in banded], [b[1] for b in banded], [b[2] for b in banded], track.colour)
        )
        if alone:
            curves += _majority(rows)
            if set_name == "adapt":
                dots.append((*pairs_of(track.run.steps, "tokens_total", "accuracy"), track.colour))
    if not curves:
        return None

    def paint(axes: "Axes") -> None:
        for x, low, high, colour in bands:
            axes.fill_between(
                x, low, high, color=colour, alpha=0.13 if len(bands) < 3 else 0.06, linewidth=0
            )
        for x, y, colour in dots:
            axes.plot(x, y, ".", color=colour, alpha=0.5, markersize=6, linestyle="none")
        plot(axes, curves)
        share_axis(axes)
        amount_axis(axes, "tokens generated")
        label_ends(axes, curves)

    return svg.draw(
        f"evaluation-{set_name}", f"Accuracy, {set_name} set", describe(curves, 100, "%"), paint
    )


def steps_chart(
    runs: Sequence[Track],
    measures: Sequence[tuple[str, str]],
    identity: str,
    share: bool = False,
    from_zero: bool = False,
    size: tuple[float, float] = svg.WIDE,
) -> str | None:
    """Measures of the steps, (key, label) each, over steps; several runs show only the first."""
    curves: list[Curve] = []
    for track in runs:
        for place, (key, label) in enumerate(measures[: 1 if len(runs) > 1 else None]):
            x, y = pairs_of(track.run.steps, "step", key)
            if x:
                colour = track.colour if len(runs) > 1 else svg.SERIES[place]
                text = track.mark if len(runs) > 1 else label
                curves.append(Curve(x, y, text, colour, track.dash, marker=""))
    if not curves:
        return None

    def paint(axes: "Axes") -> None:
        from matplotlib.ticker import MaxNLocator

        plot(axes, curves)
        if share:
            share_axis(axes)
        else:
            axes.margins(y=0.12)
        if from_zero:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set_xlabel("step")
        if len(runs) > 1 or len(measures) > 1:
            label_ends(axes, curves)

    told = describe(curves, 100 if share else 1, "%" if share else "")
    return svg.draw(identity, f"{measures[0][1]} over steps", told, paint, size)


def votes_chart(runs: Sequence[Track]) -> str | None:
    """How many votes questions took: a histogram for one run, shares done by n votes for several."""
    votes = [(track, _votes(track.run)) for track in runs]
    votes = [(track, counts) for track, counts in votes if counts]
    if not votes:
        return None
    most = max(FIXED_VOTES, *(max(counts) for _, counts in votes))
    told = "; ".join(
        f"{track.mark if len(runs) > 1 else 'this run'}: mean {sum(c) / len(c):.1f} votes over {len(c)}"
        for track, c in votes
    )

    def paint(axes: "Axes") -> None:
        if len(votes) == 1:
            _histogram(axes, votes[0][1], votes[0][0].colour, most)
        else:
            _shares_done(axes, votes, most)
        axes.set_xlim(0, most + 1)
        axes.set_xlabel("votes counted")

    return svg.draw("votes", "Votes a question before stopping", told, paint)


def calibration_chart(bins: Sequence[tuple[Track, "Sequence[CalibrationBin]"]]) -> str | None:
    """Claimed confidence against agreement with the full vote, with intervals and counts."""
    filled = [(track, [row for row in rows if row.count]) for track, rows in bins]
    filled = [(track, rows) for track, rows in filled if rows]
    if not filled:
        return None
    lowest = min(min(row.claimed, row.interval_low) for _, rows in filled for row in rows)
    floor = max(0.0, min(0.9, int(lowest * 10) / 10))

    def paint(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=svg.MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for place, (track, rows) in enumerate(filled):
            x = [row.claimed for row in rows]
            y = [row.observed for row in rows]
            below = [max(0.0, row.observed - row.interval_low) for row in rows]
            above = [max(0.0, row.interval_high - row.observed) for row in rows]
            axes.errorbar(
                x, y, yerr=[below, above], fmt="os^Dv"[place % 5], color=track.colour, capsize=3,
                markersize=6, elinewidth=1.4,
            )  # fmt: skip
            for row in rows:
                text = str(row.count) if len(filled) == 1 else track.mark
                axes.annotate(
                    text, (row.claimed, row.interval_low), (0, -4), textcoords="offset points",
                    ha="center", va="top", fontsize=10, color=track.colour,
                )  # fmt: skip
        axes.set_xlim(floor - 0.03, 1.03)
        axes.set_ylim(floor - 0.07, 1.03)
        axes.xaxis.set_major_formatter(percent_formatter())
        axes.yaxis.set_major_formatter(percent_formatter())
        axes.set_xlabel("confidence claimed")

    told = "; ".join(
        f"claimed {row.claimed:.0%}, agreed {row.observed:.0%} of {row.count}"
        for _, rows in filled
        for row in rows
    )
    return svg.draw("calibration", "Calibration", told, paint)


def ledger_chart(ledgers: Sequence[tuple[Track, Ledger, float | None]]) -> str | None:
    """Tokens kept, not trained on and cancelled of each run, above what a fixed budget would cost."""
    if not ledgers:
        return None
    alone = len(ledgers) == 1
    parts = (("tokens_kept", 1.0), ("tokens_untrained", 0.5), ("tokens_cancelled", 0.22))

    def paint(axes: "Axes") -> None:
        names: list[str] = []
        for track, ledger, fixed in ledgers:
            row, left = len(names), 0.0
            for attribute, strength in parts:
                width = getattr(ledger, attribute)
                axes.barh(row, width, left=left, color=track.colour, alpha=strength, height=0.62)
                left += width
            _note(axes, left, row, amount(left))
            names.append("this run" if alone else track.mark)
            if fixed:
                axes.barh(
                    len(names), fixed, height=0.62, facecolor="none", edgecolor=svg.MUTED,
                    linewidth=1, linestyle=(0, (3, 2)),
                )  # fmt: skip
                _note(axes, fixed, len(names), amount(fixed))
                fixed_name = f"fixed {FIXED_VOTES}"
                names.append(fixed_name if alone else f"{track.mark}, {fixed_name}")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", labelcolor=svg.INK)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.margins(x=0.16)
        axes.set_xlim(left=0)
        amount_axis(axes, "tokens")

    told = "; ".join(
        f"{amount(ledger.tokens_kept)} tokens kept, {amount(ledger.tokens_untrained)} not trained on, "
        f"{amount(ledger.tokens_cancelled)} cancelled, against {amount(fixed)}"
        for _, ledger, fixed in ledgers
    )
    bars = sum(2 if fixed else 1 for _, _, fixed in ledgers)
    return svg.draw(
        "ledger", "Where the tokens went", told, paint, size=(svg.WIDE[0], 56 + 32 * bars)
    )


def _majority(rows: Sequence[Any]) -> list[Curve]:
    x, y = pairs_of(rows, "tokens_total", "majority")
    dash = svg.DASHES[1]
    return [Curve(x, y, "majority", svg.SERIES[1], dash, marker="s", hollow=True)] if x else []


def _votes(run: RunData) -> list[int]:
    return [int(v) for row in run.verdicts if (v := number(row, "rollouts")) is not None]


def _histogram(axes: "Axes", votes: Sequence[int], colour: str, most: int) -> None:
    width = 1 if most <= 32 else 2
    edges = [edge + 0.5 for edge in range(0, most + width, width)]
    axes.hist(votes, bins=edges, color=colour, rwidth=0.86)
    mean = sum(votes) / len(votes)
    axes.axvline(mean, color=svg.INK, linewidth=1.2, linestyle=(0, (4, 2)))
    axes.annotate(
        f"mean {mean:.1f}", (mean, 1), (5, -2), xycoords=("data", "axes fraction"),
        textcoords="offset points", va="top",
    )  # fmt: skip


def _shares_done(axes: "Axes", votes: Sequence[tuple[Track, list[int]]], most: int) -> None:
    for place, (track, counts) in enumerate(votes):
        shares = [sum(count <= n for count in counts) / len(counts) for n in range(most + 1)]
        axes.step(range(most + 1), shares, where="post", color=track.colour, linestyle=track.dash)
        # Each at its own height on the way up: at their ends all curves meet at 100 %.
        height = 0.85 - 0.6 * place / (len(votes) - 1)
        reached = next(n for n, share in enumerate(shares) if share >= height)
        axes.annotate(
            track.mark, (reached, height), (5, 0), textcoords="offset points", va="center",
            color=track.colour, fontweight="bold",
        )  # fmt: skip
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(percent_formatter())


def _note(axes: "Axes", x: float, row: int, text: str) -> None:
    axes.annotate(text, (x, row), (5, 0), textcoords="offset points", va="center", color=svg.INK)
