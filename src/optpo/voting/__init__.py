"""Voting: tallies, stopping rules and verdicts; NumPy and SciPy only."""

from optpo.voting.calibration import CalibrationBin, calibration_bins
from optpo.voting.fixed import FixedRule
from optpo.voting.optpo import OptpoRule
from optpo.voting.rule import Decision, Decisions, Kind, StoppingRule
from optpo.voting.tally import UNPARSED, Tallies, Tally
from optpo.voting.verdict import Verdict

__all__ = [
    "UNPARSED",
    "CalibrationBin",
    "Decision",
    "Decisions",
    "FixedRule",
    "Kind",
    "OptpoRule",
    "StoppingRule",
    "Tallies",
    "Tally",
    "Verdict",
    "calibration_bins",
]
