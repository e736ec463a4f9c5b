"""Who competes: every rule of the library and every peer, each at all its levels."""

import importlib.util
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from optpo.voting import (
    BetaRule,
    CurtailedRule,
    Decisions,
    DirichletRule,
    EprocessRule,
    FixedRule,
    LeadRule,
    OptpoRule,
    PprRule,
    PredictiveRule,
    Tallies,
    WindowRule,
)
from optpo.voting.rule import AtCap, conclude_many

INSTALL = """pip install --no-deps AdaptiveConsistency==1.0.0 consol==0.3.0
pip install pydantic"""

ERRORS = tuple(float(error) for error in np.geomspace(0.45, 1e-5, 28))
"""Levels of every contender that has one between 0 and 1: the error, or 1 less the confidence."""

Sweep = Sequence[Any]
"""The settings of one contender from hasty to patient, each a rule that `replay` can run."""


@dataclass(frozen=True, eq=False)
class Contender:
    """Whatever says of a standing whether it would stop there, as a rule that `replay` can run.

    Attributes:
        stops: (questions, votes + 1) whether it would, of the standings of these tallies.
        floor: fewest votes.
        cap: most votes.
    """

    claims: ClassVar[None] = None
    refuses: ClassVar[Mapping[str, str]] = {}
    at_cap: ClassVar[AtCap] = "abstain"

    stops: Callable[[Tallies], NDArray[np.bool_]]
    floor: int = 1
    cap: int = 64

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say of many questions after every vote whether it is over."""
        sure = self.stops(tallies)
        none = np.zeros(sure.shape)
        return conclude_many(self, tallies, sure=sure, confidence=none, log_evidence=none)


def our_rules() -> dict[str, Sweep]:
    """The rules of the library that need no recorded votes."""
    posterior: dict[str, Any] = {"statistic": "posterior"}
    estimated = posterior | {"p0_from": "votes", "candidates": None}
    return {
        "fixed": [FixedRule(votes) for votes in (*range(1, 16), *range(16, 65, 2))],
        "optpo": [OptpoRule(error=error) for error in ERRORS],
        "optpo, posterior": [OptpoRule(error=error, **posterior) for error in ERRORS],
        "optpo, p0 from votes": [OptpoRule(error=error, **estimated) for error in ERRORS],
        "lead": [LeadRule(by) for by in range(1, 29)],
        "beta": [BetaRule(1 - error) for error in ERRORS],
        "beta, prior 0 : 1": [BetaRule(1 - error, 0.0, 1.0) for error in ERRORS],
        "beta, prior 2 : 3": [BetaRule(1 - error, 2.0, 3.0) for error in ERRORS],
        "dirichlet": [DirichletRule(1 - error) for error in ERRORS],
        "predictive": [PredictiveRule(error) for error in ERRORS],
        "predictive, t 1": [PredictiveRule(error, concentration=1.0) for error in ERRORS],
        "curtailed": [CurtailedRule()],
        "ppr": [PprRule(error) for error in ERRORS],
        "eprocess": [EprocessRule(error) for error in ERRORS],
    }


def peers() -> dict[str, Sweep]:
    """The peers whose decision is a function of the votes of the two first answers, and ESC.

    ConSol's two tests are swept around the values they are shipped with (the margin that its beta
    leaves to 1 - alpha), and in the form of the textbook, alpha = beta.
    """
    from adaptive_consistency import BetaStoppingCriteria

    models = consol_models()

    def adaptive_beta(error: float) -> Contender:
        criterion = BetaStoppingCriteria(1 - error)
        return Contender(by_pair(lambda a, b: criterion.should_stop(answers(a, b))["stop"]))

    def consol(model: Any) -> Contender:
        return Contender(by_pair(model.test))

    sprt, msprt = models.SprtConfidenceModel, models.MsprtConfidenceModel
    bayesian, p_value = models.BayesianPosteriorConfidenceModel, models.PValueConfidenceModel
    sweeps: dict[str, Sweep] = {
        "AdaptiveConsistency Beta": [adaptive_beta(error) for error in ERRORS],
        "ConSol SPRT": [consol(sprt(beta=0.95 - 0.8e-5 * step)) for step in range(1, 29)],
        "ConSol mSPRT": [consol(msprt(beta=0.95 - 2e-5 * step)) for step in range(1, 29)],
        "ConSol mSPRT, uniform": [
            consol(msprt(priori_alpha=1, priori_beta=1, alpha=error, beta=error))
            for error in ERRORS
        ],
        "ConSol p-value": [consol(p_value(pvalue_threshold=error)) for error in ERRORS],
        "ConSol Bayes, uniform": [
            consol(bayesian(confidence_threshold=1 - error)) for error in ERRORS
        ],
        "ConSol Bayes, Jeffreys": [
            consol(bayesian(confidence_threshold=1 - error, priori="jeffreys")) for error in ERRORS
        ],
        "ESC": [WindowRule(window) for window in range(1, 21)],
    }
    for p1 in (0.6, 0.7, 0.8):
        sweeps[f"ConSol SPRT, p1 {p1}"] = [
            consol(sprt(p1=p1, alpha=error, beta=error)) for error in ERRORS
        ]
    return sweeps


def adaptive_dirichlet() -> Sweep:
    """AdaptiveConsistency's Dirichlet criterion; its Monte Carlo estimate is drawn once a standing.

    A standing is the votes of its five first answers: all that the criterion looks at.
    """
    criterion = dirichlet_criterion()

    @cache
    def probability(votes: tuple[int, ...]) -> float:
        return float(criterion.should_stop(answers(*votes))["prob"])

    # The sum is too coarse for levels beyond; what the last one stops is over for all of them.
    thresholds = [1 - error for error in ERRORS if error >= 0.005]

    def stops(threshold: float, tallies: Tallies) -> NDArray[np.bool_]:
        chance = np.zeros(tallies.total.shape)
        live = np.ones(len(tallies), dtype=bool)
        for n, scores in enumerate(tallies.scores()):
            for row in np.flatnonzero(live & (tallies.leader[:, n] >= 0)):
                top = -np.sort(-scores[row])[:5]
                chance[row, n] = probability(tuple(int(votes) for votes in top if votes))
            live &= chance[:, n] < thresholds[-1]
        return chance >= threshold

    return [
        Contender(lambda tallies, threshold=threshold: stops(threshold, tallies))
        for threshold in thresholds
    ]


def dirichlet_criterion() -> Any:
    """AdaptiveConsistency's Dirichlet criterion, made to work with a NumPy of today.

    As it comes, its Monte Carlo step multiplies scalar and array ranges in one list, which NumPy
    refuses since 1.24: it prints an error and never stops once three answers are seen. Here the
    outermost range is an array too; nothing else changes.
    """
    from adaptive_consistency import DirichletStoppingCriteria

    class Repaired(DirichletStoppingCriteria):
        def integrate_mcs(self, f: Any, limits: Any, N: int = 10000) -> Any:  # noqa: N803
            *inner, outermost = limits
            low, high = outermost()
            return super().integrate_mcs(f, [*inner, lambda: [low, np.full(N, high)]], N)

    return Repaired()


def by_pair(test: Callable[[int, int], Any]) -> Callable[[Tallies], NDArray[np.bool_]]:
    """A test of the votes of the two first answers, asked once a pair and not before a first vote.

    An unparsed vote is none for the peers: it costs a vote, and is not shown to them.
    """
    asked = cache(lambda first, second: bool(first and test(first, second)))

    def stops(tallies: Tallies) -> NDArray[np.bool_]:
        first, second = tallies.leader_votes, tallies.runner_up_votes
        size = 1 + int(first.max())
        table = np.zeros(size * size, dtype=np.bool_)
        for pair in np.unique(first * size + second).tolist():
            table[pair] = asked(*divmod(pair, size))
        return table[first * size + second]

    return stops


def answers(*votes: int) -> list[int]:
    """So many answers of each class, as the peers take them."""
    return list(Counter(dict(enumerate(votes))).elements())


def consol_models() -> ModuleType:
    """ConSol's confidence models alone: its package imports LangChain, of which they use nothing."""
    package = importlib.util.find_spec("consol")
    place = Path((package.submodule_search_locations or [""])[0]) / "confidence_models.py"
    spec = importlib.util.spec_from_file_location("consol_confidence_models", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def missing_peers() -> list[str]:
    """The peers that are not installed here."""
    names = ("adaptive_consistency", "consol", "pydantic")
    return [name for name in names if importlib.util.find_spec(name) is None]
