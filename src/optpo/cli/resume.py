"""`optpo resume`: go on with a run that was stopped."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from optpo.cli.flags import require_training
from optpo.cli.run import run
from optpo.errors import SettingsError


@dataclass(frozen=True)
class Resume:
    """Go on with a run that was stopped or killed; it ends as if it never had been."""

    directory: Annotated[Path, Positional, arg(metavar="DIR")]
    """The run's folder."""
    json: bool = False
    """Print the summary as JSON."""

    def run(self) -> None:
        """Go on from the newest checkpoint."""
        require_training()
        from optpo.recipes.load import settings_from_mapping
        from optpo.training.distributed import join_processes
        from optpo.training.run_directory import CONFIG, RunDirectory, read_config

        config = read_config(self.directory)
        try:
            settings = settings_from_mapping(config)
        except SettingsError as error:
            file = self.directory / CONFIG
            raise SettingsError([f"{file}: {problem}" for problem in error.problems]) from error
        first = join_processes(settings.model.device).first
        directory = RunDirectory.open(self.directory) if first else RunDirectory(self.directory)
        run(settings, directory, as_json=self.json)
