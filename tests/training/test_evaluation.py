"""What votes say of a policy, and verdicts where votes of an earlier visit count."""

import pytest

from optpo.data import AnswerSettings, DataSettings, Question
from optpo.sampling.voter import Voter, verdict_of
from optpo.training.engines import open_voter
from optpo.training.evaluation import accuracy
from optpo.training.loading import load_policy
from optpo.training.settings import ModelSettings, RunSettings
from optpo.voting import OptpoRule, Tally


@pytest.fixture(scope="module")
def voter() -> Voter:
    """A voter; its model is never asked here."""
    policy = load_policy(ModelSettings(device="cpu"), 1.0)
    answers = AnswerSettings(extract="last-number", compare="numeric")
    return open_voter(policy, RunSettings(data=DataSettings(answers=answers)), [(1, 2)])


def test_carried_votes_count_for_the_verdict_and_not_for_the_accuracy(voter: Voter) -> None:
    """Two new votes for 5 against carried ones for 4: the label is 4, none of the rollouts right."""
    (ballot,) = voter.ballots({"q": (1, 2)}, {"q": {"4": 4.5, "4.0": 1.5, "7": 0.5}})
    assert ballot.tally == Tally(carried=(6.0, 0.5))
    for _ in range(2):
        ballot.tally = ballot.tally.add(ballot.classes.classify("5"))
    ballot.decision = OptpoRule(floor=1).decide(ballot.tally)
    verdict = verdict_of(ballot)
    assert (verdict.kind, verdict.label, verdict.counts) == ("decided", "4", {"5": 2})
    assert verdict.carried == {"4": 6.0, "7": 0.5}
    reached = accuracy(voter, [ballot], {"q": Question("q", "2 + 2 =", "4")})
    assert reached is not None
    assert (reached.mean, reached.majority) == (0, 1)


def test_a_copy_for_the_audit_leaves_carried_votes_behind(voter: Voter) -> None:
    """The full vote is one of this visit alone."""
    (ballot,) = voter.ballots({"q": (1, 2)}, {"q": {"4": 4.5}})
    ballot.tally = ballot.tally.add(ballot.classes.classify("5"))
    copy = voter.copy(ballot)
    assert copy.tally == Tally((1,))
    assert copy.leading == "5"
