"""A run's settings: one part a stage, and what surrounds the stages."""

from dataclasses import dataclass, field
from typing import Literal

from optpo.advantages.centred import CentredAdvantage
from optpo.data import DataSettings, ScoreSettings
from optpo.errors import SettingsError
from optpo.masks.none import NoMask
from optpo.memory.none import NoMemory
from optpo.memory.protocol import Memory
from optpo.needs import FROM_THE_RUN, Need
from optpo.objectives.clipped import ClippedObjective
from optpo.objectives.critic import CriticLoss
from optpo.objectives.one_token import OneTokenObjective
from optpo.objectives.penalty import KlPenalty
from optpo.objectives.supervised import SupervisedObjective
from optpo.rewards.majority import MajorityReward
from optpo.sampling.engine import SampleSettings
from optpo.sampling.scheduler import Schedule, schedule_problems
from optpo.sampling.weights import VoteWeight, weight_problems
from optpo.selection.decided import DecidedSelection
from optpo.shapes.none import NoShape
from optpo.training.guards import GuardSettings
from optpo.training.prompts import PrioritizedPrompts, Prompts, UniformPrompts
from optpo.training.stages import Advantage, Mask, Objective, Reward, Selection, Shape
from optpo.training.update_settings import UpdateSettings
from optpo.voting import FixedRule, OptpoRule, StoppingRule, VoteTracker


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters (2106.09685) on all linear layers; `rank` 0 trains the whole model.

    Adapters begin from the same random numbers whatever the run's seed is.
    """

    rank: int = 0
    alpha: float = 32.0

    def __post_init__(self) -> None:
        problems = []
        if self.rank < 0:
            problems.append(f"rank is {self.rank}; it must be 0 (train all weights) or more")
        if self.alpha <= 0:
            problems.append(f"alpha is {self.alpha}; it must be above 0")
        if problems:
            raise SettingsError(problems)


@dataclass(frozen=True)
class ModelSettings:
    """Which model: a folder, a .gguf file or a hub name; none is the embedded one.

    `precision` auto computes in bfloat16 where the accelerator has it, else in float32.
    `chat` auto wraps a plain prompt as a user's message where the tokenizer has a chat template.
    `guide` is a second model of the same tokens, where a part asks for its log-probs (RTO: one that
    was trained on preferences).
    """

    name: str | None = None
    guide: str | None = None
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    chat: Literal["auto", "always", "never"] = "auto"
    trust_remote_code: bool = False
    lora: LoraSettings = field(default_factory=LoraSettings)


@dataclass(frozen=True)
class EngineSettings:
    """What samples from the policy.

    `name` "transformers" samples from the policy's own module, "vllm" from a vLLM that is handed the
    weights after every update. With `workers` 0 that is in this process; else in so many processes
    of a Ray cluster: the one at `cluster` (an address, or "auto"), or one begun on this machine.
    Every machine of it loads the model by the same name. `worker_gpus` are those of each worker.
    """

    name: Literal["transformers", "vllm"] = "transformers"
    workers: int = 0
    cluster: str | None = None
    worker_gpus: float = 0.0

    def __post_init__(self) -> None:
        checks = {
            f"workers is {self.workers}; it must be 0 (this process) or more": self.workers >= 0,
            f"worker_gpus is {self.worker_gpus}; it must be 0 or more": self.worker_gpus >= 0,
            f"cluster is {self.cluster!r}, but workers is 0; it must be 1 or more": (
                self.cluster is None or self.workers > 0
            ),
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)


@dataclass(frozen=True)
class EvaluateSettings:
    """Rollouts a question when accuracy is measured: before, after, each `every` steps (0: not).

    0 samples leave a set out. Evaluation rollouts are never trained on, and their tokens are
    counted apart.
    """

    samples: int = 16
    unseen_samples: int = 4
    every: int = 0

    def __post_init__(self) -> None:
        if problems := [
            f"{name} is {value}; it must be 0 or more"
            for name, value in vars(self).items()
            if value < 0
        ]:
            raise SettingsError(problems)


_MEMORY_OF = {
    "tracked": "values",
    "shortest": "shortest",
    "quantiles": "quantiles",
    "moments": "moments",
    "entropies": "entropies",
}
"""The memory parts that meet a need."""

_SAME = (
    ("budgets", ("prompts", "shape")),
    ("budgets", ("shape", "advantage")),
    ("context", ("shape", "advantage")),
    ("height", ("shape", "advantage")),
    ("think_token", ("shape", "mask")),
    ("quantile", ("memory", "objective")),
    ("step_token", ("advantage", "objective")),
    *((name, ("memory", "advantage")) for name in ("questions", "low", "high", "pairing", "seed")),
)
"""Settings that two parts have in common: where both have it, they must agree."""


@dataclass(frozen=True)
class RunSettings:
    """Everything that decides a run: same settings, same run.

    `vote_weight` is what a vote weighs where the vote decides a label: "equal", "likelihood" (the
    geometric mean probability of the rollout's tokens) or "brevity" (less the longer it is);
    evaluation counts every vote whole. `schedule` is "waves" (launch what could end a test) or
    "speculative" (where slots would stand empty, also what may be needed): the same votes in other
    times; or "biased_arrival_order" (count what comes first), which biases the votes. `audit` is
    the share of questions a step whose vote is taken on to the cap after the verdict, to see whether
    the full vote agrees; those rollouts are not trained on.

    `overlap` 1 samples each step's questions while the policy is still updated for the step before,
    with the weights as they were before that update: rollouts are one update older than the policy
    that learns from them, and the objective sets it against the log-probs of the one that sampled.
    It costs memory for one more copy of the weights that are trained and for a second key-value
    cache, a scoring pass a step, and pays where two forwards at once are faster than two in turn.

    To the loss of any objective, `penalty` adds a pull to the reference, and `critic` the loss of the
    critic where the advantage asks for one.

    A run ends after `steps`, or after the step by which it has sampled `most_tokens` (0: no limit) to
    vote, to compare with and to train.

    `entropy_temperature` raises the sampling temperature by up to this share where the policy is
    undecided and lowers it as much where it is decided, by the entropies of the step before (HAPO,
    2509.16591); evaluation, greedy rollouts and the log-probs that the objective sees keep to
    `sample.temperature`.

    `window` tokens of every rollout are sampled a step (0: whole rollouts); what is not at its end is
    trained on as far as it has come and goes on at the next step, by the policy of then.
    """

    recipe: str = "optpo"
    seed: int = 0
    steps: int = 12
    most_tokens: int = 0
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    prompts: Prompts = field(default_factory=UniformPrompts)
    allocate: StoppingRule = field(default_factory=OptpoRule)
    vote_weight: VoteWeight = "equal"
    schedule: Schedule = "waves"
    tracker: VoteTracker = field(default_factory=VoteTracker)
    sample: SampleSettings = field(default_factory=SampleSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    memory: Memory = field(default_factory=NoMemory)
    reward: Reward = field(default_factory=MajorityReward)
    shape: Shape = field(default_factory=NoShape)
    select: Selection = field(default_factory=DecidedSelection)
    advantage: Advantage = field(default_factory=CentredAdvantage)
    mask: Mask = field(default_factory=NoMask)
    objective: Objective = field(default_factory=ClippedObjective)
    penalty: KlPenalty = field(default_factory=KlPenalty)
    critic: CriticLoss = field(default_factory=CriticLoss)
    update: UpdateSettings = field(default_factory=UpdateSettings)
    guards: GuardSettings = field(default_factory=GuardSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    audit: float = 0.05
    overlap: Literal[0, 1] = 0
    entropy_temperature: float = 0.0
    window: int = 0
    checkpoint_every: int = 1
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks = {
            f"steps is {self.steps}; it must be 1 or more": self.steps >= 1,
            f"most_tokens is {self.most_tokens}; it must be 0 (no limit) or more": (
                self.most_tokens >= 0
            ),
            f"audit is {self.audit}; it must lie between 0 and 1": 0 <= self.audit <= 1,
            f"overlap is {self.overlap}; it must be 0 or 1": self.overlap in (0, 1),
            f"checkpoint_every is {self.checkpoint_every}; it must be 1 or more": (
                self.checkpoint_every >= 1
            ),
            f"tracker.most_kept is {self.tracker.most_kept}, but the allocate part takes no carried "
            f"votes: {self.allocate.refuses.get('carried')}": (
                self.tracker.most_kept == 0 or "carried" not in self.allocate.refuses
            ),
            f"the allocate part takes at most {self.allocate.cap} of a question's rollouts; it must "
            f"take {self._fewest} or more, or no step could teach": (
                self.allocate.cap >= self._fewest
            ),
            f"entropy_temperature is {self.entropy_temperature}; it must be 0 (off) or more, and below "
            "1": 0 <= self.entropy_temperature < 1,
            "entropy_temperature needs engine.name transformers, sample.temperature above 0, window 0 "
            "and overlap 0": (
                self.entropy_temperature == 0
                or (
                    self.engine.name == "transformers"
                    and self.sample.temperature > 0
                    and self.window == self.overlap == 0
                )
            ),
            f"window is {self.window}; it must be 0 (off) or divide sample.max_new_tokens": (
                self.window == 0
                or (self.window > 0 and self.sample.max_new_tokens % self.window == 0)
            ),
            "window needs advantage.cut hold, allocate.part fixed, prompts.part uniform without "
            "budgets, no greedy and no initial rollouts, a tracker that keeps nothing, and overlap 0": (
                self.window == 0
                or (
                    getattr(self.advantage, "cut", None) == "hold"
                    and isinstance(self.allocate, FixedRule)
                    and isinstance(self.prompts, UniformPrompts)
                    and not self.prompts.suffixes
                    and "greedy" not in self.needs
                    and self.overlap == self.tracker.most_kept == self.memory.initial_rollouts == 0
                )
            ),
            "prompts.budgets ask in several ways, behind which no drift can be measured; it must be "
            "[] where the memory part or the tracker forgets by drift": (
                not self.prompts.suffixes
                or (self.tracker.most_kept == 0 and not self.memory.forgets)
            ),
            "the baseline is of rewards as they are, so shape.part must be none": (
                isinstance(self.shape, NoShape) or not {"greedy", "tracked"} & self.advantage.needs
            ),
            "the objective asks for the distributions that rollouts were sampled from, which are not "
            "kept, so overlap must be 0": self.overlap == 0 or "heads" not in self.needs,
            "prompts are drawn by what the update before has left, so overlap must be 0": (
                self.overlap == 0 or not isinstance(self.prompts, PrioritizedPrompts)
            ),
            "the advantage or the objective asks for a guide; name it by model.guide": (
                self.model.guide is not None or "guide" not in self.needs
            ),
        }
        problems = [problem for problem, holds in checks.items() if not holds]
        problems += [
            f"a part asks for {name!r}, which the memory part does not give; memory.part must be "
            f"{_MEMORY_OF.get(name, 'one that does')}"
            for name in sorted(self.needs - self.memory.gives - FROM_THE_RUN)
        ]
        for name, stages in _SAME:
            said = [getattr(getattr(self, stage), name, None) for stage in stages]
            if None not in said and said[0] != said[1]:
                first, second = stages
                problems.append(
                    f"{first}.{name} is {said[0]}, but {second}.{name} is {said[1]}; they must agree"
                )
        problems += weight_problems(self.vote_weight, self.allocate)
        problems += schedule_problems(self.schedule)
        if problems:
            raise SettingsError(problems)

    @property
    def needs(self) -> frozenset[Need]:
        """All that its parts ask for."""
        asking = (
            self.prompts, self.reward, self.shape, self.select, self.advantage, self.objective,
            self.penalty,
        )  # fmt: skip
        needs = frozenset().union(*(part.needs for part in asking))
        if self.entropy_temperature:
            needs |= {"entropies"}
        if "entropies" in self.memory.gives:
            needs |= {"entropy"}
        return needs

    @property
    def _fewest(self) -> int:
        """Rollouts of a question without which no step could teach.

        One that is alone has nothing to be compared with, and no other vote to agree with; of two that
        are compared by their votes, the votes agree or are tied.
        """
        compared = isinstance(self.select, DecidedSelection) or (
            isinstance(self.advantage, CentredAdvantage)
            and self.advantage.compares
            and not isinstance(self.objective, SupervisedObjective | OneTokenObjective)
        )
        by_vote = not self.learns_from_gold and self.tracker.most_kept == 0
        return 1 + compared + by_vote

    @property
    def learns_from_gold(self) -> bool:
        """Whether rewards come from a verifier, where else votes decide them."""
        return "score" in self.reward.needs
