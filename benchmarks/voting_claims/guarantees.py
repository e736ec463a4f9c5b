"""Claim 3: PPR and betting name a wrong answer at most as often as they say, whatever the votes.

The streams are drawn to make them err, and the wrong label may be read at the worst moment of each.
Where one answer clearly leads their votes are held against the lower bound, ln(1 / (2.4 error)) / D*.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich.table import Table
from scipy.stats import binomtest

from optpo.voting import EprocessRule, PprRule, Tallies, least_mean_votes_log
from optpo.voting.tally import Integers

ERRORS = (0.2, 0.1, 0.05, 0.01)
RULES = {"ppr": PprRule, "eprocess": EprocessRule}
CLEAR = ((0.6, 0.3, 0.1), (0.5, 0.2, 0.2, 0.1), (0.9, 0.1))
CHUNK = 2000

Draw = Callable[[np.random.Generator, int], Integers]


def independent(votes: int, *shares: float) -> Draw:
    """Votes drawn with the same shares every time."""
    odds = np.array(shares) / sum(shares)
    return lambda generator, streams: generator.choice(len(odds), (streams, votes), p=odds)


def late(generator: np.random.Generator, streams: int) -> Integers:
    """Forty equal answers for 60 votes; only then do two lead, one of them by a hair."""
    early = independent(60, *[1.0] * 40)(generator, streams)
    return np.hstack([early, independent(240, 0.45, 0.449, 0.101)(generator, streams)])


def restarting(generator: np.random.Generator, streams: int) -> Integers:
    """A rival that is as likely as the mode is given up for a new one once it is 3 votes behind."""
    drawn = np.zeros((streams, 250), dtype=np.int64)
    rival, behind = np.ones(streams, dtype=np.int64), np.zeros(streams, dtype=np.int64)
    for column in range(drawn.shape[1]):
        own = generator.random(streams) < 0.5
        drawn[:, column] = np.where(own, 0, rival)
        behind += np.where(own, 1, -1)
        given_up = (behind >= 3) & (rival < 60)
        rival += given_up
        behind[given_up] = 0
    return drawn


HOSTILE: dict[str, Draw] = {
    "two a hair apart": independent(300, 0.5005, 0.4995),
    "two a hair apart, 30 small": independent(250, 0.4, 0.399, *[0.0067] * 30),
    "20 rivals": independent(250, 0.06, *[0.047] * 20),
    "late leaders": late,
    "restarting rival": restarting,
}
"""Streams whose mode is answer 0."""


def errors(streams: int) -> list[dict[str, Any]]:
    """How many streams would be given a wrong label at any time; a row a rule, shape and level."""
    rows = []
    for shape, draw in HOSTILE.items():
        generator = np.random.default_rng(0)
        wrong = {name: np.zeros(len(ERRORS), dtype=int) for name in RULES}
        for start in range(0, streams, CHUNK):
            tallies = Tallies(draw(generator, min(CHUNK, streams - start)))
            for name, rule in RULES.items():
                decisions = rule(min(ERRORS), cap=tallies.votes.shape[1] + 1).decide_many(tallies)
                against = np.where(tallies.leader > 0, decisions.log_evidence, 0.0).max(axis=1)
                wrong[name] += [int((against >= -np.log(error)).sum()) for error in ERRORS]
        for name, counts in wrong.items():
            for error, count in zip(ERRORS, counts.tolist(), strict=True):
                found = binomtest(count, streams).proportion_ci()
                row = {"rule": name, "shape": shape, "level": error, "share": count / streams}
                rows.append(row | {"low": float(found.low), "high": float(found.high)})
    return rows


def costs(streams: int) -> list[dict[str, Any]]:
    """Mean votes against the bound, where one answer clearly leads; a row a rule, shape and level."""
    rows = []
    for shares in CLEAR:
        tallies = Tallies(independent(900, *shares)(np.random.default_rng(1), streams))
        for name, rule in RULES.items():
            for error in ERRORS:
                decisions = rule(error, cap=900).decide_many(tallies)
                end = decisions.first_stop
                bound = float(least_mean_votes_log(shares, error))
                row = {"rule": name, "shape": shares, "level": error, "bound": bound}
                rows.append(
                    row
                    | {
                        "votes": float(end.mean()),
                        "half_width": float(1.96 * end.std() / np.sqrt(streams)),
                        "ratio": float(end.mean() / bound),
                        "wrong": float((tallies.leader[np.arange(streams), end] > 0).mean()),
                    }
                )
    return rows


def missed(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Targets not reached."""
    return [
        f"{row['shape']}, {row['rule']}: {row['low']:.4f} or more err, the target is {row['level']}"
        for row in rows
        if row["low"] > row["level"]
    ]


def error_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Observed errors by shape and level."""
    shown = Table("streams", "rule", *(f"at most {100 * error:g} %" for error in ERRORS))
    for shape, name in dict.fromkeys((row["shape"], row["rule"]) for row in rows):
        cells = [
            f"{100 * row['share']:.2f} % [{100 * row['low']:.2f}, {100 * row['high']:.2f}]"
            for row in rows
            if (row["shape"], row["rule"]) == (shape, name)
        ]
        shown.add_row(shape, name, *cells)
    return shown


def cost_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Mean votes over the bound, by shares and level."""
    shown = Table("shares", "rule", *(f"votes at {100 * error:g} % (/ bound)" for error in ERRORS))
    for shares, name in dict.fromkeys((row["shape"], row["rule"]) for row in rows):
        cells = [
            f"{row['votes']:.1f} ({row['ratio']:.2f})"
            for row in rows
            if (row["shape"], row["rule"]) == (shares, name)
        ]
        shown.add_row(" ".join(f"{share:g}" for share in shares), name, *cells)
    return shown
