"""`optpo adapt`: test-time policy optimization without labels."""

from dataclasses import dataclass

from optpo.cli.run import RunFlags, begin
from optpo.errors import SettingsError


@dataclass(frozen=True)
class Adapt(RunFlags):
    """Adapt a model to questions without answers.

    With no flags: the embedded model on the embedded questions.
    """

    def run(self) -> None:
        """Adapt, in a run directory of its own."""
        settings = self.run_settings()
        if settings.learns_from_gold:
            raise SettingsError(
                [
                    f"recipe {settings.recipe} learns from scores, and adapt has questions without "
                    f"answers: use `optpo train --recipe {self.recipe}`, or let their votes reward "
                    "by --set reward.part=majority"
                ]
            )
        begin(settings, self.out, as_json=self.json)
