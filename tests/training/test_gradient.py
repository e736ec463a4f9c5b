"""Gradients of objectives, seen pass by pass or at once, and of what is added to them."""

import copy
from dataclasses import dataclass, replace

import pytest
import torch

from optpo.objectives.aggregate import token_weights
from optpo.objectives.balanced import BalancedObjective
from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.critic import CriticLoss
from optpo.objectives.discriminative import DiscriminativeObjective
from optpo.objectives.log_ratio_regression import LogRatioRegressionObjective
from optpo.objectives.one_token import OneTokenObjective
from optpo.objectives.pairwise import PairwiseObjective
from optpo.objectives.penalty import KlPenalty
from optpo.objectives.supervised import SupervisedObjective
from optpo.training.distributed import ALONE
from optpo.training.gradient import StepTargets, accumulate
from optpo.training.policy import Policy
from optpo.training.update import behaviour, make_optimizer, update
from optpo.training.update_settings import UpdateSettings


@dataclass(frozen=True)
class AllAtOnce:
    """An objective made to see all of an optimiser step, and the sizes it was shown."""

    inner: object
    seen: list

    aggregate = "token-mean"
    needs = frozenset({"minibatch"})

    def __call__(self, batch):
        self.seen.append(
            (len(batch.logp), batch.rollout_count, int(batch.rollout_groups.max()) + 1)
        )
        return self.inner(batch)


def moved(policy, batch, objective, *, critic, settings):
    """Weights after one update by plain descent, and its metrics."""
    one = Policy(copy.deepcopy(policy.model), policy.tokenizer, (2,), pass_tokens=30)
    if critic:
        one.add_value_head()
    parameters = list(one.trainable().values())
    optimizer = torch.optim.SGD([{"params": parameters, "lr": 1.0, "base_lr": 1.0}])
    logp_old, values = behaviour(one, settings, batch)
    generator = torch.Generator().manual_seed(8)
    targets = StepTargets(
        torch.randn(len(batch.logps), generator=generator),
        logp_old,
        values_old=values,
        returns=None if values is None else torch.ones_like(values),
    )
    added = {"critic": CriticLoss()} if critic else {}
    metrics = update(one, optimizer, objective, settings, batch, targets, lambda done: 0.1, **added)
    return one.trainable(), metrics


@pytest.mark.parametrize("critic", [False, True])
@pytest.mark.parametrize("epochs", [1, 2])
def test_seen_at_once_or_pass_by_pass(policy, ragged_batch, critic, epochs):
    """An objective over tokens gives the same update and metrics whether it is shown each forward
    pass or all of an optimiser step; then it sees whole rollouts, with their questions."""
    settings = UpdateSettings(epochs=epochs, gradient_clip=1e9)
    batch = replace(ragged_batch, versions=ragged_batch.versions - 1)
    plain, seen = ClippedObjective(), []
    apart, its_metrics = moved(policy, batch, plain, critic=critic, settings=settings)
    together, metrics = moved(
        policy, batch, AllAtOnce(plain, seen), critic=critic, settings=settings
    )
    for name, value in apart.items():
        assert torch.allclose(together[name], value, atol=2e-5), name
    assert metrics == pytest.approx(its_metrics, abs=1e-4)
    assert seen == [(len(batch.logps), batch.rollouts, batch.group_count)] * epochs


def test_an_objective_may_ask_for_logits(policy, ragged_batch):
    """One-token rollouts: without a penalty, at temperature 1, the loss is that of its closed form,
    the mean of -pi(x) ln pi(x), of the policy that made the logits."""
    logps, _ = policy.score_all(ragged_batch)
    objective = OneTokenObjective(temperature=1.0, beta=0.0)
    metrics = update(
        policy,
        make_optimizer(policy, UpdateSettings()),
        objective,
        UpdateSettings(),
        ragged_batch,
        StepTargets(torch.zeros(len(logps))),
        lambda done: 1.0,
    )
    assert metrics["loss"] == pytest.approx(float((-logps.exp() * logps).mean()), abs=1e-5)


def test_epochs_end_where_the_policy_has_strayed(policy, ragged_batch):
    """ESPO: a threshold no ratio stays under ends the step after one pass, one that none reaches
    never does, and the deviation is that of all tokens before the pass."""
    done = {}
    for most in (1e-9, 1e9, 0.0):
        settings = UpdateSettings(epochs=4, most_deviation=most, learning_rate=1e-3)
        one = Policy(copy.deepcopy(policy.model), policy.tokenizer, (2,))
        logp_old, _ = behaviour(one, settings, ragged_batch)
        targets = StepTargets(torch.ones(len(ragged_batch.logps)), logp_old)
        objective = ClippedObjective(gate="none")
        metrics = update(
            one, make_optimizer(one, settings), objective, settings, ragged_batch, targets,
            lambda done: 1.0,
        )  # fmt: skip
        done[most] = metrics["epochs"]
        assert one.version == metrics["epochs"]
    assert done == {1e-9: 1, 1e9: 4, 0.0: 4}


def test_the_critic_may_learn_alone(policy, ragged_batch):
    """In a warm-up step the policy's weights stay to the bit, and the critic's move."""
    policy.add_value_head()
    before = {name: value.detach().clone() for name, value in policy.trainable().items()}
    settings = UpdateSettings(learning_rate=1e-2)
    logp_old, values = behaviour(policy, settings, ragged_batch)
    ones = torch.ones_like(values)
    targets = StepTargets(ones, logp_old, values_old=values, returns=ones, critic_only=True)
    update(
        policy, make_optimizer(policy, settings), ClippedObjective(), settings, ragged_batch,
        targets, lambda done: 1.0, critic=CriticLoss(),
    )  # fmt: skip
    stayed = {name: value.equal(before[name]) for name, value in policy.trainable().items()}
    assert all(same == (not name.startswith("value_head")) for name, same in stayed.items())


def test_entropies_are_those_of_the_logits(policy, ragged_batch):
    """Pass by pass the entropy at every token is that of a plain softmax over the vocabulary."""
    policy.pass_tokens = 30
    found = policy.entropies(ragged_batch)
    scored = policy.score(ragged_batch, torch.arange(ragged_batch.rollouts))
    expected = torch.distributions.Categorical(logits=scored.logits).entropy()
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("count", [3, 10_000])
def test_heads_are_the_likeliest_tokens(policy, ragged_batch, count):
    """Pass by pass, as over all logits at once; all tokens where the vocabulary has fewer."""
    policy.pass_tokens = 30
    tokens, logps = policy.heads(ragged_batch, count)
    scored = policy.score(ragged_batch, torch.arange(ragged_batch.rollouts))
    logits = scored.logits.log_softmax(-1)
    expected = logits.sort(dim=-1, descending=True).values[:, :count]
    assert torch.allclose(logps, expected, atol=1e-5)
    assert torch.allclose(logits.gather(-1, tokens), logps, atol=1e-5)


EVERY = [
    ClippedObjective(aggregate="sequence-mean-token-mean"),
    BalancedObjective(),
    DiscriminativeObjective(),
    LogRatioRegressionObjective(),
    OneTokenObjective(),
    PairwiseObjective(),
    SupervisedObjective(),
]


def gradients(policy, batch, objective, penalty=None, critic=None, taught=None):
    """The gradient of one optimiser step by parameter, none where there is none, and its metrics."""
    one = Policy(copy.deepcopy(policy.model), policy.tokenizer, (2,), pass_tokens=30)
    one.value_head = copy.deepcopy(policy.value_head)
    generator = torch.Generator().manual_seed(3)
    count = len(batch.logps)
    columns = (torch.randn(count, generator=generator) for _ in range(4))
    advantages, logp_ref, values_old, returns = columns
    targets = StepTargets(
        advantages,
        batch.logps,
        batch.logps + 0.1 * logp_ref,
        values_old,
        returns.masked_fill(returns > 1, torch.nan),
        torch.rand(count, generator=generator),
        taught,
    )
    everyone = torch.arange(batch.rollouts)
    metrics, _, _ = accumulate(one, objective, batch, targets, everyone, ALONE, penalty, critic)
    return {name: value.grad for name, value in one.trainable().items()}, metrics


@pytest.mark.parametrize("objective", EVERY, ids=lambda objective: type(objective).__name__)
def test_every_objective_takes_a_penalty_and_trains_a_critic(policy, ragged_batch, objective):
    """Seen pass by pass or at once, of tokens or of whole rollouts: the gradient is the objective's
    plus that of the terms, weighted as its aggregate says, or as a mean over tokens where it is its
    own aggregate; without terms the critic has none."""
    policy.add_value_head()
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
    terms = KlPenalty(0.3), CriticLoss(0.7)
    aggregate = "token-mean" if objective.aggregate == "sum" else objective.aggregate
    nothing = NoLoss(aggregate)
    alone, its_metrics = gradients(policy, ragged_batch, objective)
    added, metrics_added = gradients(policy, ragged_batch, nothing, *terms)
    both, metrics = gradients(policy, ragged_batch, objective, *terms)
    for name, slope in both.items():
        expected = added[name] if alone[name] is None else alone[name] + added[name]
        assert torch.allclose(slope, expected, rtol=1e-3, atol=1e-4 * float(slope.abs().max()))
    assert alone["value_head.weight"] is None
    assert float(both["value_head.weight"].abs().max()) > 0
    assert metrics["loss"] == pytest.approx(its_metrics["loss"] + metrics_added["loss"], rel=1e-4)
    for name in ("kl", "value_loss"):
        assert name not in its_metrics
        assert metrics[name] == pytest.approx(metrics_added[name])


@dataclass(frozen=True)
class NoLoss:
    """An objective of 0."""

    aggregate: str
    needs = frozenset()

    def __call__(self, batch):
        return 0 * batch.logp, {}


@pytest.mark.parametrize("aggregate", ["token-mean", "sequence-mean-token-mean"])
def test_the_policy_learns_from_what_is_taught_and_the_critic_from_all(
    policy, ragged_batch, aggregate
):
    """Untaught tokens have no share in the policy's loss, not in its divisor either, nor in the
    penalty; a rollout without any that is taught is not counted; the critic sees them all."""
    policy.add_value_head()
    generator = torch.Generator().manual_seed(5)
    taught = torch.rand(len(ragged_batch.logps), generator=generator) < 0.6
    taught[ragged_batch.token_rollouts == 2] = False
    objective = ClippedObjective(aggregate=aggregate)
    found, metrics = gradients(policy, ragged_batch, objective, KlPenalty(0.5), taught=taught)
    lengths = torch.bincount(ragged_batch.token_rollouts[taught])
    weights = torch.zeros(len(taught))
    weights[taught] = token_weights(lengths[lengths > 0], aggregate)
    by_hand, _ = gradients(policy, ragged_batch, Weighted(objective, weights), KlPenalty(0.0))
    with_penalty = Weighted(NoLoss(aggregate), weights, KlPenalty(0.5))
    of_penalty, _ = gradients(policy, ragged_batch, with_penalty)
    for name, slope in found.items():
        if slope is not None:
            assert torch.allclose(slope, by_hand[name] + of_penalty[name], rtol=1e-3, atol=1e-5)
    nothing, all_tokens = NoLoss(aggregate), torch.ones_like(taught)
    some, _ = gradients(policy, ragged_batch, nothing, critic=CriticLoss(), taught=taught)
    every, _ = gradients(policy, ragged_batch, nothing, critic=CriticLoss(), taught=all_tokens)
    assert torch.allclose(some["value_head.weight"], every["value_head.weight"])
    assert metrics["loss"] != 0


class Weighted:
    """A loss that is weighted by hand, seen at once so that its tokens are in their order."""

    aggregate = "sum"
    needs = frozenset({"minibatch", "reference"})

    def __init__(self, loss, weights, penalty=None):
        self.loss, self.weights, self.penalty = loss, weights, penalty

    def __call__(self, batch):
        losses = self.loss(batch)[0]
        if self.penalty is not None:
            losses = losses + self.penalty(batch)[0]
        return losses * self.weights, {}


def test_minibatches_leave_questions_whole_where_rollouts_are_compared(policy, ragged_batch):
    """For an objective that sees all of an optimiser step every question is in one of them; without
    that rollouts are dealt out one by one."""
    seen = []
    settings = UpdateSettings(minibatches=3, learning_rate=1e-6)
    logp_old, _ = behaviour(policy, settings, ragged_batch)
    targets = StepTargets(torch.ones(len(ragged_batch.logps)), logp_old)
    update(
        policy, make_optimizer(policy, settings), AllAtOnce(ClippedObjective(), seen), settings,
        ragged_batch, targets, lambda done: 1.0,
    )  # fmt: skip
    # Groups of 3, 1, 5 and 2 rollouts in three parts: two of one question, one of two.
    assert sorted(groups for _, _, groups in seen) == [1, 1, 2]
    assert sum(rollouts for _, rollouts, _ in seen) == 11
