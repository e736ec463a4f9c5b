"""Drawing questions by what is known of them."""

import itertools
import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.errors import DataError, SettingsError
from optpo.selection.prioritized_draw import draw_questions, draw_weight

# The dossier's batch (single-stream, oracle "sampling weights").
VALUES = [0.1, 0.5, 0.9, 0.02, 0.6, 0.3]
CHANCES = [0.1407, 0.2210, 0.1407, 0.0764, 0.2170, 0.2043]
IDS = [f"q{n}" for n in range(6)]


def test_weights_of_the_dossier():
    """sqrt(v (1 - v)) + .05 of six values; a solved question is 11 times rarer than an even one."""
    weights = [draw_weight(value, 0.05) for value in VALUES]
    assert weights == pytest.approx([0.35, 0.55, 0.35, 0.19, 0.5399, 0.5083], abs=1e-4)
    assert [weight / sum(weights) for weight in weights] == pytest.approx(CHANCES, abs=1e-4)
    assert draw_weight(0.5, 0.05) / draw_weight(1.0, 0.05) == pytest.approx(11)
    assert draw_weight(None, 0.05) == draw_weight(0.5, 0.05)


def test_frequencies_are_the_dossiers_chances():
    """Over 20,000 steps each question is drawn first as often as its weight says, within 4 sd."""
    steps = 20_000
    drawn = Counter(draw_questions(IDS, VALUES, 1, seed=3, step=n)[0] for n in range(steps))
    for place, chance in enumerate(CHANCES):
        sd = math.sqrt(chance * (1 - chance) / steps)
        assert drawn[place] / steps == pytest.approx(chance, abs=4 * sd + 5e-5)


def test_pairs_are_drawn_without_replacement():
    """A pair comes as often as drawing the second among the others' weights says, within 4 sd."""
    values, steps = [0.1, 0.5, 0.02], 20_000
    weights = [draw_weight(value, 0.05) for value in values]
    pairs = Counter(tuple(draw_questions("abc", values, 2, seed=0, step=n)) for n in range(steps))
    for first, second in itertools.permutations(range(3), 2):
        chance = weights[first] / sum(weights) * weights[second] / (sum(weights) - weights[first])
        sd = math.sqrt(chance * (1 - chance) / steps)
        assert pairs[first, second] / steps == pytest.approx(chance, abs=4 * sd)


@given(
    st.dictionaries(st.text(max_size=5), st.none() | st.floats(0, 1), max_size=9),
    st.integers(0, 10),
    st.integers(0, 99),
    st.sampled_from([0.0, 0.05]),
)
def test_the_order_of_questions_does_not_matter(values, count, seed, explore):
    """The same questions are drawn whatever the order they are listed in, none twice."""
    names = list(values)
    other = random.Random(seed).sample(names, len(names))
    drawn = [
        [
            order[place]
            for place in draw_questions(
                order, [values[name] for name in order], count, seed=seed, step=1, explore=explore
            )
        ]
        for order in (names, other)
    ]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == len(set(drawn[0])) == min(count, len(names))


def test_seed_and_step_change_the_draw():
    """Another step or seed draws others; the same draws the same."""
    draws = {
        tuple(draw_questions(IDS, VALUES, 3, seed=seed, step=step))
        for seed, step in ((0, 1), (0, 2), (1, 1), (0, 1))
    }
    assert len(draws) == 3


@pytest.mark.parametrize(("least", "greatest"), [(-1, 1), (0, 2), (-3, 1)])
def test_values_are_read_between_the_least_and_the_greatest(least, greatest):
    """Rewards of another range draw what those of 0 and 1 draw."""
    values = [least + value * (greatest - least) for value in VALUES]
    for step in range(200):
        found = draw_questions(
            IDS, values, 3, seed=0, step=step, least=float(least), greatest=float(greatest)
        )
        assert found == draw_questions(IDS, VALUES, 3, seed=0, step=step)


def test_questions_that_teach_nothing_come_last():
    """Without exploration a solved and an unsolvable question are drawn only when none is left."""
    drawn = draw_questions("abcd", [1.0, 0.5, 0.0, 0.3], 4, seed=0, step=1, explore=0)
    assert set(drawn[:2]) == {1, 3}
    assert set(drawn[2:]) == {0, 2}


def test_what_cannot_be_drawn_from_is_refused():
    """Repeated questions, missing values and negative numbers are named."""
    with pytest.raises(DataError, match="2 questions, 1 of them distinct"):
        draw_questions(["a", "a"], [0.5, 0.5], 1, seed=0, step=1)
    with pytest.raises(DataError, match="1 values for 2"):
        draw_questions(["a", "b"], [0.5], 1, seed=0, step=1)
    with pytest.raises(DataError, match="not numbers"):
        draw_questions(["a"], [math.nan], 1, seed=0, step=1)
    with pytest.raises(SettingsError, match=r"(?s)explore is -1.*count is -2"):
        draw_questions(["a"], [0.5], -2, seed=0, step=1, explore=-1)
    with pytest.raises(SettingsError, match="least is 1"):
        draw_questions(["a"], [0.5], 1, seed=0, step=1, least=1)
