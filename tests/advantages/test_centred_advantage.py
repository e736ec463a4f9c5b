"""Advantages relative to a centre against worked numbers and plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from advantage_batches import batch_of, doubles
from hypothesis import given
from hypothesis import strategies as st

from optpo.advantages.beta_scale import beta_weights
from optpo.advantages.centred import CentredAdvantage
from optpo.errors import RewardError, SettingsError
from optpo.recipes import build_settings

GRPO = CentredAdvantage()
DR_GRPO = CentredAdvantage(scale="none")
RLOO = CentredAdvantage(centre="leave-one-out", scale="none")
POPULATION = CentredAdvantage(scale="population-std")
OPO = CentredAdvantage("token-mean", "none")
HAPO = CentredAdvantage("token-mean", "token-std")
REINFORCE = CentredAdvantage("none", "none")
REINFORCE_PLUS_PLUS = CentredAdvantage("none", "batch-tokens", epsilon=1e-8)
REINFORCE_BASELINE = CentredAdvantage("mean", "batch-tokens", epsilon=1e-8)
BNPO = CentredAdvantage(scale="beta")
SPO = CentredAdvantage("tracked", "batch", epsilon=1e-8)
REMAX = CentredAdvantage("greedy", "none")

# The dossier's reference set, section 1 (rewards and lengths; values from verl's own functions).
ONE_GROUP = [1, 0, 0, 1, 1, 0, 0, 0]
LENGTHS = [4, 8, 6, 4, 5, 9, 10, 2]
TWO_GROUPS = [[1, 0, 0, 0], [1, 1, 1, 0]]


@pytest.mark.parametrize(
    ("advantage", "right", "wrong"),
    [
        (GRPO, 1.2076, -0.7246),
        (POPULATION, 1.2910, -0.7746),
        (DR_GRPO, 0.625, -0.375),
        (RLOO, 0.7143, -0.4286),
        (REINFORCE, 1, 0),
        (REINFORCE_PLUS_PLUS, 1.6236, -0.6031),
        (REINFORCE_BASELINE, 1.6236, -0.6031),
        (OPO, 0.7292, -0.2708),
    ],
)
def test_one_group_of_the_reference_set(advantage, right, wrong):
    """On 3 right rollouts of 8: the published values."""
    batch, rewards = batch_of([8], LENGTHS), torch.tensor(ONE_GROUP, dtype=torch.float64)
    expected = torch.tensor([float(right if reward else wrong) for reward in ONE_GROUP])
    assert torch.allclose(advantage.of_rollouts(batch, rewards).float(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("advantage", "expected"),
    [
        (GRPO, [1.5, -0.5, -0.5, -0.5, 0.5, 0.5, 0.5, -1.5]),
        (RLOO, [1, -1 / 3, -1 / 3, -1 / 3, 1 / 3, 1 / 3, 1 / 3, -1]),
        (REINFORCE_BASELINE, [2.0773, *[-0.2968] * 3, *[0.8903] * 3, -1.4838]),
        (REINFORCE_PLUS_PLUS, [1.2707, *[-0.7624] * 3, *[1.2707] * 3, -0.7624]),
        (OPO, [0.875, *[-0.125] * 3, *[0.375] * 3, -0.625]),
    ],
)
def test_two_groups_of_the_reference_set(advantage, expected):
    """The published values on two groups of four."""
    rewards = torch.tensor(
        [reward for group in TWO_GROUPS for reward in group], dtype=torch.float64
    )
    found = advantage.of_rollouts(batch_of([4, 4], [2, 4, 6, 4, 3, 5, 2, 6]), rewards)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=1e-4)


ragged_rewards = st.lists(
    st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=6), min_size=1, max_size=5
)


@given(
    ragged_rewards,
    st.sampled_from(["mean", "leave-one-out"]),
    st.sampled_from(["std", "none"]),
)
def test_any_group_sizes_equal_a_loop(groups, centre, scale):
    """For groups of any size the advantages are what a loop over rollouts computes."""
    found = CentredAdvantage(centre, scale).of_rollouts(
        batch_of([len(group) for group in groups]),
        torch.tensor([reward for group in groups for reward in group], dtype=torch.float64),
    )
    expected = []
    for group in groups:
        for place, reward in enumerate(group):
            others = group[:place] + group[place + 1 :]
            if not others:
                expected.append(0.0)
                continue
            advantage = reward - np.mean(group if centre == "mean" else others)
            if scale == "std":
                advantage /= np.std(group, ddof=1) + 1e-6
            expected.append(advantage)
    assert np.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("advantage", [GRPO, DR_GRPO, RLOO, CentredAdvantage("leave-one-out")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_to_compare_is_zero(advantage, dtype):
    """A group of one, and a group whose rewards are all equal, have advantage 0."""
    rewards = torch.tensor([1, 0, 0, 0, 1, 1], dtype=dtype)
    found = advantage.of_rollouts(batch_of([1, 3, 2]), rewards)
    assert found.dtype == dtype
    assert found.tolist() == [0] * 6


@given(ragged_rewards, st.floats(-3, 3), st.floats(0.5, 4))
def test_shifting_and_scaling_rewards(groups, shift, factor):
    """A constant added to all rewards changes nothing; a factor scales the unscaled advantage."""
    batch = batch_of([len(group) for group in groups])
    rewards = torch.tensor([reward for group in groups for reward in group], dtype=torch.float64)
    plain = DR_GRPO.of_rollouts(batch, rewards)
    assert torch.allclose(DR_GRPO.of_rollouts(batch, rewards * factor + shift), plain * factor)


def test_every_token_gets_its_rollouts_advantage():
    """Advantages a token repeat the rollout's, end to end; there are no returns."""
    batch = batch_of([2, 2], [3, 1, 2, 2])
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0])
    advantages, returns = DR_GRPO(batch, rewards)
    assert returns is None
    assert advantages.tolist() == [0.5, 0.5, 0.5, -0.5, -0.5, -0.5, 0.5, 0.5]


@pytest.mark.parametrize("epsilon", [0, -1e-6])
def test_epsilon_must_be_positive(epsilon):
    """Without a positive epsilon equal rewards would divide nothing by nothing."""
    with pytest.raises(SettingsError, match="epsilon"):
        CentredAdvantage(epsilon=epsilon)


def test_the_greedy_rollout_as_centre():
    """ReMax: samples right, wrong, right, right against a right and against a wrong greedy one."""
    rewards = doubles(1, 0, 1, 1, 1, 0, 1, 1)
    batch = batch_of([4, 4], question_greedy=torch.tensor([1.0, 0.0]))
    assert REMAX.of_rollouts(batch, rewards).tolist() == [0, -1, 0, 0, 1, 0, 1, 1]
    reference = batch_of([8], LENGTHS, question_greedy=torch.ones(1))
    found = REMAX.of_rollouts(reference, torch.tensor(ONE_GROUP, dtype=torch.float64))
    assert found.tolist() == [0 if reward else -1 for reward in ONE_GROUP]


def test_the_published_code_of_remax():
    """Rewards discounted by the way to the end, and each token's divergence for itself."""
    logps, reference = doubles(-0.5, -1, -0.2, -0.1), doubles(-0.6, -0.8, -0.2, -0.3)
    batch = batch_of([1], [4], logps=logps, reference=reference, question_greedy=doubles(0.6))
    advantage = CentredAdvantage(
        "greedy", "none", gamma=0.99, kl_coefficient=0.05, kl_placement="token"
    )
    found, _ = advantage(batch, doubles(1))
    assert torch.allclose(found, doubles(0.38312, 0.40204, 0.396, 0.39), atol=1e-5)
    assert float(-(found * logps).mean()) == pytest.approx(0.17795, abs=1e-5)


@given(st.integers(0, 100), st.sampled_from([0.9, 1.0]), st.sampled_from(["to-go", "sequence"]))
def test_divergence_in_the_reward(seed, gamma, placement):
    """To-go every token is charged for itself and all later ones; sequence, the whole rollout
    before it is compared with the others."""
    generator = torch.Generator().manual_seed(seed)
    logps, reference = torch.rand(2, 9, generator=generator, dtype=torch.float64)
    rewards = torch.rand(3, generator=generator, dtype=torch.float64)
    batch = batch_of([3], [2, 4, 3], logps=logps, reference=reference)
    found, _ = CentredAdvantage(
        "leave-one-out", "none", gamma=gamma, kl_coefficient=0.3, kl_placement=placement
    )(batch, rewards)
    spans, expected = [range(2), range(2, 6), range(6, 9)], []
    ratios = (logps - reference).tolist()
    for span, reward in zip(spans, rewards.tolist(), strict=True):
        totals = [
            value - 0.3 * sum(ratios[k] for k in one) * (placement == "sequence")
            for value, one in zip(rewards.tolist(), spans, strict=True)
        ]
        own = reward - 0.3 * sum(ratios[k] for k in span) * (placement == "sequence")
        for t in span:
            owed = sum(gamma ** (k - t) * 0.3 * ratios[k] for k in span if k >= t)
            advantage = own - (sum(totals) - own) / 2
            expected.append(advantage * gamma ** (span[-1] - t) - owed * (placement == "to-go"))
    assert np.allclose(found, expected, atol=1e-10)


def test_without_a_centre_the_discounted_return_is_whitened():
    """REINFORCE++ with divergence in its reward: the whitened sum of token rewards to go."""
    logps, reference = doubles(-1, -2, -1, -0.5, -3), doubles(-1.5, -1, -1, -1, -1)
    batch = batch_of([2], [2, 3], logps=logps, reference=reference)
    found, _ = CentredAdvantage("none", "batch-tokens", kl_coefficient=0.1, epsilon=1e-8)(
        batch, doubles(1, 0)
    )
    to_go = np.array([1.05, 1.1, 0.15, 0.15, 0.2])
    assert np.allclose(found, (to_go - to_go.mean()) / to_go.std(ddof=1), atol=1e-6)


def test_the_tracked_value_as_centre_over_the_batch():
    """SPO: questions of one rollout each, against what was remembered, normalised together."""
    tracked = doubles(0.1, 0.5, 0.9, 0.02, 0.6, 0.3)
    batch = batch_of([1] * 6, [5, 1, 2, 9, 1, 1], question_tracked=tracked)
    rewards = doubles(1, 0, 1, 0, 1, 0)
    plain = CentredAdvantage("tracked", "none").of_rollouts(batch, rewards)
    assert torch.allclose(plain, doubles(0.9, -0.5, 0.1, -0.02, 0.4, -0.3))
    found = SPO.of_rollouts(batch, rewards)
    expected = doubles(1.5975, -1.1865, 0.0066, -0.2320, 0.6032, -0.7888)
    assert torch.allclose(found, expected, atol=1e-4)
    flipped = CentredAdvantage("tracked", "none").of_rollouts(batch, doubles(0, 0, 1, 0, 1, 0))
    assert (plain - flipped).tolist() == pytest.approx([1, 0, 0, 0, 0, 0])
    assert SPO.of_rollouts(batch_of([1], question_tracked=doubles(0.5)), doubles(1)).tolist() == [0]


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0],
         [0.6802, *[-0.2267] * 3, 0.3927, 0.3927, -0.3927, -0.3927, *[0.2267] * 3, -0.6802]),
        ([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1],
         [r * w for r, w in zip(
             [0.75, *[-0.25] * 3, 0.5, 0.5, -0.5, -0.5, *[0.25] * 3, -0.75, 0, 0, 0, 0],
             [*[1.0061] * 4, *[0.8949] * 4, *[0.8973] * 8], strict=True)]),
    ],
)  # fmt: skip
def test_the_beta_density_as_scale(rewards, expected):
    """BNPO's worked groups: where alpha and beta are 3/2 it is pi/8 GRPO; all right is 0."""
    batch = batch_of([4] * (len(rewards) // 4))
    found = BNPO.of_rollouts(batch, torch.tensor(rewards, dtype=torch.float64))
    assert np.allclose(found, expected, atol=2e-4)
    if len(rewards) == 12:
        by_pi = CentredAdvantage(scale="population-std", epsilon=1e-12).of_rollouts(
            batch, torch.tensor(rewards, dtype=torch.float64)
        )
        assert torch.allclose(found, torch.pi / 8 * by_pi, atol=1e-6)


def test_rates_that_are_not_halves_under_the_beta_density():
    """Success rates .1, .2, .9, .1 have the published weights."""
    rewards = torch.tensor(
        [float(place < right) for right in (1, 2, 9, 1) for place in range(10)], dtype=torch.float64
    )
    found = beta_weights(rewards, torch.arange(4).repeat_interleave(10), 4)
    assert torch.allclose(found, doubles(0.9752, 0.9531, 1.1002, 0.9752), atol=1e-4)


def test_a_solved_question_is_part_of_the_fit():
    """The recipe bnpo fits to all questions of the batch: rates .25, .5, .75 and 1 have the dossier's
    factors. Without the solved one, which has nothing to teach itself, they were those of 3/2, 3/2."""
    recipe = build_settings("bnpo")
    rewards = torch.tensor([float(n < right) for right in (1, 2, 3, 4) for n in range(4)])
    batch = replace(batch_of([4] * 4), scores=rewards)
    keep = recipe.select(batch, rewards)
    found = recipe.advantage.of_rollouts(batch.select(keep), rewards[keep])
    factors = torch.tensor([1.0061, 0.8949, 0.8973, 0]).repeat_interleave(4)
    rates = torch.tensor([0.25, 0.5, 0.75, 1]).repeat_interleave(4)
    assert torch.allclose(found, factors * (rewards - rates), atol=1e-4)


def test_solved_questions_count_in_the_whitening():
    """The recipe reinforce-plus-plus-baseline whitens over all tokens of the batch, those of a
    question whose scores agree among them."""
    recipe = build_settings("reinforce-plus-plus-baseline")
    rewards, lengths = torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 1]), [2, 4, 6, 4, 3, 5, 2, 6]
    batch = batch_of([4, 4], lengths)
    keep = recipe.select(batch, rewards)
    advantages, _ = recipe.advantage(batch.select(keep), rewards[keep])
    centred = (rewards - torch.tensor([0.25, 1]).repeat_interleave(4))[batch.token_rollouts]
    assert torch.allclose(advantages, (centred - centred.mean()) / centred.std(), atol=1e-5)


@pytest.mark.parametrize("sizes", [[2, 2], [4], [1]])
def test_equal_success_rates_leave_the_beta_density_flat(sizes):
    """The published code gives not a number where all rates are equal: here BNPO is Dr.GRPO."""
    rewards = torch.tensor([1.0, 0.0] * 2)[: sum(sizes)]
    batch = batch_of(sizes)
    assert BNPO.of_rollouts(batch, rewards).tolist() == (
        DR_GRPO.of_rollouts(batch, rewards).tolist()
    )


def test_the_beta_density_never_dips_in_the_middle():
    """Rates more spread than a uniform density's would fit parameters below 1; they are kept at 1."""
    rewards = doubles(0, 1, 0, 1, 1, 0)
    found = beta_weights(rewards, torch.tensor([0, 1, 2, 3, 4, 4]), 5)
    assert found.tolist() == [1] * 5
    found = beta_weights(rewards[:4], torch.arange(4), 4)
    assert found.tolist() == [1] * 4


def test_the_beta_density_is_of_rates():
    """A reward that is no share of success is refused: what it was, and what to do; exit code 1."""
    with pytest.raises(
        RewardError, match=r"from -1 to 1, but advantage\.scale beta .*such as"
    ) as it:
        BNPO.of_rollouts(batch_of([2]), torch.tensor([-1.0, 1.0]))
    assert it.value.exit_code == 1


def test_mean_and_deviation_over_the_tokens_of_a_group():
    """HAPO's part B: long rollouts count for more, the token sum is 0; equal lengths give GRPO's."""
    rewards, lengths = doubles(1, 0, 1, 0), [2, 4, 6, 8]
    found = HAPO.of_rollouts(batch_of([4], lengths), rewards)
    assert torch.allclose(found, doubles(1.2247, -0.8165, 1.2247, -0.8165), atol=1e-4)
    assert float((found * torch.tensor(lengths)).sum()) == pytest.approx(0, abs=1e-9)
    uneven = HAPO.of_rollouts(batch_of([4], [1, 20, 20, 20]), doubles(1, 0, 0, 0))
    assert float(uneven[0]) == pytest.approx(7.746, abs=1e-3)
    equal = batch_of([3, 1], [5] * 4)
    assert torch.allclose(HAPO.of_rollouts(equal, rewards), POPULATION.of_rollouts(equal, rewards))


@pytest.mark.parametrize("centre", ["mean", "leave-one-out", "token-mean"])
@pytest.mark.parametrize("scale", ["std", "population-std", "token-std", "none"])
def test_a_group_of_one_may_keep_its_reward(centre, scale):
    """With singleton reward its advantage is the reward, and nothing changes for the others."""
    batch, rewards = batch_of([1, 3]), doubles(0.75, 1, 0, 0)
    kept = CentredAdvantage(centre, scale, singleton="reward").of_rollouts(batch, rewards)
    without = CentredAdvantage(centre, scale).of_rollouts(batch, rewards)
    assert (float(kept[0]), float(without[0])) == (0.75, 0)
    assert kept[1:].equal(without[1:])


def test_equal_rewards_under_a_centre_of_elsewhere_are_not_blown_up():
    """All wrong where the greedy rollout was right: -1, not -1 divided by epsilon."""
    batch = batch_of([3], question_greedy=torch.ones(1))
    assert CentredAdvantage("greedy").of_rollouts(batch, torch.zeros(3)).tolist() == [-1] * 3
    tenths = torch.full((3,), 0.1)
    assert GRPO.of_rollouts(batch, tenths).tolist() == [0] * 3


@pytest.mark.parametrize("scale", ["batch", "batch-tokens"])
def test_equal_advantages_leave_a_batch_nothing(scale):
    """No rounding error is taken for a signal, however small epsilon is."""
    batch = batch_of([1] * 7, question_tracked=torch.full((7,), 0.3))
    advantage = CentredAdvantage("tracked", scale, epsilon=1e-12)
    assert advantage.of_rollouts(batch, torch.ones(7)).tolist() == [0] * 7
    assert set(advantage(batch, torch.ones(7))[0].tolist()) == {0}


@pytest.mark.parametrize("scale", ["batch", "batch-tokens"])
@given(ragged_rewards)
def test_batch_scales_whiten(scale, groups):
    """Over rollouts or tokens the advantages have mean 0 and deviation 1, or are all 0."""
    batch = batch_of([len(group) for group in groups])
    rewards = torch.tensor([reward for group in groups for reward in group], dtype=torch.float64)
    advantage = CentredAdvantage("none", scale, epsilon=1e-12)
    found = advantage.of_rollouts(batch, rewards)
    by_token, _ = advantage(batch, rewards)
    assert torch.allclose(by_token, found[batch.token_rollouts], atol=1e-9)
    found = by_token if scale == "batch-tokens" else found
    if float(rewards.max() - rewards.min()) > 0.01:
        assert float(found.mean()) == pytest.approx(0, abs=1e-6)
        assert float(found.std()) == pytest.approx(1, abs=1e-3)


def test_tokens_are_whitened_over_those_that_teach():
    """As under GAE: what a mask leaves out has no part in mean and deviation."""
    rewards = torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)
    taught = torch.tensor([1.0, 1, 1, 0, 1, 0, 0, 0])
    batch = batch_of([3], [3, 2, 3], taught=taught)
    found, _ = CentredAdvantage("none", "batch-tokens", epsilon=1e-12)(batch, rewards)
    among = found[taught.bool()]
    assert float(among.mean()) == pytest.approx(0, abs=1e-9)
    assert float(among.std()) == pytest.approx(1, abs=1e-6)


def test_needs():
    """A part asks for what its centre and its penalty read, and nothing else."""
    assert GRPO.needs == REINFORCE.needs == frozenset()
    assert SPO.needs == {"tracked"}
    assert CentredAdvantage("greedy", kl_coefficient=0.1).needs == {"greedy", "reference"}


def test_settings_out_of_range_are_named():
    """All that is wrong is said at once."""
    with pytest.raises(SettingsError) as caught:
        CentredAdvantage(epsilon=0, gamma=1.5, kl_coefficient=-1)
    assert len(caught.value.problems) == 3
