"""GTPO's shared begins and ends against its published weights and a plain loop."""

import math

import pytest
import torch
from advantage_batches import batch_of, doubles
from hypothesis import given
from hypothesis import strategies as st

from optpo.advantages.centred import CentredAdvantage
from optpo.advantages.shared_affixes import SharedAffixAdvantage, shared_tokens
from optpo.batch import segment_sum
from optpo.errors import SettingsError

PUBLISHED = [[1, 2, 5, 6, 9], [1, 2, 7, 8, 9], [1, 2, 5, 8, 9], [1, 3, 7, 6, 9]]
SIGNS = doubles(1, -1, 1, -1)
MULTIPLIED = SharedAffixAdvantage(both_ends="multiplied")


def weights_of(advantage, rows, signs, sizes=None):
    batch = batch_of(sizes or [len(rows)], tokens=rows)
    found = advantage.token_weights(batch, torch.as_tensor(signs, dtype=torch.float64))
    return [part.tolist() for part in found.split([len(row) for row in rows])]


@pytest.mark.parametrize("advantage", [SharedAffixAdvantage(), MULTIPLIED])
def test_published_weights(advantage):
    """Four answers of five tokens, and two of unequal lengths: as the published code has them."""
    assert weights_of(advantage, PUBLISHED, SIGNS) == [
        [2, 2, 1, 2, 2],
        [0, 0, 1, 0, 0],
        [2, 2, 1, 2, 2],
        [0, 1, 1, 0, 0],
    ]
    unequal = weights_of(advantage, [[1, 2, 5, 6, 9], [1, 2, 7, 9]], [1, -1])
    assert unequal == [[2, 2, 1, 1, 2], [0, 0, 1, 0]]


def test_what_is_shared_from_both_ends():
    """Equal answers of both signs: 2 and 0 by the paper, 4 and 0 by the published code."""
    rows = [[1, 2, 3], [1, 2, 3]]
    assert weights_of(SharedAffixAdvantage(), rows, [1, -1]) == [[2] * 3, [0] * 3]
    assert weights_of(MULTIPLIED, rows, [1, -1]) == [[4] * 3, [0] * 3]


def test_how_many_tokens_are_shared():
    """4, 4, 4 and 3, where the published code counts 2 in each answer."""
    batch = batch_of([4], tokens=PUBLISHED)
    either = torch.stack(shared_tokens(batch, SIGNS)).any(0).long()
    assert segment_sum(either, batch.token_rollouts, 4).tolist() == [4, 4, 4, 3]


def runs_by_loop(groups, signs):
    """Literal: walk each answer from its end while another of the other sign has the same token."""
    found = []
    for rows, own in zip(groups, signs, strict=True):
        for row in rows:
            flags = []
            for position, token in enumerate(row):
                others = {
                    other_sign
                    for other, other_sign in zip(rows, own, strict=True)
                    if len(other) > position and other[position] == token
                }
                flags.append(all(flags) and {1, -1} <= others)
            found.append(flags)
    return found


answers = st.lists(st.integers(1, 2), min_size=1, max_size=5)
group = st.lists(st.tuples(answers, st.sampled_from([-1, 0, 1])), min_size=1, max_size=5)


@given(st.lists(group, min_size=1, max_size=3))
def test_runs_equal_a_loop(groups):
    """In ragged groups, also of one, each answer's runs from both ends are the loop's."""
    rows = [[row for row, _ in some] for some in groups]
    signs = [[sign for _, sign in some] for some in groups]
    flat = [row for some in rows for row in some]
    batch = batch_of([len(some) for some in rows], tokens=flat)
    begin, end = shared_tokens(batch, torch.tensor([sign for some in signs for sign in some]))
    forward = runs_by_loop(rows, signs)
    backward = runs_by_loop([[row[::-1] for row in some] for some in rows], signs)
    assert begin.tolist() == [flag for flags in forward for flag in flags]
    assert end.tolist() == [flag for flags in backward for flag in flags[::-1]]


def test_entropy_penalty_and_filter():
    """The worked advantages: less a tenth of the mean entropy; above the limit none."""
    entropies = torch.tensor([0.3, 0.5, 0.9, 0.2], dtype=torch.float64).repeat_interleave(5)
    batch = batch_of([4], tokens=PUBLISHED, entropy=entropies)
    advantage = SharedAffixAdvantage(scale="population-std", epsilon=1e-12, filter="always")
    found = advantage.of_rollouts(batch, doubles(1, 0, 1, 0))
    assert torch.allclose(found, doubles(0.97, -1.05, 0, -1.02))
    by_token, returns = advantage(batch, doubles(1, 0, 1, 0))
    assert returns is None
    expected = [1.94, 1.94, 0.97, 1.94, 1.94, 0, 0, -1.05, 0, 0, *[0] * 5, 0, -1.02, -1.02, 0, 0]
    assert torch.allclose(by_token, doubles(*expected))


def test_a_policy_that_was_uncertain_is_not_filtered():
    """The paper filters only where the policy began below the limit, the code always."""
    rewards = torch.tensor([1.0, 0.0])

    def counts(filter, first=None, now=0.9):
        entropies = torch.tensor([0.9, 0.9, now, now])
        known = {} if first is None else {"question_first_mean_entropy": torch.tensor([first])}
        batch = batch_of([2], [2, 2], entropy=entropies, **known)
        return SharedAffixAdvantage(filter=filter).of_rollouts(batch, rewards).ne(0).tolist()

    assert counts("low-start", 0.8) == [True, True]
    assert counts("low-start", 0.6) == counts("always", 0.8) == counts("always") == [False, False]
    # At the first step its own mean says so: .9, then .5.
    assert counts("low-start") == [True, True]
    assert counts("low-start", now=0.1) == [False, True]


def test_without_shared_tokens_it_is_grpo():
    """No run, no penalty, no filter: the advantages of the group alone, of any size."""
    rows = [[1, 5], [2, 6, 7], [3], [4, 8], [1, 9]]
    batch = batch_of([3, 2], tokens=rows, entropy=torch.rand(10))
    advantage = SharedAffixAdvantage(entropy_penalty=0, entropy_limit=math.inf)
    rewards = doubles(1, 0, 0, 1, 0)
    assert advantage(batch, rewards)[0].equal(CentredAdvantage()(batch, rewards)[0])


def test_settings():
    """Entropies are asked for; all that is wrong is said at once."""
    assert SharedAffixAdvantage().needs == {"entropy", "entropies"}
    assert SharedAffixAdvantage(filter="always").needs == {"entropy"}
    with pytest.raises(SettingsError) as caught:
        SharedAffixAdvantage(positive_weight=-1, entropy_penalty=-1, epsilon=0)
    assert len(caught.value.problems) == 3
