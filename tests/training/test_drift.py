"""How far a policy has moved, measured on stored rollouts."""

import copy

import pytest
import torch

from optpo.data import embedded_model_path
from optpo.rollout import Rollout
from optpo.sampling.ballot import Ballot
from optpo.training.drift import drifts, take_probes
from optpo.training.loading import load_policy
from optpo.training.policy import Policy
from optpo.training.prompt_state import Probe
from optpo.training.settings import ModelSettings

PROMPTS = {"short": (5, 6, 7), "long": (8, 9)}


@pytest.fixture(scope="module")
def policy() -> Policy:
    assert embedded_model_path().exists()
    return load_policy(ModelSettings(device="cpu"), 1.0)


def rollout(name: str, index: int, tokens: tuple[int, ...]) -> Rollout:
    return Rollout(name, index, 0, PROMPTS[name], tokens, (0.0,) * len(tokens), "stop")


def ballots() -> list[Ballot]:
    asked = []
    for name, lengths in (("short", (3, 1, 4)), ("long", (300, 2))):
        ballot = Ballot(name, PROMPTS[name], classes=None)  # type: ignore[arg-type]
        ballot.rollouts = [
            rollout(name, index, tuple(range(4, 14)) * (length // 10) + (11,) * (length % 10))
            for index, length in enumerate(lengths)
        ]
        asked.append(ballot)
    return asked


def test_a_policy_that_stands_still_has_not_moved(policy: Policy) -> None:
    """The same weights give no drift but rounding; questions never asked have none at all."""
    probes = take_probes(policy, ballots(), 2)
    assert [len(probes[name]) for name in PROMPTS] == [2, 2]
    assert [len(probe.tokens) for probe in probes["long"]] == [300, 2]
    cut = take_probes(policy, ballots(), 2, longest=256)
    assert [len(probe.tokens) for probe in cut["long"]] == [256, 2]
    found = drifts(policy, PROMPTS, {**probes, "new": ()})
    assert list(found) == list(PROMPTS)
    assert max(found.values()) < 1e-5
    assert drifts(policy, PROMPTS, {"new": ()}) == {}


def test_drift_is_the_mean_change_a_token(policy: Policy) -> None:
    """Stored log-probs that are off by .3 on one of four tokens, by hand: .075 nats."""
    (probe,) = take_probes(policy, ballots()[:1], 1)["short"]
    longer = take_probes(policy, ballots()[:1], 2)["short"][1]
    moved = Probe(probe.tokens, (probe.logps[0] - 0.3, *probe.logps[1:]))
    found = drifts(policy, PROMPTS, {"short": (moved, longer)})
    assert found["short"] == pytest.approx(0.3 / 4, abs=1e-5)


def test_drift_sees_the_weights_move(policy: Policy) -> None:
    """A policy with other weights has drifted on what it once said."""
    probes = take_probes(policy, ballots(), 2)
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in other.trainable().values():
            parameter.mul_(1.05)
    assert min(drifts(other, PROMPTS, probes).values()) > 0.01
