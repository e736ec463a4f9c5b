"""The betting test: an independent copy of the game, and that nobody can expect to win it."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optpo.errors import SettingsError
from optpo.voting import UNPARSED, EprocessRule, Tallies, Tally
from optpo.voting.appearance import by_appearance
from optpo.voting.eprocess import log_wealth

# Runs of equal votes, so that many of the tallies are ones a rule is sure of.
RUNS = st.lists(st.tuples(st.integers(UNPARSED, 4), st.integers(1, 12)), max_size=8)
VOTES = RUNS.map(lambda runs: tuple(vote for vote, times in runs for _ in range(times)))
WEIGHTED = st.lists(st.tuples(st.integers(UNPARSED, 4), st.floats(0, 1)), max_size=25)
STAKES = [math.cos(math.pi * (2 * i + 1) / 128) for i in range(32)]
UNSEEN = 99


def play(votes, weights, against):
    """Wealth of the gambler against one answer, by the rules of the game as they are told."""
    wealth, scores = dict.fromkeys(STAKES, 1.0), {}
    for vote, weight in zip(votes, weights, strict=True):
        others = {answer: score for answer, score in scores.items() if answer != against}
        if vote == UNPARSED:
            continue
        if scores:
            favourite = max(others, key=others.get, default=None)  # at a tie the one given first
            sign = (vote == favourite) - (vote == against)
            wealth = {
                stake: all_of * (1 + stake * weight * sign) for stake, all_of in wealth.items()
            }
        scores[vote] = scores.get(vote, 0.0) + weight
    return sum(wealth.values()) / len(wealth)


def wealth_after_all(tallies):
    """(questions, classes) wealth against every class, the last one never seen, after all votes."""
    *_, last = log_wealth(tallies)
    votes, _ = by_appearance(tallies)
    wealth = np.repeat(np.exp(last[:, -1:]), UNSEEN + 1, axis=1)
    rows, columns = np.nonzero(votes >= 0)
    wealth[rows, tallies.votes[rows, columns]] = np.exp(last)[rows, votes[rows, columns]]
    return wealth


@given(VOTES)
def test_the_wealth_is_that_of_the_game(votes):
    """Against every answer, seen or not, and for the least of those against rivals."""
    weights = [1.0] * len(votes)
    wealth = wealth_after_all(Tallies.of([Tally(votes)]))[0]
    expected = [play(votes, weights, answer) for answer in range(6)]
    assert wealth[:6] == pytest.approx(expected, rel=1e-9)
    tally = Tally(votes)
    rivals = [play(votes, weights, answer) for answer in range(6) if answer != tally.leader]
    evidence = max(0.0, math.log(min(rivals))) if tally.leader is not None else 0.0
    decision = EprocessRule(error=0.1, cap=100).decide(tally)
    assert decision.log_evidence == pytest.approx(evidence, abs=1e-9)
    assert decision.stop == (evidence >= math.log(10))


@given(WEIGHTED)
def test_the_weighted_wealth_is_that_of_the_game(pairs):
    """The same with votes that weigh less than 1."""
    votes, weights = (tuple(column) for column in zip(*pairs, strict=True)) if pairs else ((), ())
    wealth = wealth_after_all(Tallies.of([Tally(votes, weights)]))[0]
    expected = [play(votes, weights, answer) for answer in range(6)]
    assert wealth[:6] == pytest.approx(expected, rel=1e-9)


@given(VOTES)
def test_weights_of_one_change_nothing(votes):
    """A tally whose votes all weigh 1 is decided as the one without weights."""
    rule = EprocessRule(error=0.2, cap=20)
    plain, weighted = rule.decide(Tally(votes)), rule.decide(Tally(votes, (1.0,) * len(votes)))
    assert weighted.kind == plain.kind
    assert weighted.log_evidence == pytest.approx(plain.log_evidence, abs=1e-9)


def histories(length, classes):
    """Every sequence of votes for these classes, a row each."""
    return np.array(list(product(range(classes), repeat=length))).reshape(classes**length, length)


@pytest.mark.parametrize("length", range(6))
def test_no_bet_can_be_expected_to_win(length):
    """After every history of four answers, the mean wealth after one more vote is at most what it
    was, whatever the shares of the answers, as long as none is above that of the one bet against.

    Shares that satisfy this are mixtures of equal shares on sets with that answer in them, so it is
    enough to look at those; two of the answers may be ones that were never given.
    """
    votes = histories(length, classes=4)
    before = wealth_after_all(Tallies(votes))
    after = np.stack(
        [
            wealth_after_all(Tallies(np.column_stack([votes, np.full(len(votes), vote)])))
            for vote in range(6)
        ]
    )
    for mode, *others in product(range(6), *[[False, True]] * 6):
        possible = np.array(others)
        possible[mode] = True
        mean = after[possible, :, mode].mean(axis=0)
        assert (mean <= before[:, mode] * (1 + 1e-12)).all()


@settings(max_examples=50)
@given(
    WEIGHTED,
    st.integers(0, 5),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.05, 1)), min_size=6, max_size=6),
)
def test_no_bet_on_weighted_votes_can_be_expected_to_win(pairs, mode, shares):
    """The same for weighted votes: no answer has a larger mean of weight times vote than the mode.

    Of each answer the share is drawn, as a part of the most it can have, and the weight it comes with.
    """
    most = shares[mode][1]
    mass = [most / weight * part for part, weight in shares]
    mass[mode] = 1.0
    votes, weights = (tuple(column) for column in zip(*pairs, strict=True)) if pairs else ((), ())
    after = [
        play_on
        for answer, (_, weight) in enumerate(shares)
        for play_on in wealth_after_all(Tallies.of([Tally((*votes, answer), (*weights, weight))]))[
            :, mode
        ]
    ]
    before = wealth_after_all(Tallies.of([Tally(votes, weights)]))[0, mode]
    mean = sum(part * value for part, value in zip(mass, after, strict=True)) / sum(mass)
    assert mean <= before * (1 + 1e-9)


@pytest.mark.parametrize("length", [1, 2, 5, 12])
def test_between_two_equal_answers_the_mean_wealth_stays_one(length):
    """Over all 2^n sequences of two equally likely answers, once both are known, all bets are fair."""
    after = histories(length, classes=2)
    both = np.tile([0, 1], (len(after), 1))
    before = wealth_after_all(Tallies(both[:1]))[0, :2]
    wealth = wealth_after_all(Tallies(np.column_stack([both, after])))
    assert wealth[:, :2].mean(axis=0) == pytest.approx(before, rel=1e-12)
    assert before == pytest.approx([1, 1 - sum(STAKES) / 32])


@pytest.mark.parametrize("answers", [2, 3, 20])
def test_in_simulation_the_mean_wealth_against_a_mode_is_at_most_one(answers):
    """20 000 streams of equally likely answers, without weights and with weights drawn at random."""
    generator = np.random.default_rng(5)
    votes = generator.integers(answers, size=(20_000, 12))
    for weights in (None, generator.random(votes.shape)):
        wealth = wealth_after_all(Tallies(votes, weights))[:, 0]
        assert wealth.mean() <= 1 + 4 * wealth.std() / math.sqrt(len(wealth))


@pytest.mark.parametrize(("error", "votes"), [(0.2, 5), (0.1, 6), (0.05, 7), (0.01, 9)])
def test_equal_votes_end_it_as_the_moments_of_the_stakes_say(error, votes):
    """After v equal votes an unseen rival has lost v - 1 bets: the mean of (1 + stake)^(v - 1)."""
    wealth = [sum((1 + stake) ** lost for stake in STAKES) / 32 for lost in range(12)]
    assert wealth[votes - 2] < 1 / error <= wealth[votes - 1]
    assert EprocessRule(error).look_ahead(Tally()) == votes
    decision = EprocessRule(error).decide(Tally((3,) * votes))
    assert decision.kind == "decided"
    assert decision.confidence == pytest.approx(1 - 1 / wealth[votes - 1])


def test_a_new_leader_inherits_no_wealth():
    """Nine votes that certified answer 0 say nothing for answer 1, which then gets twelve."""
    late = Tally((0,) * 9 + (1,) * 12)
    rule = EprocessRule(error=0.01, cap=100)
    assert rule.decide(Tally((0,) * 9)).kind == "decided"
    decision = rule.decide(late)
    assert decision.leader == 1
    assert decision.confidence < 0.1
    # Against 0 eleven bets were won, one a vote for 1 but its first, and eight were lost.
    eleven_to_eight = sum((1 + stake) ** 11 * (1 - stake) ** 8 for stake in STAKES) / 32
    assert play(late.votes, [1.0] * 21, against=0) == pytest.approx(eleven_to_eight)


def test_weak_votes_are_weak_evidence():
    """Votes of weight 0 tell nothing, and lighter ones less than heavier ones."""
    rule = EprocessRule(cap=100)
    evidence = [rule.decide(Tally((0,) * 20, (w,) * 20)).log_evidence for w in (0, 0.3, 0.6, 1)]
    assert evidence == sorted(evidence)
    assert evidence[0] == 0
    assert evidence[1] > math.log(20)


@pytest.mark.parametrize("weights", [None, (1.0,) * 3000])
def test_very_many_votes_stay_finite(weights):
    """Three thousand votes, equal or torn, give finite evidence, weighted or not."""
    for votes in ((0,) * 3000, (0, 1) * 1500):
        decision = EprocessRule(cap=3000).decide(Tally(votes, weights))
        assert math.isfinite(decision.log_evidence)
        assert decision.kind == ("decided" if votes[1] == 0 else "tied")


@given(VOTES)
def test_the_confidence_is_the_level_at_which_it_would_stop(votes):
    """A rule of an error just above 1 - confidence is sure, one just below it is not."""
    decision = EprocessRule(cap=100).decide(Tally(votes))
    assert decision.log_evidence == pytest.approx(-math.log1p(-decision.confidence), abs=1e-6)
    error = math.exp(-decision.log_evidence)
    if error < 0.49:
        assert EprocessRule(error * 1.001, cap=100).decide(Tally(votes)).stop
        assert not EprocessRule(error * 0.999, cap=100).decide(Tally(votes)).stop


def test_every_problem_is_reported_at_once():
    """One error names all settings that are out of range, with their values."""
    with pytest.raises(SettingsError) as raised:
        EprocessRule(error=math.nan, floor=0, cap=2.5, at_cap="stop")
    names = [problem.split(" = ")[0] for problem in raised.value.problems]
    assert sorted(names) == ["at_cap", "cap", "error", "floor"]
