"""Thinking and not thinking have a price."""

from dataclasses import replace

import pytest
import torch

from optpo.batch import pack
from optpo.errors import SettingsError
from optpo.rollout import Rollout
from optpo.shapes.trigger import TriggerShape

THINK, CLOSE = 7, 8
THOUGHT, SKIPPED, PLAIN = (THINK, 3, CLOSE, 4), (THINK, CLOSE, 4), (3, 4)


def batch_of(groups, needed=None, votes=None):
    """A group a list of completions."""
    votes = iter(votes or [0] * sum(map(len, groups)))
    batch = pack(
        [
            [
                Rollout("q", n, 0, (1,), tokens, (-1.0,) * len(tokens), "stop", vote=next(votes))
                for n, tokens in enumerate(group)
            ]
            for group in groups
        ],
        [0] * len(groups),
    )
    values = {} if needed is None else {"needed": torch.tensor(needed)}
    return replace(batch, question_values=values)


@pytest.mark.parametrize(
    ("tokens", "needed", "right", "expected"),
    [
        (THOUGHT, 1.0, 1.0, 1.0),
        (THOUGHT, 0.0, 1.0, 0.7),
        (SKIPPED, 1.0, 0.0, -0.1),
        (PLAIN, 1.0, 0.0, -0.1),
        (SKIPPED, 0.0, 1.0, 1.0),
    ],
)
def test_values_of_the_dossier(tokens, needed, right, expected):
    """The four cases at prices .1, .3 and 1."""
    shape = TriggerShape(THINK, CLOSE)
    found = shape(batch_of([[tokens]], [needed]), torch.tensor([right]))
    assert found.tolist() == pytest.approx([expected])


def test_an_ill_formed_answer_pays():
    """No answer could be read: -1, beside what thinking cost."""
    shape = TriggerShape(THINK, CLOSE)
    found = shape(batch_of([[THOUGHT], [THOUGHT]], [1.0, 0.0], votes=[-1, -1]), torch.zeros(2))
    assert found.tolist() == pytest.approx([-1, -1.3])


def test_need_is_read_off_the_group():
    """Not needed where rollouts without a thought are right by half; nothing known: needed."""
    groups = [
        [THOUGHT, SKIPPED, SKIPPED],  # 1 of 2 right without: not needed
        [THOUGHT, SKIPPED, PLAIN, PLAIN],  # 1 of 3: needed
        [THOUGHT, THOUGHT],  # nobody tried without
        [PLAIN],
        [PLAIN],
    ]
    rewards = torch.tensor([1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0], dtype=torch.float64)
    found = TriggerShape(THINK, CLOSE)(batch_of(groups), rewards)
    expected = [0.7, 1, 0, 1, -0.1, 0.9, -0.1, 1, 0, 1, -0.1]
    assert found.tolist() == pytest.approx(expected)
    assert found.dtype == torch.float64


def test_what_a_question_says_of_itself_counts_first():
    """A given need overrules the group; one that is not a number leaves it to the group."""
    groups = [[THOUGHT, SKIPPED]] * 2
    batch = batch_of(groups, [1.0, torch.nan])
    found = TriggerShape(THINK, CLOSE)(batch, torch.ones(4))
    assert found.tolist() == pytest.approx([1, 0.9, 0.7, 1])


def test_missing_rewards_say_nothing():
    """A rollout without a reward stays without, and is no evidence of ease or need."""
    rewards = torch.tensor([1.0, torch.nan, torch.nan, 1.0])
    found = TriggerShape(THINK, CLOSE)(batch_of([[THOUGHT, SKIPPED, SKIPPED, SKIPPED]]), rewards)
    assert found.nan_to_num(9).tolist() == pytest.approx([0.7, 9, 9, 1])


def test_without_a_closing_token_any_opening_is_a_thought():
    """An empty thought counts as one where nobody says how thoughts end."""
    shape = TriggerShape(THINK)
    assert shape.thinks(batch_of([[THOUGHT, SKIPPED, PLAIN]])).tolist() == [True, True, False]


def test_free_thinking_is_the_reward():
    """With all prices 0 nothing is shaped."""
    shape = TriggerShape(THINK, CLOSE, missed=0, needless=0, ill_formed=0)
    rewards = torch.tensor([1.0, 0.0, 1.0])
    batch = batch_of([[THOUGHT, SKIPPED, PLAIN]], votes=[0, -1, 0])
    assert shape(batch, rewards).equal(rewards)


def test_settings_out_of_range_are_all_named():
    """Every problem is told at once."""
    with pytest.raises(SettingsError, match=r"(?s)think_token is -1.*easy_share is 2"):
        TriggerShape(-1, easy_share=2)
    assert TriggerShape(THINK).needs == {"needed"}
