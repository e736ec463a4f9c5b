"""`optpo train`: the pipeline of `optpo adapt` with a verifier in place of the vote."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from optpo.cli.flags import Reward, reward_settings
from optpo.cli.run import RunFlags, begin
from optpo.errors import SettingsError


@dataclass(frozen=True)
class Train(RunFlags):
    """Train a model on questions whose answers can be checked.

    With no flags: the embedded model on the embedded questions, by their known answers.
    """

    recipe: Annotated[str, arg(metavar="NAME|FILE")] = "grpo"
    """A recipe that `optpo recipes` lists, or a .yaml file of your own."""
    reward: Reward = None
    """What scores a rollout: whether its answer equals the known one, compared so; the task's own
    scorer; or a function of yours, which gets lists by keyword (prompts, completions,
    completion_ids, answers, gold, further fields) and returns a number or None for each."""

    def run(self) -> None:
        """Train, in a run directory of its own."""
        settings = self.run_settings(reward_settings(self.reward))
        if not settings.learns_from_gold:
            raise SettingsError(
                [
                    f"recipe {settings.recipe} learns from votes and looks at no score: use `optpo "
                    f"adapt --recipe {self.recipe}`, or reward by scores by "
                    "--set reward.part=verified"
                ]
            )
        begin(settings, self.out, as_json=self.json)
