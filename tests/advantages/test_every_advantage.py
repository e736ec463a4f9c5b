"""What holds for every advantage part; a new one must join `PARTS`."""

import pytest
import torch
from advantage_batches import batch_of
from hypothesis import given
from hypothesis import strategies as st

from optpo.advantages.bundled_risk import BundledRiskAdvantage
from optpo.advantages.centred import CentredAdvantage
from optpo.advantages.gae import GaeAdvantage
from optpo.recipes.registry import part_class, parts

SCALES = ("std", "population-std", "token-std", "beta", "batch", "batch-tokens", "none")
CENTRES = ("mean", "leave-one-out", "token-mean", "greedy", "tracked", "none")

PARTS = {name: part_class("advantage", name)() for name in parts()["advantage"]} | {
    f"{centre} over {scale}": CentredAdvantage(centre, scale)
    for centre in CENTRES
    for scale in SCALES
}
PARTS |= {
    "gae, cuts held": GaeAdvantage(cut="hold", returns="monte-carlo", kl_coefficient=0.1),
    "gae, guided by actions": GaeAdvantage(guide_coefficient=0.1, action_token=3, gamma=0.9),
    "centred, discounted": CentredAdvantage(gamma=0.9, kl_coefficient=0.1),
    "bundled by the code": BundledRiskAdvantage(mixing="code", scale="std", credit="mean"),
}
ACROSS_GROUPS = {
    name
    for name, part in PARTS.items()
    if isinstance(part, BundledRiskAdvantage)
    or getattr(part, "whiten", False)
    or getattr(part, "scale", "") in ("batch", "batch-tokens", "beta")
}


def filled(sizes, seed, dtype=torch.float64, unfinished=(0,)):
    """A ragged batch with all that a part can ask for, and rewards of 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(sizes)
    lengths = torch.randint(1, 6, (count,), generator=generator).tolist()
    tokens = [torch.randint(1, 5, (n,), generator=generator).tolist() for n in lengths]

    def some(number):
        return torch.rand(number, generator=generator, dtype=dtype)

    batch = batch_of(
        sizes, tokens=tokens, logps=-some(sum(lengths)), unfinished=unfinished, longest=8,
        value=some(sum(lengths)), reference=-some(sum(lengths)), guide=-some(sum(lengths)),
        entropy=some(sum(lengths)), question_greedy=some(len(sizes)).round(),
        question_tracked=some(len(sizes)), question_low_quantile=torch.full((len(sizes),), 1.0),
        question_high_quantile=torch.full((len(sizes),), 3.0),
        question_first_mean_entropy=torch.full((len(sizes),), 0.5),
    )  # fmt: skip
    return batch, some(count).round()


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [[1], [1, 1, 1], [4, 4], [1, 5, 2, 7]], ids=str)
def test_shapes_and_dtypes(name, dtype, sizes):
    """One finite advantage a completion token in the dtype of the rewards; returns too, if any,
    but for rollouts whose cut is held."""
    batch, rewards = filled(sizes, 0, dtype)
    advantages, returns = PARTS[name](batch, rewards)
    assert advantages.shape == batch.logps.shape
    assert advantages.dtype == dtype
    assert advantages.isfinite().all()
    assert ("critic" in PARTS[name].needs) == (returns is not None)
    if returns is not None:
        assert (returns.shape, returns.dtype) == (batch.logps.shape, dtype)
        held = batch.unfinished[batch.token_rollouts] & (getattr(PARTS[name], "cut", "") == "hold")
        assert returns.isfinite().equal(~held)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_equal_rewards_are_survived(name, reward):
    """All right or all wrong: no number that is none, and none that epsilon has blown up."""
    batch, rewards = filled([1, 3, 2], 1)
    advantages, _ = PARTS[name](batch, torch.full_like(rewards, reward))
    assert float(advantages.abs().max()) < 20


@pytest.mark.parametrize("name", sorted(PARTS.keys() - ACROSS_GROUPS))
@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.integers(0, 30))
def test_a_question_does_not_see_the_others(name, sizes, seed):
    """The first question has the advantages that it has alone."""
    batch, rewards = filled(sizes, seed)
    first = batch.groups == 0
    together, _ = PARTS[name](batch, rewards)
    alone, _ = PARTS[name](batch.select(first), rewards[first])
    assert torch.allclose(together[: len(alone)], alone)


@pytest.mark.parametrize("name", PARTS)
def test_rewards_and_batch_stay_as_they_were(name):
    """A part changes nothing that it is given."""
    batch, rewards = filled([2, 3, 1], 2)
    before = [rewards.clone(), *(values.clone() for values in batch.token_values.values())]
    PARTS[name](batch, rewards)
    after = [rewards, *batch.token_values.values()]
    assert all(one.equal(other) for one, other in zip(before, after, strict=True))
