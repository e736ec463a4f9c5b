"""Claim 1: at equal agreement our best rule is near the limit, and no peer needs fewer votes.

A curve is a contender at all its levels: mean votes and agreement (label equal to the most frequent
of all recorded answers). Between two levels some questions may be asked with one and the rest with
the other, for every contender alike, so a curve is the lower edge of the lines between its points.

The limit is the dynamic programme over (votes so far, votes of leader and runner-up), fitted on one
half of the question ids and applied to the other, both ways; so it pays for what half of the
questions cannot teach, while a rule's level is read off all of them (one number, for rules and
peers alike). Ratios below 1 are therefore possible. `limit in sample`, fitted on the very votes it
is applied to, shows how much that matters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from optpo.voting import Tallies, Tally
from optpo.voting.frontier_curve import COSTS, split_by_id
from optpo.voting.frontier_fit import best_policy, learn_chain
from optpo.voting.recorded import RecordedVotes
from optpo.voting.replay import replay
from optpo.voting.tally import Floats
from voting_claims.contenders import Contender, Sweep, adaptive_dirichlet, our_rules, peers

LEVELS = (0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995)
LIMIT, IN_SAMPLE = "limit", "limit in sample"
RESAMPLES = 500

Questions = Sequence[RecordedVotes]


@dataclass(frozen=True)
class Curve:
    """Mean over orders, by seed, setting and question: arrays (seeds, settings, questions)."""

    votes: Floats
    agrees: Floats

    def points(self, seed: int | None, weights: Floats) -> tuple[Floats, Floats]:
        """(settings, resamples) votes and agreement under (questions, resamples) weights."""
        chosen = slice(None) if seed is None else slice(seed, seed + 1)
        return (
            self.votes[chosen].mean(axis=0) @ weights,
            self.agrees[chosen].mean(axis=0) @ weights,
        )


def at_equal_agreement(
    questions: Questions, cap: int, orders: int, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """A row each level: votes of everyone, the best, and their ratios with intervals."""
    ours, theirs = our_rules(), peers()
    curves = curves_of(questions, ours | theirs, cap, orders, seeds)
    curves |= limits_of(questions, cap, orders, seeds)
    return compare(questions, curves, tuple(ours), tuple(theirs))


def against_dirichlet(
    questions: Questions, cap: int, orders: int, seed: int
) -> list[dict[str, Any]]:
    """The same against AdaptiveConsistency's Dirichlet criterion.

    A single decision takes it tens of milliseconds, so fewer orders and one seed are tried.
    """
    ours, theirs = our_rules(), {"AdaptiveConsistency Dirichlet": adaptive_dirichlet()}
    curves = curves_of(questions, ours | theirs, cap, orders, [seed])
    return compare(questions, curves, tuple(ours), tuple(theirs))


def curves_of(
    questions: Questions, sweeps: Mapping[str, Sweep], cap: int, orders: int, seeds: Sequence[int]
) -> dict[str, Curve]:
    """Replay every setting of every contender on the same votes in the same orders."""
    rules = [rule for sweep in sweeps.values() for rule in sweep]
    votes, agrees = [], []
    for seed in seeds:
        found = replay(questions, rules, cap=cap, orders=orders, seed=seed)
        votes.append([outcome.votes.mean(axis=1) for outcome in found])
        agrees.append([outcome.agrees.mean(axis=1) for outcome in found])
    ends = np.cumsum([len(sweep) for sweep in sweeps.values()])[:-1]
    by_sweep = zip(
        *(np.split(np.array(each), ends, axis=1) for each in (votes, agrees)), strict=True
    )
    return {name: Curve(*part) for name, part in zip(sweeps, by_sweep, strict=True)}


def limits_of(
    questions: Questions, cap: int, orders: int, seeds: Sequence[int]
) -> dict[str, Curve]:
    """The dynamic-programming limit on questions it was not fitted on, and on those it was."""
    row = {(question.id, question.model): place for place, question in enumerate(questions)}
    found: dict[str, list[Curve]] = {LIMIT: [], IN_SAMPLE: []}
    for seed in seeds:
        one, other = split_by_id(questions, seed)
        everyone = list(questions)
        for name, pairs in (
            (LIMIT, ((one, other), (other, one))),
            (IN_SAMPLE, ((everyone, everyone),)),
        ):
            parts = [
                curves_of(applied, {name: policies(fitted, cap, seed)}, cap, orders, [seed])[name]
                for fitted, applied in pairs
            ]
            places = [row[each.id, each.model] for _, applied in pairs for each in applied]
            back = np.argsort(places)
            found[name].append(
                Curve(
                    np.concatenate([part.votes for part in parts], axis=2)[..., back],
                    np.concatenate([part.agrees for part in parts], axis=2)[..., back],
                )
            )
    return {
        name: Curve(
            np.concatenate([curve.votes for curve in curves]),
            np.concatenate([curve.agrees for curve in curves]),
        )
        for name, curves in found.items()
    }


def policies(fitted: Questions, cap: int, seed: int) -> Sweep:
    """Policies for falling prices of a vote, the last of which runs to the cap."""
    recorded = Tallies.of([Tally(question.votes) for question in fitted])
    chain = learn_chain(recorded, cap=cap, seed=seed)
    return [stopping_like(best_policy(chain, cost)) for cost in (*COSTS, 0.0)]


def stopping_like(policy: Any) -> Contender:
    """The policy as a contender."""
    return Contender(
        lambda tallies: policy.stops(tallies.total, tallies.leader_votes, tallies.runner_up_votes)
    )


def compare(
    questions: Questions, curves: Mapping[str, Curve], ours: Sequence[str], theirs: Sequence[str]
) -> list[dict[str, Any]]:
    """Votes at every level, and the ratios of the best; intervals resample question ids."""
    count, seeds = len(questions), len(curves[ours[0]].votes)
    once = np.full((count, 1), 1 / count)
    weights = resampled(questions)
    rows = []
    for level in (*LEVELS, None):
        if level is not None and level > full_agreement(curves, None, once)[0]:
            continue
        whole = votes_at(curves, level, None, once)
        again = votes_at(curves, level, None, weights)
        by_seed = [votes_at(curves, level, seed, once) for seed in range(seeds)]
        row = {
            "level": "full" if level is None else level,
            "agreement": level or float(full_agreement(curves, None, once)[0]),
            "votes": {name: number(votes[0]) for name, votes in whole.items()},
            "best_rule": min(ours, key=lambda name: infinite(whole[name][0])),
            "best_peer": min(theirs, key=lambda name: infinite(whole[name][0])),
        }
        for name, rivals in (("to_limit", (LIMIT,)), ("to_peer", tuple(theirs))):
            if rivals[0] in curves:
                value = best(whole, ours) / best(whole, rivals)
                spread = [float((best(each, ours) / best(each, rivals))[0]) for each in by_seed]
                row[name] = {"ratio": number(value[0]), "seeds": [number(s) for s in spread]}
                row[name] |= interval(best(again, ours) / best(again, rivals))
        rows.append(row)
    return rows


def votes_at(
    curves: Mapping[str, Curve], level: float | None, seed: int | None, weights: Floats
) -> dict[str, Floats]:
    """(resamples,) the fewest mean votes of each contender at a level; None: that of all votes."""
    full = full_agreement(curves, seed, weights)
    at = full if level is None else np.full(len(full), level)
    return {
        name: fewest_votes(*curve.points(seed, weights), at - 1e-9)
        for name, curve in curves.items()
    }


def full_agreement(curves: Mapping[str, Curve], seed: int | None, weights: Floats) -> Floats:
    """The agreement of all votes up to the cap: that of lossless curtailment."""
    return curves["curtailed"].points(seed, weights)[1][-1]


def fewest_votes(votes: Floats, agreement: Floats, at: Floats) -> Floats:
    """(resamples,) what `votes_at_agreement` is, for (settings, resamples) curves at once."""
    reaching = np.where(agreement >= at, votes, np.inf).min(axis=0)
    for low_votes, low in zip(votes, agreement, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            mixed = low_votes + (votes - low_votes) * (at - low) / (agreement - low)
        mixed = np.where((low < at) & (at <= agreement), mixed, np.inf)
        reaching = np.minimum(reaching, mixed.min(axis=0))
    return np.where(np.isinf(reaching), np.nan, reaching)


def resampled(questions: Questions) -> Floats:
    """(questions, resamples) weights: ids drawn again, with all that was asked under each."""
    ids = sorted({question.id for question in questions})
    place = [ids.index(question.id) for question in questions]
    drawn = np.random.default_rng(0).multinomial(len(ids), [1 / len(ids)] * len(ids), RESAMPLES)
    weights = drawn[:, place].T.astype(np.float64)
    return weights / weights.sum(axis=0)


def best(votes: Mapping[str, Floats], names: Sequence[str]) -> Floats:
    """The fewest votes of any of these."""
    least = np.min([np.nan_to_num(votes[name], nan=np.inf) for name in names], axis=0)
    return np.where(np.isinf(least), np.nan, least)


def interval(ratios: Floats) -> dict[str, float | None]:
    """The middle 95 % of the resamples that reach the level; none where fewer than half do."""
    reached = 1 - float(np.isnan(ratios).mean())
    if reached < 0.5:
        return {"low": None, "high": None, "reached": reached}
    low, high = np.nanquantile(ratios, (0.025, 0.975))
    return {"low": number(low), "high": number(high), "reached": reached}


def infinite(votes: float) -> float:
    """A number of votes to sort by."""
    return np.inf if np.isnan(votes) else votes


def number(value: float) -> float | None:
    """A float for JSON, null where the level was not reached."""
    return None if np.isnan(value) else round(float(value), 4)


def missed(files: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Targets not reached, and if chance alone could do that."""
    lines = []
    for file, rows in files.items():
        for row in rows:
            for key, target, rival in (("to_limit", 1.05, "limit"), ("to_peer", 1.0, "best_peer")):
                found = row.get(key, {"ratio": None})
                # Equal but for rounding is equal.
                if found["ratio"] is not None and found["ratio"] > target + 0.0005:
                    low, high = (found[end] or float("nan") for end in ("low", "high"))
                    lines.append(
                        f"{file} at {row['level']}: {row['best_rule']} takes {found['ratio']:.3f} of "
                        f"{row.get(rival, rival)} [{low:.2f}, {high:.2f}], the target is {target}"
                    )
    return lines


def table(file: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Contenders down, levels across, and below them the ratios."""
    titles = [
        f"full: {100 * row['agreement']:.1f}"
        if row["level"] == "full"
        else f"{100 * row['level']:g} %"
        for row in rows
    ]
    shown = Table("mean votes at", *titles, title=file)
    for name in rows[0]["votes"]:
        cells = []
        for row in rows:
            votes = row["votes"][name]
            cell = "-" if votes is None else f"{votes:.2f}"
            cells.append(
                f"[bold]{cell}[/]" if name in (row["best_rule"], row["best_peer"]) else cell
            )
        shown.add_row(name, *cells)
    shown.add_section()
    for key, title in (("to_limit", "best rule / limit"), ("to_peer", "best rule / best peer")):
        if key in rows[0]:
            shown.add_row(title, *(ratio(row[key]) for row in rows))
    winners = [row["best_peer"] if (row["to_peer"]["ratio"] or 0) > 1.0005 else "" for row in rows]
    shown.add_row("a peer wins", *winners)
    return shown


def ratio(of: Mapping[str, Any]) -> str:
    """A ratio and its interval."""
    if of["ratio"] is None:
        return "-"
    between = "" if of["low"] is None else f"\n{of['low']:.2f}-{of['high']:.2f}"
    return f"{of['ratio']:.3f}{between}"
