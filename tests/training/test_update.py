"""One update: the gradient of a plain loop, applied once, or not at all."""

import copy
from dataclasses import dataclass, replace

import pytest
import torch

from optpo.errors import SettingsError
from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.critic import CriticLoss
from optpo.objectives.supervised import SupervisedObjective
from optpo.training.gradient import StepTargets
from optpo.training.policy import Policy
from optpo.training.update import behaviour, make_optimizer, update
from optpo.training.update_settings import UpdateSettings

AGGREGATES = ["token-mean", "sequence-mean-token-mean", "sequence-mean-token-sum"]


def always(done):
    return 1.0


def advantages_of(batch):
    generator = torch.Generator().manual_seed(8)
    return torch.randn(batch.rollouts, generator=generator)[batch.token_rollouts]


def weights_of(policy):
    return {name: value.detach().clone() for name, value in policy.trainable().items()}


def assert_near(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=tolerance), name


def by_hand(policy, optimizer, batch, settings, aggregate):
    """One optimiser step on the clipped loss at ratio 1, rollout by rollout."""
    advantages, total = advantages_of(batch), 0.0
    tokens_in_all = int(batch.lengths.sum())
    for number in range(batch.rollouts):
        tokens = batch.tokens[batch.offsets[number] : batch.offsets[number + 1]]
        prompt = int(batch.prompt_lengths[number])
        logits = policy.model(tokens[None]).logits[0, prompt - 1 : -1]
        logps = logits.log_softmax(-1).gather(-1, tokens[prompt:, None])[:, 0]
        first = int(batch.completion_offsets[number])
        loss = -((logps - logps.detach()).exp() * advantages[first : first + len(logps)])
        if aggregate == "token-mean":
            loss = loss.sum() / tokens_in_all
        elif aggregate == "sequence-mean-token-mean":
            loss = loss.mean() / batch.rollouts
        else:
            loss = loss.sum() / batch.rollouts
        loss.backward()
        total += float(loss.detach())
    norm = torch.nn.utils.clip_grad_norm_(policy.model.parameters(), settings.gradient_clip)
    optimizer.step()
    return total, float(norm)


def plain_descent(policy):
    """Weights that move by the gradient itself, so that they show all of it."""
    parameters = list(policy.trainable().values())
    return torch.optim.SGD([{"params": parameters, "lr": 1.0, "base_lr": 1.0}])


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("gradient_clip", [0.01, 1e6])
def test_one_step_equals_a_loop_by_hand(policy, ragged_batch, aggregate, gradient_clip):
    """Loss, gradient norm and moved weights are those of a plain loop over rollouts, the norm
    clipped or not."""
    settings = UpdateSettings(gradient_clip=gradient_clip)
    policy.pass_tokens = 40
    other = Policy(copy.deepcopy(policy.model), policy.tokenizer, policy.end_tokens)
    loss, norm = by_hand(other, plain_descent(other), ragged_batch, settings, aggregate)
    metrics = update(
        policy,
        plain_descent(policy),
        ClippedObjective(aggregate=aggregate),
        settings,
        ragged_batch,
        StepTargets(advantages_of(ragged_batch)),
        always,
    )
    assert metrics["loss"] == pytest.approx(loss, abs=1e-5)
    assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    assert metrics["skipped_updates"] == 0
    assert policy.version == 1
    assert_near(weights_of(policy), weights_of(other), 2e-5)


def test_the_optimiser_is_adamw(policy, ragged_batch):
    """The step that settings make is torch's AdamW with their learning rate and weight decay, times
    the schedule's rate."""
    settings = UpdateSettings(learning_rate=2e-3, weight_decay=0.1)
    other = Policy(copy.deepcopy(policy.model), policy.tokenizer, policy.end_tokens)
    optimizer = torch.optim.AdamW(other.model.parameters(), lr=1e-3, weight_decay=0.1)
    by_hand(other, optimizer, ragged_batch, settings, "token-mean")
    targets = StepTargets(advantages_of(ragged_batch))
    update(
        policy,
        make_optimizer(policy, settings),
        ClippedObjective(),
        settings,
        ragged_batch,
        targets,
        lambda done: 0.5,
    )
    # Where a gradient is all rounding its sign, and with it Adam's step, may differ.
    for one, same in zip(policy.model.parameters(), other.model.parameters(), strict=True):
        differs = (one - same).abs() > 2e-5
        assert differs.float().mean() < 0.01


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_the_gradient_does_not_depend_on_the_passes(policy, ragged_batch, aggregate):
    """One pass over all rollouts or one pass each: the same update, for every aggregation."""
    outcomes = []
    for pass_tokens in (1, 30, 10_000):
        one = Policy(copy.deepcopy(policy.model), policy.tokenizer, (2,), pass_tokens=pass_tokens)
        optimizer = plain_descent(one)
        settings = UpdateSettings(gradient_clip=1e9)
        targets = StepTargets(advantages_of(ragged_batch))
        metrics = update(
            one,
            optimizer,
            ClippedObjective(aggregate=aggregate),
            settings,
            ragged_batch,
            targets,
            always,
        )
        outcomes.append((weights_of(one), metrics))
    for weights, metrics in outcomes[1:]:
        assert_near(weights, outcomes[0][0], 2e-5)
        assert metrics == pytest.approx(outcomes[0][1], abs=1e-4)


@dataclass(frozen=True)
class Poisoned:
    """An objective that spoils the loss, or only its gradient, of a token."""

    where: str
    aggregate = "token-mean"
    needs = frozenset()

    def __call__(self, batch):
        losses = -batch.logp
        if self.where == "loss":
            losses = torch.cat([losses[:-1], losses[-1:] * torch.nan])
        elif self.where == "gradient":
            # The square root of 0 is 0 with an infinite slope.
            losses = torch.cat([losses[:-1], (losses[-1:] - losses[-1:].detach()).sqrt()])
        elif self.where == "metric":
            return losses, {"kl": torch.full_like(losses, torch.inf)}
        return losses, {}


@pytest.mark.parametrize("where", ["loss", "gradient", "metric"])
def test_what_is_not_finite_moves_nothing(policy, ragged_batch, where):
    """A step whose loss or gradient is not finite leaves weights and optimiser state bit for bit,
    and the next step goes on as if it had not been."""
    settings, policy.pass_tokens = UpdateSettings(learning_rate=1e-3), 30
    targets = StepTargets(advantages_of(ragged_batch))
    twin = Policy(copy.deepcopy(policy.model), policy.tokenizer, (2,), pass_tokens=30)
    optimizer, twin_optimizer = make_optimizer(policy, settings), make_optimizer(twin, settings)
    good = SupervisedObjective()
    for one, its_optimizer in ((policy, optimizer), (twin, twin_optimizer)):
        update(one, its_optimizer, good, settings, ragged_batch, targets, always)
    weights = weights_of(policy)
    state = copy.deepcopy(optimizer.state_dict())
    metrics = update(policy, optimizer, Poisoned(where), settings, ragged_batch, targets, always)
    assert metrics["skipped_updates"] == 1
    assert "loss" not in metrics
    assert policy.version == 1
    for name, value in policy.trainable().items():
        assert value.equal(weights[name]), name
        assert value.grad is None
    for number, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            assert value.equal(state["state"][number][key]), (number, key)
    for one, its_optimizer in ((policy, optimizer), (twin, twin_optimizer)):
        update(one, its_optimizer, good, settings, ragged_batch, targets, always)
    for name, value in twin.trainable().items():
        assert value.equal(policy.trainable()[name]), name


class Recorder:
    """The clipped objective, keeping what it was shown."""

    aggregate = "token-mean"
    needs = frozenset()

    def __init__(self):
        self.seen = []
        self.objective = ClippedObjective()

    def __call__(self, batch):
        self.seen.append(replace(batch, logp=batch.logp.detach().clone()))
        return self.objective(batch)


@pytest.mark.parametrize("epochs", [1, 2])
def test_the_first_pass_is_on_policy(policy, ragged_batch, epochs):
    """At the first pass over fresh rollouts the ratio is exactly 1, whether old log-probs are
    stored for a second epoch or not; rounding at sampling never counts as a policy that moved."""
    settings = UpdateSettings(learning_rate=1e-2, epochs=epochs)
    logp_old, values = behaviour(policy, settings, ragged_batch)
    assert (logp_old is None) == (epochs == 1)
    assert values is None
    recorder = Recorder()
    targets = StepTargets(advantages_of(ragged_batch), logp_old)
    optimizer = make_optimizer(policy, settings)
    update(policy, optimizer, recorder, settings, ragged_batch, targets, always)
    assert len(recorder.seen) == epochs
    assert recorder.seen[0].logp.equal(recorder.seen[0].logp_old)
    if epochs == 2:
        assert not torch.allclose(recorder.seen[1].logp, recorder.seen[1].logp_old, atol=1e-3)


def test_stale_rollouts_keep_their_recorded_log_probs(policy, ragged_batch):
    """Rollouts of an earlier version are measured against what was recorded when they were drawn,
    fresh ones against the policy itself."""
    policy.version = 3
    versions = torch.where(torch.arange(ragged_batch.rollouts) % 3 == 0, 2, 3)
    batch = replace(ragged_batch, versions=versions)
    logp_old, _ = behaviour(policy, UpdateSettings(), batch)
    stale = (versions != 3)[batch.token_rollouts]
    own, _ = policy.score_all(batch)
    assert logp_old[stale].equal(batch.logps[stale])
    assert logp_old[~stale].equal(own[~stale])
    assert behaviour(policy, UpdateSettings(), replace(batch, versions=versions * 0 + 3)) == (
        None, None,
    )  # fmt: skip


def test_stale_rollouts_are_off_policy(policy, ragged_batch):
    """Where all rollouts are of the version before, the objective sets the policy against what was
    recorded: the ratio is not 1 even at the only pass."""
    policy.version = 1
    logp_old, values = behaviour(policy, UpdateSettings(), ragged_batch)
    assert values is None
    recorder, targets = Recorder(), StepTargets(advantages_of(ragged_batch), logp_old)
    optimizer = make_optimizer(policy, UpdateSettings())
    update(policy, optimizer, recorder, UpdateSettings(), ragged_batch, targets, always)
    (seen,) = recorder.seen
    assert sorted(seen.logp_old.tolist()) == sorted(ragged_batch.logps.tolist())
    assert not torch.allclose(seen.logp, seen.logp_old, atol=0.1)


def test_a_critic_needs_its_old_values(policy, ragged_batch):
    """With a critic, behaviour holds its values even where old log-probs could be left out."""
    policy.add_value_head()
    logp_old, values = behaviour(policy, UpdateSettings(), ragged_batch)
    assert logp_old is not None
    # A new critic says 0 everywhere.
    assert values.tolist() == [0] * int(ragged_batch.lengths.sum())


def test_the_critic_learns_at_its_own_rate(policy, ragged_batch):
    """The critic's parameters move by their own learning rate; the policy's by theirs."""
    policy.add_value_head()
    settings = UpdateSettings(learning_rate=1e-4, value_learning_rate=0.1, gradient_clip=1e9)
    logp_old, values = behaviour(policy, settings, ragged_batch)
    targets = StepTargets(
        advantages_of(ragged_batch),
        logp_old,
        values_old=values,
        returns=torch.ones_like(values),
    )
    before = weights_of(policy)
    optimizer = make_optimizer(policy, settings)
    rates = [0.5]
    metrics = update(
        policy, optimizer, ClippedObjective(), settings, ragged_batch, targets,
        lambda done: rates[done], critic=CriticLoss(clip=0),
    )  # fmt: skip
    assert metrics["value_loss"] == pytest.approx(0.5)
    moved = {
        name: float((value - before[name]).abs().max())
        for name, value in weights_of(policy).items()
    }
    # Adam's first step is the learning rate times the gradient's sign.
    assert moved["value_head.bias"] == pytest.approx(0.05, rel=1e-3)
    actor = [value for name, value in moved.items() if not name.startswith("value_head.")]
    assert max(actor) == pytest.approx(0.5e-4, rel=1e-2)


@pytest.mark.parametrize("minibatches", [3, 8, 11, 50])
def test_every_rollout_once_an_epoch(policy, ragged_batch, minibatches):
    """As many minibatches as asked for, or as there are rollouts, cut a shuffled epoch; the version
    counts optimiser steps; the rate is asked for with the steps done; the same version shuffles
    alike."""
    settings = UpdateSettings(epochs=2, minibatches=minibatches, learning_rate=1e-5)
    policy.pass_tokens = 1
    asked, orders = [], []
    for _ in range(2):
        recorder, policy.version = Recorder(), 0
        logp_old, _ = behaviour(policy, settings, ragged_batch)
        # Each rollout is recognised by an advantage of its own.
        own = torch.arange(ragged_batch.rollouts, dtype=torch.float32)
        update(
            policy,
            make_optimizer(policy, settings),
            recorder,
            settings,
            ragged_batch,
            StepTargets(own[ragged_batch.token_rollouts], logp_old),
            lambda done: asked.append(done) or 1.0,
        )
        orders.append([int(seen.advantages[0]) for seen in recorder.seen])
    rollouts = ragged_batch.rollouts
    steps = 2 * min(minibatches, rollouts)
    assert asked == [*range(steps)] * 2
    assert policy.version == steps
    for order in orders:
        assert sorted(order[:rollouts]) == sorted(order[rollouts:]) == list(range(rollouts))
    assert orders[0] == orders[1]
    assert orders[0][:rollouts] != orders[0][rollouts:]


def test_the_sampling_gap_shows_a_wrong_engine(policy, ragged_batch):
    """The gap is the largest difference between recorded and own log-probs of fresh rollouts before
    any step moved the policy: not diluted by later steps, not raised by stale rollouts."""
    own, _ = policy.score_all(ragged_batch)
    recorded = own.clone()
    last = ragged_batch.rollouts - 1
    recorded[-1] += 0.25
    recorded[0] += 4.0
    versions = torch.zeros(last + 1, dtype=torch.int64)
    versions[0] = -1
    batch = replace(ragged_batch, logps=recorded, versions=versions)
    settings = UpdateSettings(epochs=3, learning_rate=0.05)
    logp_old, _ = behaviour(policy, settings, batch)
    metrics = update(
        policy,
        make_optimizer(policy, settings),
        ClippedObjective(),
        settings,
        batch,
        StepTargets(advantages_of(batch), logp_old),
        always,
    )
    assert metrics["sampling_gap"] == pytest.approx(0.25, abs=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0}, {"value_learning_rate": 0}, {"weight_decay": -1},
        {"gradient_clip": 0}, {"epochs": 0}, {"minibatches": 0}, {"pass_tokens": 0},
        {"warmup": -1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong):
    """Each setting names itself and its range."""
    with pytest.raises(SettingsError, match=f"^{next(iter(wrong))} is"):
        UpdateSettings(**wrong)
