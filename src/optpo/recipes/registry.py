"""The parts a stage can be filled by, and the names that recipes call them."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any

from optpo.errors import SettingsError
from optpo.recipes.nearest import did_you_mean
from optpo.stopping_rules import RULES

ENTRY_POINT_GROUP = "optpo.parts"
"""Where other packages name parts of theirs; its name is `stage.part`, as `select.decided`."""

_SHIPPED = {
    "prompts": {
        "uniform": "optpo.training.prompts:UniformPrompts",
        "dynamic": "optpo.training.prompts:DynamicPrompts",
        "prioritized": "optpo.training.prompts:PrioritizedPrompts",
    },
    "allocate": RULES,
    "memory": {
        "none": "optpo.memory.none:NoMemory",
        "values": "optpo.memory.values:ValueMemory",
        "shortest": "optpo.memory.shortest:ShortestMemory",
        "quantiles": "optpo.memory.quantiles:QuantileMemory",
        "moments": "optpo.memory.moments:MomentsMemory",
        "entropies": "optpo.memory.entropies:EntropyMemory",
    },
    "reward": {
        "majority": "optpo.rewards.majority:MajorityReward",
        "verified": "optpo.rewards.verified:VerifiedReward",
        "soft-share": "optpo.rewards.soft_share:SoftShareReward",
        "leave-one-out": "optpo.rewards.leave_one_out:LeaveOneOutReward",
        "selective": "optpo.rewards.selective:SelectiveReward",
        "share-weights": "optpo.rewards.share_weights:ShareWeightReward",
    },
    "shape": {
        "none": "optpo.shapes.none:NoShape",
        "overlong": "optpo.shapes.overlong:OverlongShape",
        "history": "optpo.shapes.history:HistoryShape",
        "budget": "optpo.shapes.budget:BudgetShape",
        "trigger": "optpo.shapes.trigger:TriggerShape",
        "running": "optpo.shapes.running:RunningShape",
    },
    "select": {
        "decided": "optpo.selection.decided:DecidedSelection",
        "agreeing": "optpo.selection.decided:AgreeingSelection",
        "all": "optpo.selection.decided:AnySelection",
    },
    "advantage": {
        "centred": "optpo.advantages.centred:CentredAdvantage",
        "gae": "optpo.advantages.gae:GaeAdvantage",
        "steps": "optpo.advantages.steps:StepAdvantage",
        "bundled-risk": "optpo.advantages.bundled_risk:BundledRiskAdvantage",
        "shared-affixes": "optpo.advantages.shared_affixes:SharedAffixAdvantage",
        "budgeted": "optpo.advantages.budgeted:BudgetedAdvantage",
        "decoupled": "optpo.advantages.decoupled:DecoupledAdvantage",
    },
    "mask": {
        "none": "optpo.masks.none:NoMask",
        "decision": "optpo.masks.decision:DecisionMask",
    },
    "objective": {
        "clipped": "optpo.objectives.clipped:ClippedObjective",
        "truncated": "optpo.objectives.truncated:TruncatedObjective",
        "divergence": "optpo.objectives.divergence:DivergenceObjective",
        "balanced": "optpo.objectives.balanced:BalancedObjective",
        "heterogeneous": "optpo.objectives.heterogeneous:HeterogeneousObjective",
        "pairwise": "optpo.objectives.pairwise:PairwiseObjective",
        "discriminative": "optpo.objectives.discriminative:DiscriminativeObjective",
        "one-token": "optpo.objectives.one_token:OneTokenObjective",
        "log-ratio-regression": (
            "optpo.objectives.log_ratio_regression:LogRatioRegressionObjective"
        ),
        "supervised": "optpo.objectives.supervised:SupervisedObjective",
    },
}
"""Where each part lives, so that naming it loads nothing; the first of a stage is its default."""

_OFFERED = {
    "prompts": ("needs", "questions_per_step", "most_refills", "suffixes", "choose"),
    "memory": ("gives", "initial_rollouts", "forgets", "begin", "recall", "remember"),
    "reward": ("needs", "__call__"),
    "shape": ("needs", "__call__"),
    "select": ("needs", "__call__"),
    "advantage": ("needs", "__call__"),
    "mask": ("__call__",),
    "objective": ("needs", "aggregate", "__call__"),
}
"""What a stage's part must have, lest a run find out after it has sampled."""

STAGES = tuple(_SHIPPED)
"""The stages that are filled by a part, in the order of a step."""


@cache
def parts() -> Mapping[str, Mapping[str, str]]:
    """Every stage's parts by name, each as `module:class`: those of optpo, then other packages'.

    Raises:
        SettingsError: another package names a stage that does not exist, or a part that does.
    """
    # Takes longer to load than all else that reading a recipe needs.
    from importlib.metadata import entry_points

    found = {stage: dict(named) for stage, named in _SHIPPED.items()}
    problems = []
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        stage, _, name = entry.name.partition(".")
        who = f"the entry point {entry.name!r} ({entry.value})"
        if stage not in found or not name:
            problems.append(
                f"{who} must be called stage.part, with a stage out of {', '.join(STAGES)}"
                f"{did_you_mean(stage, STAGES)}"
            )
        elif name in found[stage]:
            problems.append(f"{who} takes the name of {found[stage][name]}; give it another")
        else:
            found[stage][name] = entry.value
    if problems:
        raise SettingsError(problems)
    return MappingProxyType({stage: MappingProxyType(named) for stage, named in found.items()})


def default_part(stage: str) -> str:
    """The name of the part that fills a stage where nothing is said."""
    return next(iter(_SHIPPED[stage]))


def part_class(stage: str, name: object) -> type[Any]:
    """The dataclass of a part's settings; loads what it needs.

    Raises:
        SettingsError: the stage has no such part, or another package's cannot be loaded or used.
    """
    named = parts()[stage]
    if not isinstance(name, str) or name not in named:
        raise SettingsError(
            [f"part is {name!r}; it must be one of {', '.join(named)}{did_you_mean(name, named)}"]
        )
    try:
        part = resolve_name(named[name])
    except (ImportError, AttributeError) as error:
        if name in _SHIPPED[stage]:
            raise
        raise SettingsError([f"part {name!r} ({named[name]}) cannot be loaded: {error}"]) from error
    if not (isinstance(part, type) and is_dataclass(part)):
        raise SettingsError([f"part {name!r} ({named[name]}) is no dataclass of settings"])
    has = {*dir(part), *(field.name for field in fields(part))}
    if missing := [wanted for wanted in _OFFERED.get(stage, ()) if wanted not in has]:
        raise SettingsError(
            [f"part {name!r} ({named[name]}) must have {' and '.join(missing)} to fill {stage}"]
        )
    return part


def part_name(stage: str, part: object) -> str:
    """The name of the part that these settings belong to.

    Raises:
        SettingsError: they belong to none.
    """
    for name in parts()[stage]:
        if part_class(stage, name) is type(part):
            return name
    raise SettingsError(
        [
            f"{stage} is filled by {type(part).__qualname__}, which has no name; name it by an "
            f"entry point {stage}.NAME in the group {ENTRY_POINT_GROUP}"
        ]
    )
