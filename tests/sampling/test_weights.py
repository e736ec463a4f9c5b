"""What a rollout's vote weighs."""

import math

import pytest

from optpo.errors import EngineError, SettingsError
from optpo.rollout import Rollout
from optpo.sampling.weights import brevity_weight, likelihood_weight, weigh_by
from optpo.training.settings import RunSettings
from optpo.voting import FixedRule, OptpoRule


def rollout(logps: list[float]) -> Rollout:
    return Rollout("q3", 2, 0, (1,), (5,) * len(logps), tuple(logps), "stop")


def test_likelihood_is_the_geometric_mean_probability() -> None:
    """Probabilities 1/2 and 1/8: their geometric mean is 1/4; rounding never lifts it above 1."""
    assert likelihood_weight(rollout([math.log(0.5), math.log(0.125)])) == pytest.approx(0.25)
    assert likelihood_weight(rollout([1e-7, 0.0])) == 1


def test_without_log_probs_likelihood_names_the_rollout() -> None:
    """And the weights that need none."""
    with pytest.raises(EngineError, match=r"rollout 2 of question 'q3' .*'equal' and 'brevity'"):
        likelihood_weight(rollout([]))


def test_brevity_falls_evenly() -> None:
    """1 for one token, a half in the middle, 1 / max for the longest."""
    weights = [brevity_weight(rollout([0.0] * length), 8) for length in (1, 5, 8)]
    assert weights == [1, 0.5, 0.125]


def test_the_setting_names_the_function() -> None:
    """Each name has its function; equal votes need none."""
    four = rollout([0.0] * 4)
    assert weigh_by("equal", 8) is None
    assert [weigh(four) for name in ("likelihood", "brevity") if (weigh := weigh_by(name, 8))] == [
        1,
        0.625,
    ]


def test_a_rule_that_takes_no_weights_is_refused_them_with_the_reason() -> None:
    """The settings say so before a run begins; a rule that takes them is let pass."""
    with pytest.raises(SettingsError, match="takes no weights: its likelihood"):
        RunSettings(allocate=OptpoRule(), vote_weight="likelihood")
    assert RunSettings(allocate=FixedRule(), vote_weight="likelihood").vote_weight == "likelihood"
    with pytest.raises(SettingsError, match="equal, likelihood, brevity"):
        RunSettings(vote_weight="loud")  # type: ignore[arg-type]
