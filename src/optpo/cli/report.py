"""`optpo report`: a run's report, or several runs side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from optpo.cli.output import show
from optpo.errors import SettingsError


@dataclass(frozen=True)
class Report:
    """Write the report of a run again, or of several runs side by side."""

    directories: Annotated[tuple[Path, ...], Positional, arg(metavar="DIR ...")]
    """The runs' folders."""
    out: Annotated[
        Path | None,
        arg(
            metavar="FILE", help_behavior_hint="(default: DIR/report.html, of several report.html)"
        ),
    ] = None
    """The HTML file to write."""

    def run(self) -> None:
        """Write the report and print its path."""
        if not self.directories:
            raise SettingsError(["report needs a run's folder: optpo report DIR ..."])
        from optpo.reporting.html import write_report

        alone = len(self.directories) == 1
        folder = self.directories[0] if alone else Path()
        out = self.out or folder / "report.html"
        write_report(self.directories, out)
        show(str(out))
