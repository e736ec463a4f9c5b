"""Rules replayed on recorded votes, against votes counted one at a time."""

import math
from dataclasses import dataclass, replace
from statistics import fmean
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optpo.errors import SettingsError
from optpo.recipes.rule_specs import read_rule, shipped_specs
from optpo.voting import UNPARSED, BetaRule, FixedRule, OptpoRule, Tally
from optpo.voting import replay as room
from optpo.voting.recorded import RecordedVotes
from optpo.voting.replay import calibration_of, order_of, replay, row_of, within
from optpo.voting.sweep import LEVELS, at_every_level, level_setting

KEYS = [
    *("cap", "floor", "questions", "mean_votes", "agreement", "accuracy", "undecided"),
    *("mean_tokens", "saved", "claimed_error", "decided_agreement", "decided_accuracy"),
]


def recorded(name, votes, **more):
    return RecordedVotes(name, votes, tuple("abcdefgh"[: 1 + max(votes)]), **more)


WORKED = [
    recorded("one", (0, 0, 0, 1), right=frozenset({0}), tokens=(10, 20, 30, 40)),
    recorded("two", (0, 1, 1, 0), right=frozenset(), tokens=(1, 1, 1, 1)),
    recorded("three", (UNPARSED, UNPARSED, UNPARSED, 0)),
]


def test_a_worked_example():
    """Three questions in their own order, by hand: every key of the row."""
    # P(theta > 1/2) for (votes of leader, runner-up): (1, 0) .75, (2, 0) .875, (2, 1) .6875, and .5
    # at a tie. So "one" is decided after two votes; "two" ends tied and "three" capped, at four.
    # Both answers of "two" are its majority; nobody knows what is right for "three".
    (outcomes,) = replay(WORKED, [BetaRule(confidence=0.8)], cap=64, orders=1)
    assert row_of(outcomes) == {
        "cap": 4,
        "floor": 1,
        "questions": 3,
        "mean_votes": pytest.approx((2 + 4 + 4) / 3),
        "agreement": 1.0,
        "accuracy": 0.5,
        "undecided": pytest.approx(2 / 3),
        "mean_tokens": (10 + 20 + 4) / 2,
        "saved": pytest.approx(1 - 10 / 12),
        "claimed_error": 0.125,
        "decided_agreement": 1.0,
        "decided_accuracy": 1.0,
    }
    assert list(row_of(outcomes)) == KEYS


def test_what_nobody_knows_is_none():
    """No gold, no tokens, no claim, nothing decided: None, never a number."""
    questions = [WORKED[2]]
    beta, fixed = (row_of(o) for o in replay(questions, [BetaRule(), FixedRule(votes=4)]))
    empty = ("accuracy", "mean_tokens", "claimed_error", "decided_agreement", "decided_accuracy")
    assert [key for key in KEYS if beta[key] is None] == [*empty]
    assert fixed["claimed_error"] is None
    assert (fixed["decided_agreement"], fixed["decided_accuracy"]) == (1.0, None)


def test_a_question_without_any_answer_agrees_with_nothing():
    """Nothing leads and nothing is the majority: there is no label to be right."""
    (outcomes,) = replay([recorded("q", (UNPARSED,) * 3, right=frozenset())], [BetaRule()])
    row = row_of(outcomes)
    assert (row["agreement"], row["accuracy"], row["undecided"]) == (0.0, 0.0, 1.0)


@st.composite
def questions(draw):
    """One to four questions of three to nine votes, some with tokens and right answers."""
    many = []
    for number in range(draw(st.integers(1, 4))):
        votes = draw(st.lists(st.integers(UNPARSED, 3), min_size=3, max_size=9).map(tuple))
        size = len(votes)
        tokens = st.lists(st.integers(0, 99), min_size=size, max_size=size).map(tuple)
        right = draw(st.none() | st.frozensets(st.integers(0, 3)).map(set(votes).intersection))
        many.append(
            recorded(str(number), votes, tokens=draw(st.none() | tokens), right=right),
        )
    return many


def counted_by_hand(votes, rule):
    """The end of a vote that reads one vote after the other: (votes, decision)."""
    for n in range(rule.cap + 1):
        decision = rule.decide(Tally(votes[:n]))
        if decision.stop:
            return n, decision
    raise AssertionError("the cap did not end the vote")


def average(values):
    return fmean(values) if values else None


@pytest.mark.parametrize("spec", [*shipped_specs(), "fixed:votes=3:at_cap=first"])
@settings(max_examples=40)
@given(questions(), st.integers(1, 3), st.integers(1, 9), st.integers(1, 3))
def test_rows_equal_votes_counted_one_at_a_time(spec, many, floor, cap, orders):
    """Every key, for every rule of the library, from `decide` on every vote of every order."""
    cap = min(max(cap, floor), *(len(question.votes) for question in many))
    rule = within(read_rule(spec), floor, cap)
    (outcomes,) = replay(many, [rule], floor=floor, cap=cap, orders=orders, seed=5)
    ended = []
    for question in many:
        counts = Tally(question.votes).counts
        for number in range(orders):
            places = order_of(question, number, seed=5)
            votes = tuple(question.votes[place] for place in places[:cap])
            n, decision = counted_by_hand(votes, rule)
            label = decision.leader
            tokens = question.tokens and sum(question.tokens[place] for place in places[:n])
            ended.append(
                {
                    "votes": n,
                    "sure": decision.kind == "decided",
                    "error": 1 - decision.confidence,
                    "agrees": label is not None and counts[label] == max(counts.values()),
                    "right": None if question.right is None else label in question.right,
                    "tokens": tokens,
                    "as_at_cap": label == Tally(votes).leader,
                }
            )
    sure = [end for end in ended if end["sure"]]
    expected = {
        "cap": cap,
        "floor": floor,
        "questions": len(many),
        "mean_votes": average([end["votes"] for end in ended]),
        "agreement": average([end["agrees"] for end in ended]),
        "accuracy": average([end["right"] for end in ended if end["right"] is not None]),
        "undecided": average([not end["sure"] for end in ended]),
        "mean_tokens": average([end["tokens"] for end in ended if end["tokens"] is not None]),
        "saved": average([1 - end["votes"] / cap for end in ended]),
        "claimed_error": rule.claims and average([end["error"] for end in sure]),
        "decided_agreement": average([end["agrees"] for end in sure]),
        "decided_accuracy": average([end["right"] for end in sure if end["right"] is not None]),
    }
    assert row_of(outcomes) == pytest.approx(expected)
    assert list(outcomes.agrees_at_cap.ravel()) == [end["as_at_cap"] for end in ended]


def test_the_first_order_is_the_questions_own_and_the_others_are_not():
    """Order 0 reads as recorded; the others are orders of the same votes, of even frequency."""
    question = recorded("q", (0, 1, 2))
    assert order_of(question, 0, seed=3).tolist() == [0, 1, 2]
    drawn = [tuple(order_of(question, number, seed=3)) for number in range(1, 1201)]
    assert {tuple(sorted(order)) for order in drawn} == {(0, 1, 2)}
    # Six orders, 200 of each on average; the standard deviation of each count is 12.9.
    counts = [drawn.count(order) for order in set(drawn)]
    assert len(counts) == 6
    assert max(abs(count - 200) for count in counts) < 4.5 * 12.9


def test_orders_depend_on_nothing_but_seed_question_and_number():
    """Other questions, and more orders, change nothing; seed, id, model and number do."""
    many = [replace(question, votes=question.votes * 9, tokens=None) for question in WORKED]
    question = many[0]
    rules = [BetaRule(confidence=0.97)]
    (alone,) = replay([question], rules, orders=3)
    (among,) = replay([*many[1:], question], rules, cap=36, orders=5)
    assert alone.votes[0].tolist() == among.votes[-1, :3].tolist()
    same = order_of(question, 1, seed=0).tolist()
    assert order_of(replace(question, votes=question.votes[::-1]), 1, seed=0).tolist() == same
    others = (replace(question, id="two"), 1, 0), (replace(question, model="m"), 1, 0)
    for other in (*others, (question, 2, 0), (question, 1, 1)):
        assert order_of(*other).tolist() != same


def test_chunks_leave_no_trace(monkeypatch):
    """Two rows at a time give what all at once give, and progress is told."""
    rules = [BetaRule(confidence=0.8), FixedRule(votes=2)]
    whole = replay(WORKED, rules, orders=2)
    monkeypatch.setattr(room, "_ROWS_AT_ONCE", 2)
    told = []
    parts = replay(WORKED, rules, orders=2, progress=lambda *where: told.append(where))
    assert told == [(1, 3), (2, 3), (3, 3)]
    for one, other in zip(whole, parts, strict=True):
        assert row_of(one) == row_of(other)
        assert calibration_of(one) == calibration_of(other)


def test_the_budget_goes_before_the_rules_own():
    """Floor and cap replace a rule's; a fixed number of votes is kept as far as they allow."""
    assert within(OptpoRule(error=0.1), 2, 9) == OptpoRule(error=0.1, floor=2, cap=9)
    assert [within(FixedRule(votes), 4, 9).votes for votes in (2, 6, 64)] == [4, 6, 9]
    (outcomes,) = replay(WORKED, [OptpoRule(floor=8, cap=64)], floor=2, cap=3)
    assert (outcomes.floor, outcomes.cap, outcomes.rule.cap) == (2, 3, 3)


@dataclass(frozen=True)
class RuleWithoutBudget:
    """A rule of another package, that stops whenever it likes."""

    claims: ClassVar[None] = None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"floor": 5}, "floor = 5: must not be above the 4 votes of the shortest question"),
        ({"floor": 5, "cap": 3}, "floor = 5: must not be above cap = 3"),
        ({"floor": 0, "cap": 0, "orders": 0}, "floor = 0: .*\ncap = 0: .*\norders = 0: must be 1"),
        ({"rules": [RuleWithoutBudget()]}, "RuleWithoutBudget cannot be replayed: it has no floor"),
    ],
)
def test_what_cannot_be_replayed_is_refused(arguments, said):
    """Budgets that do not fit the votes, and rules that take none."""
    with pytest.raises(SettingsError, match=said):
        replay(WORKED, **{"rules": [BetaRule()], **arguments})


class FullVoteRule(BetaRule):
    """A rule whose confidence is about the label at the cap."""

    claims = "full vote"


def test_a_claim_is_held_against_what_it_is_about():
    """The mode of all answers, or the leader at the cap; no claim, no bins."""
    # After two votes class 0 is decided at .875. At the cap of three it still leads; of all seven
    # answers class 1 is the most frequent.
    question = recorded("q", (0, 0, 0, 1, 1, 1, 1))
    rules = [BetaRule(confidence=0.8), FullVoteRule(confidence=0.8), FixedRule(votes=3)]
    mode, full, fixed = replay([question], rules, cap=3, orders=1)
    (of_mode,), (of_full,) = calibration_of(mode), calibration_of(full)
    assert (of_mode.claimed, of_mode.observed) == (0.875, 0.0)
    assert (of_full.claimed, of_full.observed) == (0.875, 1.0)
    assert calibration_of(fixed) == []
    assert row_of(full)["agreement"] == 0.0


def test_calibration_counts_questions():
    """All orders of a question are one in the interval; undecided votes claim nothing."""
    questions = [recorded(str(number), (0,) * 9) for number in range(6)]
    questions.append(recorded("tied", (0, 1) * 6))
    (outcomes,) = replay(questions, [BetaRule(confidence=0.99)], orders=4)
    (row,) = calibration_of(outcomes)
    assert (row.count, row.questions, row.observed) == (24, 6, 1.0)
    # Wilson's lower end for six of six: 6 / (6 + 1.96^2).
    assert row.interval_low == pytest.approx(6 / (6 + 1.959963984540054**2))
    assert row_of(outcomes)["undecided"] == pytest.approx(1 / 7)


@pytest.mark.parametrize("spec", shipped_specs())
def test_levels_go_from_hasty_to_patient(spec):
    """The levels of every rule are levels it takes, and the last uses more votes than the first."""
    levels = at_every_level(read_rule(spec))
    name = level_setting(levels[0])
    assert len(levels) == (1 if name is None else len(LEVELS[name]))
    draw = np.random.default_rng(1)
    votes = [tuple(draw.choice(3, 64, p=[0.5, 0.3, 0.2]).tolist()) for _ in range(60)]
    many = [recorded(str(number), vote) for number, vote in enumerate(votes)]
    used = [row_of(outcomes)["mean_votes"] for outcomes in replay(many, levels, orders=1)]
    # Windows end at multiples of their length, so that a longer one may end sooner.
    assert used == sorted(used) or name == "window"
    assert name is None or used[-1] > used[0]


def test_the_error_of_a_lead_is_that_of_the_ruined_gambler():
    """Simulated votes of .6 and .4 under a lead of 3: 22.9 % wrong, 8.1 votes (dossier 1.2)."""
    draw = np.random.default_rng(2)
    votes = draw.choice(2, (4000, 200), p=[0.6, 0.4])
    # The rarer answer is spelt out at the end so that class 0 is the majority in every question.
    many = [recorded(str(n), (*row.tolist(), *[0] * 200)) for n, row in enumerate(votes)]
    rule = OptpoRule(p0=0.5, candidates=4, error=0.05)
    assert rule.lead == 3
    (outcomes,) = replay(many, [rule], cap=200, orders=1)
    row = row_of(outcomes)
    wrong = 1 / (1 + 1.5**3)
    assert row["agreement"] == pytest.approx(1 - wrong, abs=4 * math.sqrt(wrong * 0.8 / 4000))
    assert row["mean_votes"] == pytest.approx(3 * (1 - 2 * wrong) / 0.2, abs=4 * 6 / 4000**0.5)
    assert row["undecided"] == 0
