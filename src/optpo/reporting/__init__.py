"""What a run looks like: the terminal while it runs, the HTML report afterwards, trackers."""

from optpo.reporting.html import write_report
from optpo.reporting.run_data import RunData, read_run
from optpo.reporting.terminal import LiveView, OpenView, PlainView, open_view, summary_lines
from optpo.reporting.trackers import open_trackers

__all__ = [
    "LiveView",
    "OpenView",
    "PlainView",
    "RunData",
    "open_trackers",
    "open_view",
    "read_run",
    "summary_lines",
    "write_report",
]
