"""A run's settings: one part a stage, and what surrounds the stages."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from optpo.advantages.centred import CentredAdvantage
from optpo.batch import RolloutBatch
from optpo.data import DataSettings
from optpo.errors import SettingsError
from optpo.objectives.clipped import ClippedObjective
from optpo.rewards.majority import MajorityReward
from optpo.sampling.engine import SampleSettings
from optpo.sampling.scheduler import Schedule, schedule_problems
from optpo.sampling.weights import VoteWeight, weight_problems
from optpo.selection.decided import DecidedSelection
from optpo.training.guards import GuardSettings
from optpo.training.update import Objective, UpdateSettings
from optpo.voting import OptpoRule, StoppingRule, VoteTracker


class Reward(Protocol):
    """What a rollout is worth."""

    def __call__(self, batch: RolloutBatch) -> Tensor:
        """Rewards (R,) float32; not a number where there is none."""
        ...


class Selection(Protocol):
    """Which rollouts are trained on."""

    def __call__(self, batch: RolloutBatch, rewards: Tensor) -> Tensor:
        """Keep mask (R,) bool."""
        ...


class Advantage(Protocol):
    """How much better than expected each token's rollout was."""

    @property
    def needs_critic(self) -> bool:
        """Whether the values of a critic are needed."""
        ...

    def __call__(
        self, batch: RolloutBatch, rewards: Tensor, values: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Advantages, and the critic's targets where there is one, (C,) each."""
        ...


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
    """

    name: str | None = None
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
class UniformPrompts:
    """Every question once an epoch, in an order drawn anew each epoch; 0 a step means all."""

    questions_per_step: int = 0

    def __post_init__(self) -> None:
        if self.questions_per_step < 0:
            raise SettingsError(
                [f"questions_per_step is {self.questions_per_step}; it must be 0 (all) or more"]
            )


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
    """

    recipe: str = "optpo"
    seed: int = 0
    steps: int = 12
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    prompts: UniformPrompts = field(default_factory=UniformPrompts)
    allocate: StoppingRule = field(default_factory=OptpoRule)
    vote_weight: VoteWeight = "equal"
    schedule: Schedule = "waves"
    tracker: VoteTracker = field(default_factory=VoteTracker)
    sample: SampleSettings = field(default_factory=SampleSettings)
    reward: Reward = field(default_factory=MajorityReward)
    select: Selection = field(default_factory=DecidedSelection)
    advantage: Advantage = field(default_factory=CentredAdvantage)
    objective: Objective = field(default_factory=ClippedObjective)
    update: UpdateSettings = field(default_factory=UpdateSettings)
    guards: GuardSettings = field(default_factory=GuardSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    audit: float = 0.05
    overlap: Literal[0, 1] = 0
    checkpoint_every: int = 1
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks = {
            f"steps is {self.steps}; it must be 1 or more": self.steps >= 1,
            f"audit is {self.audit}; it must lie between 0 and 1": 0 <= self.audit <= 1,
            f"overlap is {self.overlap}; it must be 0 or 1": self.overlap in (0, 1),
            f"checkpoint_every is {self.checkpoint_every}; it must be 1 or more": (
                self.checkpoint_every >= 1
            ),
            f"tracker.most_kept is {self.tracker.most_kept}, but the allocate part takes no carried "
            f"votes: {self.allocate.refuses.get('carried')}": (
                self.tracker.most_kept == 0 or "carried" not in self.allocate.refuses
            ),
        }
        problems = [problem for problem, holds in checks.items() if not holds]
        problems += weight_problems(self.vote_weight, self.allocate)
        problems += schedule_problems(self.schedule)
        if problems:
            raise SettingsError(problems)
