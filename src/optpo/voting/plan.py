"""Which stopping rule reaches a target error with the fewest votes, on votes assumed or recorded."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from optpo.errors import SettingsError
from optpo.voting.accuracy import NORMAL_QUANTILE, mean_with_interval
from optpo.voting.bounds import known_shape_rate, least_mean_votes
from optpo.voting.frontier import FrontierRule
from optpo.voting.frontier_curve import COSTS
from optpo.voting.frontier_fit import best_policy, learn_chain
from optpo.voting.recorded import RecordedVotes
from optpo.voting.replay import within
from optpo.voting.rule import StoppingRule
from optpo.voting.runs import Runs
from optpo.voting.sweep import level_setting
from optpo.voting.tally import Tallies, Tally

_ERRORS = [float(f"{error:.3g}") for error in np.geomspace(0.45, 1e-4, 48)]

Interval = tuple[float, float, float]
"""A mean over questions, and the low and high end of its 95 % interval."""


@dataclass(frozen=True)
class Candidate:
    """A rule with the hastiest setting that reaches the target, and what it costs.

    The setting was chosen on some questions; the figures are from others.

    Attributes:
        name: what the rule was called by.
        rule: the rule, within floor and cap.
        target: "kept" where it was chosen and where it was measured, "missed" where it was
            measured, or "not reached" where it was chosen; then it is the most patient setting.
        votes_chosen_on: mean votes where it was chosen.
        votes: votes a question.
        error: the share of decided labels that are not the mode; None where none is decided.
        undecided: the share of questions that end without a label.
    """

    name: str
    rule: StoppingRule
    target: Literal["kept", "missed", "not reached"]
    votes_chosen_on: float
    votes: Interval
    error: Interval | None
    undecided: Interval


def plan_rules(
    choosing: Runs,
    reporting: Runs,
    rules: Mapping[str, Sequence[StoppingRule]],
    *,
    error: float,
    floor: int,
    cap: int,
) -> list[Candidate]:
    """For each rule the hastiest level that reaches the target, and its cost on other questions.

    Those that reach the target come first, each lot by mean votes where the level was chosen. So
    that luck with few questions does not pass for reaching the target, the middle of the 95 %
    interval must be below it where the level is chosen, which is about two errors more than there
    were: an error of 1 % takes 189 questions to be reached at all.

    Args:
        choosing: runs on which levels are chosen.
        reporting: runs of other questions, for the figures.
        rules: by name, each rule at its levels from hasty to patient, as `levels_of` gives them.
        error: the target in (0, 1/2): the most decided labels that may not be the mode.
        floor: fewest votes of a question.
        cap: most votes of a question.

    Raises:
        SettingsError: a value is out of range, or a rule takes no floor and cap.
    """
    if not 0 < error < 0.5:
        raise SettingsError([f"error = {error!r}: must be above 0 and below 0.5"])
    candidates = []
    for name, levels in rules.items():
        rule, votes_chosen_on, reached = _hastiest(
            [within(level, floor, cap) for level in levels], choosing, error
        )
        found = _Figures.of(rule, reporting)
        kept = found.error is not None and found.error[0] <= error
        candidates.append(
            Candidate(
                name=name,
                rule=rule,
                target="not reached" if not reached else "kept" if kept else "missed",
                votes_chosen_on=votes_chosen_on,
                votes=found.votes,
                error=found.error,
                undecided=found.undecided,
            )
        )
    return sorted(candidates, key=lambda each: (each.target == "not reached", each.votes_chosen_on))


def least_error_shown(questions: int) -> float:
    """The smallest target that `plan_rules` can find reached where it chooses on so many questions.

    It is the middle of the interval of no error at all.

    >>> round(least_error_shown(189), 4)
    0.01
    """
    _, low, high = mean_with_interval([0.0] * questions)
    return (low + high) / 2


def levels_of(rule: StoppingRule, cap: int) -> list[StoppingRule]:
    """The rule at every level worth trying, from hasty to patient; itself where it has no level."""
    name = level_setting(rule)
    if name is None:
        return [rule]
    values: dict[str, Sequence[float]] = {
        "error": _ERRORS,
        "confidence": [round(1 - error, 6) for error in _ERRORS],
    }
    settings: Any = rule
    return [replace(settings, **{name: at}) for at in values.get(name, range(1, cap + 1))]


def learn_levels(
    questions: Sequence[RecordedVotes], folder: Path, *, cap: int, seed: int
) -> list[FrontierRule]:
    """`FrontierRule` at every level: policies for falling costs of a vote, as files in a folder."""
    chain = learn_chain(Tallies.of([Tally(each.votes) for each in questions]), cap=cap, seed=seed)
    rules = []
    for number, cost in enumerate(COSTS):
        path = folder / f"{number}.json"
        best_policy(chain, cost).save(path)
        rules.append(FrontierRule(str(path), cap=cap))
    return rules


def shares_of(question: RecordedVotes) -> list[float]:
    """The share of each answer among the recorded votes, unparsed ones included."""
    votes = np.asarray(question.votes)
    return [float(share) for share in np.bincount(votes[votes >= 0], minlength=1) / len(votes)]


def least_votes_for_all_shapes(shapes: Sequence[Sequence[float]], error: float, cap: int) -> float:
    """Mean of `least_mean_votes` over these questions, each the cap at most.

    No rule that always ends in a label, and errs so rarely whatever the shares of the answers, does
    with less. One whose level was fitted to these shapes holds for them only, and may.
    """
    return _mean_up_to(cap, [float(least_mean_votes(shares, error)) for shares in shapes])


def least_votes_for_these_shapes(
    shapes: Sequence[Sequence[float]], error: float, cap: int
) -> float:
    """Mean of kl(error, 1 - error) / `known_shape_rate` over these questions, each the cap at most.

    No rule that always ends in a label, and errs so rarely on each of these shapes whichever answer
    has which share, does with less, even if it knows the shapes: the two first answers may have
    changed places (change of measure, as in `least_mean_votes`). Erring that rarely on the average
    of the questions may cost less.
    """
    nats = (1 - 2 * error) * math.log((1 - error) / error)
    rates = [float(known_shape_rate(shares)) for shares in shapes]
    return _mean_up_to(cap, [nats / rate if rate > 0 else math.inf for rate in rates])


def _hastiest(
    levels: Sequence[StoppingRule], runs: Runs, error: float
) -> tuple[StoppingRule, float, bool]:
    """The first level that reaches the error, else the last; its mean votes; whether it does."""
    figures = cache(lambda place: _Figures.of(levels[place], runs))

    def errs_less(place: int) -> bool:
        interval = figures(place).error
        return interval is None or interval[0] <= error

    # Errors fall from level to level; their intervals do not where ever fewer labels are decided.
    for place in range(bisect_left(range(len(levels)), True, key=errs_less), len(levels)):
        interval = figures(place).error
        if interval is not None and (interval[1] + interval[2]) / 2 <= error:
            return levels[place], figures(place).votes[0], True
    return levels[-1], figures(len(levels) - 1).votes[0], False


def _mean_up_to(cap: int, votes: Sequence[float]) -> float:
    """The mean of votes, of which there are 1 at least and `cap` at most."""
    return math.fsum(min(float(cap), max(1.0, each)) for each in votes) / len(votes)


@dataclass(frozen=True)
class _Figures:
    votes: Interval
    error: Interval | None
    undecided: Interval

    @classmethod
    def of(cls, rule: StoppingRule, runs: Runs) -> _Figures:
        decisions = rule.decide_many(runs.tallies)
        end = decisions.first_stop
        rows = np.arange(len(end))
        decided = decisions.decided[rows, end]
        wrong = decided & ~runs.right[rows, end]
        asked, labels, errors, votes = (
            np.bincount(runs.questions, weights=weights)
            for weights in (np.ones(len(end)), decided, wrong, end)
        )
        mean_votes = votes / asked
        half = NORMAL_QUANTILE * float(mean_votes.std() / math.sqrt(len(mean_votes)))
        middle = float(mean_votes.mean())
        named = labels > 0
        return cls(
            votes=(middle, middle - half, middle + half),
            error=mean_with_interval((errors[named] / labels[named]).tolist())
            if named.any()
            else None,
            undecided=mean_with_interval((1 - labels / asked).tolist()),
        )
