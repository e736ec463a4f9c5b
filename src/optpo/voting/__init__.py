"""Voting: tallies, stopping rules and verdicts; NumPy and SciPy only."""

from optpo.voting.beta import BetaRule
from optpo.voting.calibration import CalibrationBin, calibration_bins
from optpo.voting.fixed import FixedRule
from optpo.voting.optpo import OptpoRule
from optpo.voting.rule import AtCap, Claim, Decision, Decisions, Kind, StoppingRule
from optpo.voting.rules import RULES, rule_from_json, rule_to_json
from optpo.voting.tally import NO_VOTE, UNPARSED, Tallies, Tally
from optpo.voting.verdict import Verdict

__all__ = [
    "NO_VOTE",
    "RULES",
    "UNPARSED",
    "AtCap",
    "BetaRule",
    "CalibrationBin",
    "Claim",
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
    "rule_from_json",
    "rule_to_json",
]
