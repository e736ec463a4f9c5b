"""Voting: tallies, stopping rules and verdicts; NumPy and SciPy only."""

from optpo.stopping_rules import RULES
from optpo.voting.beta import BetaRule
from optpo.voting.bounds import (
    fixed_vote_exponent,
    known_shape_rate,
    least_mean_votes,
    least_mean_votes_log,
    mode_divergence,
)
from optpo.voting.budget import VoteStream, spend, spend_in_turn, value_of_next_vote
from optpo.voting.calibration import CalibrationBin, calibration_bins
from optpo.voting.curtailed import CurtailedRule
from optpo.voting.dirichlet import DirichletRule
from optpo.voting.eprocess import EprocessRule
from optpo.voting.fixed import FixedRule
from optpo.voting.frontier import FrontierRule
from optpo.voting.frontier_curve import CurvePoint, frontier_curve, votes_at_agreement
from optpo.voting.frontier_fit import fit_frontier
from optpo.voting.frontier_policy import FrontierPolicy
from optpo.voting.lead import LeadRule, lead_error, lead_votes, smallest_lead
from optpo.voting.optpo import OptpoRule
from optpo.voting.ppr import PprRule
from optpo.voting.predictive import PredictiveRule
from optpo.voting.recorded import RecordedVotes, read_recorded
from optpo.voting.rule import AtCap, Claim, Decision, Decisions, Kind, StoppingRule
from optpo.voting.rules import rule_from_json, rule_to_json
from optpo.voting.tally import NO_VOTE, UNPARSED, Tallies, Tally
from optpo.voting.tracker import VoteTracker, remember
from optpo.voting.verdict import Verdict
from optpo.voting.window import WindowRule

__all__ = [
    "NO_VOTE",
    "RULES",
    "UNPARSED",
    "AtCap",
    "BetaRule",
    "CalibrationBin",
    "Claim",
    "CurtailedRule",
    "CurvePoint",
    "Decision",
    "Decisions",
    "DirichletRule",
    "EprocessRule",
    "FixedRule",
    "FrontierPolicy",
    "FrontierRule",
    "Kind",
    "LeadRule",
    "OptpoRule",
    "PprRule",
    "PredictiveRule",
    "RecordedVotes",
    "StoppingRule",
    "Tallies",
    "Tally",
    "Verdict",
    "VoteStream",
    "VoteTracker",
    "WindowRule",
    "calibration_bins",
    "fit_frontier",
    "fixed_vote_exponent",
    "frontier_curve",
    "known_shape_rate",
    "lead_error",
    "lead_votes",
    "least_mean_votes",
    "least_mean_votes_log",
    "mode_divergence",
    "read_recorded",
    "remember",
    "rule_from_json",
    "rule_to_json",
    "smallest_lead",
    "spend",
    "spend_in_turn",
    "value_of_next_vote",
    "votes_at_agreement",
]
