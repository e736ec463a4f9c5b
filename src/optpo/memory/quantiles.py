"""Two quantiles of the returns of bundles of questions, followed over the run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from optpo.advantages.bundled_risk import BundledRiskAdvantage, quantile_step
from optpo.batch import RolloutBatch
from optpo.errors import SettingsError
from optpo.memory.protocol import Notes
from optpo.needs import Need

NAMES = ("low quantile", "high quantile")
"""What is noted of the run, and how `question_values` calls it."""


@dataclass(frozen=True)
class QuantileMemory:
    """RiskPO's online quantiles (2510.00911), of the run as a whole.

    Each step moves the quantiles of levels `low` and `high` by `rate` towards those of its bundles'
    returns (`quantile_step`). They begin at those of the first step's returns, by which that step is
    itself measured; `first` zero begins at 0, as the published script does (which follows 19 levels)
    and which many steps pass before any bundle is worth more than another.
    Bundles are those of `BundledRiskAdvantage`, so `questions`, `low`, `high`, `pairing` and `seed`
    must be the same there; they are made of all rollouts that have a reward, also of those that are
    not selected.

    Raises SettingsError for a rate that is not above 0, and what `BundledRiskAdvantage` refuses.
    """

    questions: int = 5
    low: float = 0.2
    high: float = 0.8
    rate: float = 0.1
    first: Literal["returns", "zero"] = "returns"
    pairing: Literal["random", "index"] = "random"
    seed: int = 0

    gives: ClassVar[frozenset[Need]] = frozenset({"quantiles"})
    initial_rollouts: ClassVar[int] = 0
    forgets: ClassVar[bool] = False

    def __post_init__(self) -> None:
        problems = []
        try:
            self._bundling()
        except SettingsError as error:
            problems += error.problems
        if not 0 < self.rate < float("inf"):
            problems.append(f"rate is {self.rate}; it must be above 0")
        if problems:
            raise SettingsError(problems)

    def begin(self, rewards: Sequence[float]) -> dict[str, float]:
        """Nothing is noted of a question."""
        return {}

    def recall(self, past: Sequence[Notes], run: Notes) -> dict[str, Tensor]:
        """The `NAMES`, (G,) float32 each and the same for all questions; not a number while unknown."""
        unknown = 0.0 if self.first == "zero" else torch.nan
        return {name: torch.full((len(past),), run.get(name, unknown)) for name in NAMES}

    def remember(
        self,
        past: Sequence[Notes],
        run: Notes,
        batch: RolloutBatch,
        rewards: Tensor,
        drifts: Sequence[float | None],
    ) -> tuple[list[dict[str, float]], dict[str, float]]:
        """The run's quantiles with this step's returns; unchanged where nothing was rewarded."""
        nothing: list[dict[str, float]] = [{} for _ in past]
        given = ~rewards.isnan()
        if not given.any():
            return nothing, dict(run)
        bundling = self._bundling()
        bundles, _ = bundling.bundles(batch.select(given))
        returns = bundling.returns_of(rewards[given].double(), bundles)
        levels = (self.low, self.high)
        if self.first == "returns" and NAMES[0] not in run:
            found = torch.quantile(returns, torch.tensor(levels, dtype=torch.float64))
            return nothing, {**run, **dict(zip(NAMES, found.tolist(), strict=True))}
        before = torch.tensor([run.get(name, 0.0) for name in NAMES], dtype=torch.float64)
        low, high = (
            float(quantile_step(quantile, level, returns, self.rate))
            for quantile, level in zip(before, levels, strict=True)
        )
        return nothing, {**run, NAMES[0]: low, NAMES[1]: high}

    def _bundling(self) -> BundledRiskAdvantage:
        return BundledRiskAdvantage(
            self.questions, self.low, self.high, pairing=self.pairing, seed=self.seed
        )
