"""What votes say of a policy, and verdicts where votes of an earlier visit count."""

import json
from collections.abc import Sequence

import pytest

from optpo.data import AnswerSettings, DataSettings, Question, ScoreSettings, open_scorer
from optpo.rollout import Rollout
from optpo.sampling.ballot import Ballot
from optpo.sampling.engine import EntropyTemperature
from optpo.sampling.voter import Voter, verdict_of
from optpo.training.engines import open_voter
from optpo.training.evaluation import accuracy, judged
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
    warm = EntropyTemperature(0.5, -3.0, -1.0, 0.0)
    (ballot,) = voter.ballots({"q": (1, 2)}, {"q": {"4": 4.5}}, {"q": ((1,), (2,))}, warm)
    ballot.tally = ballot.tally.add(ballot.classes.classify("5"))
    copy = voter.copy(ballot)
    assert copy.tally == Tally((1,))
    # What is asked is the same, and how it is drawn.
    assert (copy.variants, copy.by_entropy) == (ballot.variants, warm)
    assert copy.leading == "5"


def ballot_of(voter: Voter, name: str, answers: list[str | None]) -> Ballot:
    """A ballot whose rollouts gave these answers."""
    (ballot,) = voter.ballots({name: (1, 2)})
    for index, answer in enumerate(answers):
        vote = ballot.classes.classify(answer)
        text = f"so {answer}"
        ballot.rollouts.append(
            Rollout(name, index, 0, (1, 2), (3,), (-1.0,), "stop", text, answer, vote)
        )
        ballot.tally = ballot.tally.add(vote)
    return ballot


QUESTIONS = {"a": Question("a", "?", "4"), "b": Question("b", "?", "7"), "c": Question("c", "?")}


def ballots_of(voter: Voter) -> list[Ballot]:
    """Two questions with gold and one without."""
    return [
        ballot_of(voter, "a", ["4", "4.0", "5", None]),
        ballot_of(voter, "b", ["8", "8", "7", "8"]),
        ballot_of(voter, "c", ["1", "1", "1", "1"]),
    ]


def test_accuracies_with_and_without_a_scorer_by_gold_are_the_same(voter: Voter) -> None:
    """mean, majority, pass@k and maj@k by hand, with intervals; the third question has no gold."""
    ballots = ballots_of(voter)
    scorer = open_scorer(ScoreSettings(), QUESTIONS, voter.answers, None)
    reached = accuracy(voter, ballots, QUESTIONS, scorer, at=(1, 2, 4))
    assert reached == accuracy(voter, ballots, QUESTIONS, at=(1, 2, 4))
    assert reached is not None
    assert (reached.questions, reached.mean, reached.majority, reached.passed) == (2, 0.375, 0.5, 1)
    assert reached.passes["2"]["value"] == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert reached.majorities["4"]["value"] == 0.5
    assert reached.passes["4"]["value"] == reached.passed
    for low, value, high in (
        (reached.mean_low, reached.mean, reached.mean_high),
        (reached.majority_low, reached.majority, reached.majority_high),
        (reached.passed_low, reached.passed, reached.passed_high),
    ):
        assert 0 <= low < value <= high <= 1
    json.dumps(vars(reached))
    assert accuracy(voter, ballots[2:], QUESTIONS) is None
    assert [judged(question, scorer) for question in QUESTIONS.values()] == [True, True, False]
    assert [judged(question) for question in QUESTIONS.values()] == [True, True, False]


class ByText:
    """Scores by the text: 2 for a 4 or a 1, 1 for a 5, none for question b."""

    full = 2.0

    def judges(self, question: Question) -> bool:
        return True

    def score(self, rollouts: Sequence[Rollout]) -> list[float | None]:
        points = {"4": 2.0, "4.0": 0.0, "1": 2.0, None: 2.0}
        return [None if r.prompt_id == "b" else points.get(r.answer, 1.0) for r in rollouts]


def test_with_a_scorer_a_full_score_is_right(voter: Voter) -> None:
    """Also of a rollout without an answer; questions without any score are left out."""
    reached = accuracy(voter, ballots_of(voter), QUESTIONS, ByText(), at=(1,))
    assert reached is not None
    # a: "4" and the unparsed one of four, led by the class of "4"; c: all.
    assert (reached.questions, reached.mean, reached.majority, reached.passed) == (2, 0.75, 1, 1)
    assert reached.majorities["1"]["value"] == pytest.approx((2 / 4 + 1) / 2)
    assert accuracy(voter, ballots_of(voter)[1:2], QUESTIONS, ByText()) is None
