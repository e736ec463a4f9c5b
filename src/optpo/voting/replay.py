"""Stopping rules on recorded votes: what each would have cost, and how often it would be right."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optpo.errors import SettingsError
from optpo.voting.calibration import CalibrationBin, calibration_bins
from optpo.voting.recorded import RecordedVotes
from optpo.voting.rule import StoppingRule
from optpo.voting.tally import Floats, Integers, Tallies

_ROWS_AT_ONCE = 4096
"""Questions times orders; the matrices of so many fit into the caches of a processor."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """How a rule ended the vote on each question in each order.

    The label is the leader when the vote ended, whether the rule was sure of it or not.

    Attributes:
        rule: the rule, within floor and cap.
        floor: the fewest votes of a question.
        cap: the most votes of a question.
        votes: (questions, orders) votes used.
        decided: of the same shape; whether the rule was sure.
        confidence: what it claimed of the label, as in `Decision`.
        agrees: whether the label is the most frequent of all recorded answers, or one of them.
        agrees_at_cap: whether it is the leader at the cap in the same order.
        right: 1 where the label is right, 0 where it is wrong; not a number where nobody knows.
        tokens: tokens of the votes used; not a number where they were not recorded.
    """

    rule: StoppingRule
    floor: int
    cap: int
    votes: Integers
    decided: NDArray[np.bool_]
    confidence: Floats
    agrees: NDArray[np.bool_]
    agrees_at_cap: NDArray[np.bool_]
    right: Floats
    tokens: Floats


def replay(
    questions: Sequence[RecordedVotes],
    rules: Sequence[StoppingRule],
    *,
    floor: int = 1,
    cap: int = 64,
    orders: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outcomes]:
    """Replay the votes of every question in several orders, and let every rule stop them.

    Floor and cap go before those of the rules; the cap is at most the votes of the shortest
    question. The orders are those of `order_of`.

    Args:
        questions: recorded votes, one question or more.
        rules: the rules; all read the same orders.
        floor: fewest votes of a question.
        cap: most votes of a question.
        orders: orders of each question, 1 or more; the first is its own.
        seed: same seed, same orders.
        progress: called with the questions done and all of them.

    Returns:
        The outcomes of each rule.

    Raises:
        SettingsError: floor, cap or orders are out of range, or a rule takes no floor and cap.
    """
    shortest = min(len(question.votes) for question in questions)
    within_reach = min(cap, shortest)
    problems = [
        f"{name} = {value}: must be 1 or more"
        for name, value in (("floor", floor), ("cap", cap), ("orders", orders))
        if value < 1
    ]
    if not problems and floor > within_reach:
        problems.append(
            f"floor = {floor}: must not be above cap = {cap}"
            if floor > cap
            else f"floor = {floor}: must not be above the {shortest} votes of the shortest question"
        )
    if problems:
        raise SettingsError(problems)
    limited = [within(rule, floor, within_reach) for rule in rules]
    size = max(1, _ROWS_AT_ONCE // orders)
    chunks = [questions[start : start + size] for start in range(0, len(questions), size)]
    parts: list[list[dict[str, NDArray[Any]]]] = []
    for chunk in chunks:
        parts.append(_replay_chunk(chunk, limited, within_reach, orders, seed))
        progress(min(len(questions), len(parts) * size), len(questions))
    return [
        Outcomes(
            rule=rule,
            floor=floor,
            cap=within_reach,
            **{name: np.concatenate([part[name] for part in of_rule]) for name in of_rule[0]},
        )
        for rule, of_rule in zip(limited, zip(*parts, strict=True), strict=True)
    ]


def order_of(question: RecordedVotes, number: int, seed: int) -> Integers:
    """The places of a question's votes in one of its orders: order 0 is its own, others random.

    It depends on seed, id, model and number alone: neither on the other questions nor on how many
    orders there are.

    >>> order_of(RecordedVotes("q", (0, 0, 1), ("7", "8")), 0, seed=0)
    array([0, 1, 2])
    """
    count = len(question.votes)
    if number == 0:
        return np.arange(count)
    name = repr((seed, question.id, question.model, number)).encode(errors="surrogatepass")
    digest = hashlib.blake2b(name, digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest)).permutation(count)


def within(rule: StoppingRule, floor: int, cap: int) -> StoppingRule:
    """The rule with this floor and cap; a fixed number of votes is kept, as far as they allow.

    Raises:
        SettingsError: it has no such settings.
    """
    settings: Any = rule
    names = {field.name for field in fields(settings)}
    if {"floor", "cap"} <= names:
        limited: StoppingRule = replace(settings, floor=floor, cap=cap)
    elif "votes" in names:
        limited = replace(settings, votes=min(cap, max(floor, settings.votes)))
    else:
        raise SettingsError([f"{type(rule).__name__} cannot be replayed: it has no floor and cap"])
    return limited


def row_of(outcomes: Outcomes) -> dict[str, Any]:
    """The outcomes as one row of a table: means over questions and orders.

    `agreement`, `accuracy`, `undecided` and `saved` are shares; `accuracy` is over the questions
    whose right answers are known, `mean_tokens` over those with tokens, None where there are none.
    `claimed_error` is the mean of 1 - confidence over decided labels, None without them or where
    the rule claims nothing; `decided_agreement` and `decided_accuracy` are over decided labels.
    """
    decided = outcomes.decided
    return {
        "cap": outcomes.cap,
        "floor": outcomes.floor,
        "questions": len(outcomes.votes),
        "mean_votes": _mean(outcomes.votes),
        "agreement": _mean(outcomes.agrees),
        "accuracy": _mean(outcomes.right),
        "undecided": _mean(~decided),
        "mean_tokens": _mean(outcomes.tokens),
        "saved": _mean(1 - outcomes.votes / outcomes.cap),
        "claimed_error": (
            None if outcomes.rule.claims is None else _mean(1 - outcomes.confidence[decided])
        ),
        "decided_agreement": _mean(outcomes.agrees[decided]),
        "decided_accuracy": _mean(outcomes.right[decided]),
    }


def calibration_of(outcomes: Outcomes) -> list[CalibrationBin]:
    """The confidence of decided labels against how often what the rule claims of them is so.

    A rule that claims the mode is held against the most frequent of all recorded answers, one that
    claims the full vote against the leader at the cap in the same order. Without a claim, and where
    no label is decided, there are no bins. All orders of a question are one in the intervals; the
    votes of several models on it count as several questions.
    """
    if outcomes.rule.claims is None:
        return []
    agrees = outcomes.agrees if outcomes.rule.claims == "mode" else outcomes.agrees_at_cap
    decided = outcomes.decided
    questions = np.nonzero(decided)[0].tolist()
    return calibration_bins(outcomes.confidence[decided], agrees[decided], questions)


def _mean(values: NDArray[Any]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _replay_chunk(
    questions: Sequence[RecordedVotes],
    rules: Sequence[StoppingRule],
    cap: int,
    orders: int,
    seed: int,
) -> list[dict[str, NDArray[Any]]]:
    """The arrays of `Outcomes` of each rule, for some of the questions."""
    shape = (len(questions), orders)
    rows = np.arange(len(questions) * orders)
    question_of = rows // orders
    votes = np.empty((len(rows), cap), dtype=np.int64)
    tokens = np.full((len(rows), cap + 1), np.nan)
    for row, number in zip(rows, rows % orders, strict=True):
        question = questions[question_of[row]]
        places = order_of(question, int(number), seed)[:cap]
        votes[row] = np.asarray(question.votes)[places]
        if question.tokens is not None:
            tokens[row, 0] = 0
            tokens[row, 1:] = np.asarray(question.tokens)[places].cumsum()
    modes, right = _class_tables(questions)
    tallies = Tallies(votes)
    at_cap = tallies.leader[:, -1]

    def of_rule(rule: StoppingRule) -> Iterator[tuple[str, NDArray[Any]]]:
        decisions = rule.decide_many(tallies)
        end = decisions.first_stop
        label = tallies.leader[rows, end]
        yield "votes", end
        yield "decided", decisions.decided[rows, end]
        yield "confidence", decisions.confidence[rows, end]
        yield "agrees", modes[question_of, label]
        yield "agrees_at_cap", label == at_cap
        yield "right", right[question_of, label]
        yield "tokens", tokens[rows, end]

    return [{name: array.reshape(shape) for name, array in of_rule(rule)} for rule in rules]


def _class_tables(questions: Sequence[RecordedVotes]) -> tuple[NDArray[np.bool_], Floats]:
    """(questions, classes + 1) whether a class has most of all votes, and 1 where it is right.

    The last column, which -1 picks, stands for no class: it has no votes and is never right.
    """
    classes = 1 + max(len(question.labels) for question in questions)
    modes = np.zeros((len(questions), classes), dtype=np.bool_)
    right = np.full((len(questions), classes), np.nan)
    for row, question in enumerate(questions):
        votes = np.asarray(question.votes)
        counts = np.bincount(votes[votes >= 0], minlength=classes)
        modes[row] = (counts == counts.max()) & (counts > 0)
        if question.right is not None:
            right[row] = [number in question.right for number in range(classes)]
    return modes, right
