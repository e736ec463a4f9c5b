"""Checkpoints: after loading, a run goes on bit for bit as if it had never stopped."""

import copy

import pytest
import torch

from optpo.errors import RunDirectoryError
from optpo.objectives.clipped import ClippedObjective
from optpo.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from optpo.training.gradient import StepTargets
from optpo.training.policy import Policy
from optpo.training.update import behaviour, make_optimizer, update
from optpo.training.update_settings import UpdateSettings

SETTINGS = UpdateSettings(learning_rate=1e-3, value_learning_rate=1e-2)


def one_step(policy, optimizer, batch):
    _, values = behaviour(policy, SETTINGS, batch)
    ones = torch.linspace(-1, 1, int(batch.lengths.sum()))
    targets = StepTargets(ones, values_old=values, returns=ones if values is not None else None)
    update(policy, optimizer, ClippedObjective(), SETTINGS, batch, targets, lambda done: 1.0)


def fresh(policy, critic):
    twin = Policy(copy.deepcopy(policy.model), policy.tokenizer, policy.end_tokens)
    if critic:
        twin.add_value_head()
    return twin, make_optimizer(twin, SETTINGS)


def assert_identical(one, optimizer, other, other_optimizer):
    assert one.version == other.version
    for name, value in one.trainable().items():
        assert value.equal(other.trainable()[name]), name
    ours, theirs = optimizer.state_dict()["state"], other_optimizer.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    for number, entries in ours.items():
        assert entries.keys() == theirs[number].keys()
        for key, value in entries.items():
            assert value.dtype == theirs[number][key].dtype
            assert value.equal(theirs[number][key]), (number, key)


@pytest.mark.parametrize("critic", [False, True])
def test_going_on_equals_never_having_stopped(policy, ragged_batch, tmp_path, critic):
    """Weights, optimiser state, version and the loop's own state come back exactly, and the next
    step from them is the next step without the stop, bit for bit."""
    trained, optimizer = fresh(policy, critic)
    for _ in range(3):
        one_step(trained, optimizer, ragged_batch)
    state = {"ledger": {"tokens": 12}, "prompts": {"q": None}}
    save_checkpoint(tmp_path, trained, optimizer, Checkpoint(3, state))
    loaded, loaded_optimizer = fresh(policy, critic)
    assert load_checkpoint(tmp_path, loaded, loaded_optimizer) == Checkpoint(3, state)
    assert loaded.version == 3
    assert_identical(loaded, loaded_optimizer, trained, optimizer)
    one_step(trained, optimizer, ragged_batch)
    one_step(loaded, loaded_optimizer, ragged_batch)
    assert_identical(loaded, loaded_optimizer, trained, optimizer)
    assert any(
        not value.equal(other)
        for value, other in zip(loaded.model.parameters(), policy.model.parameters(), strict=True)
    )


def test_a_checkpoint_before_any_step(policy, tmp_path):
    """An optimiser that has no state yet is saved and loaded as such."""
    optimizer = make_optimizer(policy, SETTINGS)
    save_checkpoint(tmp_path, policy, optimizer, Checkpoint(0, {}))
    loaded, loaded_optimizer = fresh(policy, critic=False)
    assert load_checkpoint(tmp_path, loaded, loaded_optimizer) == Checkpoint(0, {})
    assert_identical(loaded, loaded_optimizer, policy, optimizer)


def test_the_newest_checkpoint_alone_is_kept(policy, tmp_path):
    """Older checkpoints go once the new one is whole; what a kill left half-written is ignored."""
    optimizer = make_optimizer(policy, SETTINGS)
    for step in (2, 9, 10, 99_999, 100_000):
        save_checkpoint(tmp_path, policy, optimizer, Checkpoint(step, {}))
        assert [entry.name for entry in tmp_path.iterdir()] == [f"step-{step:05d}"]
    # A kill after the new folder was put in place, before the old one was removed.
    (tmp_path / "step-100000").rename(tmp_path / "aside")
    save_checkpoint(tmp_path, policy, optimizer, Checkpoint(99_999, {}))
    (tmp_path / "aside").rename(tmp_path / "step-100000")
    (tmp_path / ".writing").mkdir()
    (tmp_path / ".writing" / "weights.safetensors").write_bytes(b"half")
    assert load_checkpoint(tmp_path, policy, optimizer).step == 100_000
    save_checkpoint(tmp_path, policy, optimizer, Checkpoint(100_001, {}))
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-100001"]


def test_without_a_checkpoint_there_is_none(policy, tmp_path):
    """A new run has none, whether its folder exists or not."""
    optimizer = make_optimizer(policy, SETTINGS)
    assert load_checkpoint(tmp_path, policy, optimizer) is None
    assert load_checkpoint(tmp_path / "checkpoints", policy, optimizer) is None


def test_the_checkpoint_of_another_model_is_refused(policy, tmp_path):
    """Weights that this policy does not have, or that have other shapes, are not loaded in part."""
    optimizer = make_optimizer(policy, SETTINGS)
    with_critic, critic_optimizer = fresh(policy, critic=True)
    save_checkpoint(tmp_path, with_critic, critic_optimizer, Checkpoint(1, {}))
    with pytest.raises(RunDirectoryError, match="another model"):
        load_checkpoint(tmp_path, policy, optimizer)
    before = {name: value.detach().clone() for name, value in with_critic.trainable().items()}
    with_critic.value_head = torch.nn.Linear(7, 1)
    save_checkpoint(tmp_path, with_critic, critic_optimizer, Checkpoint(2, {}))
    with_critic.add_value_head()
    with pytest.raises(RunDirectoryError, match="another model"):
        load_checkpoint(tmp_path, with_critic, critic_optimizer)
    for name, value in with_critic.trainable().items():
        assert value.equal(before[name]), name
