"""The votes of some questions through an engine, and what two such runs can be compared by."""

from optpo.sampling.ballot import Ballot, Reader
from optpo.sampling.scheduler import take_votes
from optpo.voting import OptpoRule

RULE = OptpoRule(floor=2, cap=3)

QUICK = {
    "start_seconds": 30.0,
    "patience_seconds": 30.0,
    "backoff_seconds": 0.005,
    "concurrency": 32,
}
"""Short times for an endpoint, and still far above what a busy machine needs."""


class Parity:
    """Two classes of answers, so that votes agree now and then."""

    labels = ("even", "odd")

    def classify(self, answer):
        return -1 if answer is None else self.labels.index(answer)


def parity_of(text):
    """An answer out of few that the text decides."""
    return Parity.labels[sum(map(ord, text)) % 2] if text else None


def tells_text(tokens):
    raise AssertionError("a server tells the text itself")


READER = Reader(decode=tells_text, extract=parity_of)


def verdicts(engine, questions=200, rule=RULE, on_verdict=lambda done, total: None):
    """Take the votes of all questions; each question's decision, tally, label and rollouts."""
    ballots = [
        Ballot(f"q{n}", (), Parity(), prompt=f"w{8 + n % 80} w{8 + n // 80}")
        for n in range(questions)
    ]
    take_votes(
        engine, ballots, rule, READER, seed=3, version=0, purpose="test", on_verdict=on_verdict
    )
    for ballot in ballots:
        # Every vote once, in its place, and as many rollouts as votes.
        assert [rollout.index for rollout in ballot.rollouts] == [*range(ballot.tally.total)]
        assert ballot.error is None and ballot.tally.total >= rule.floor
    return [
        (ballot.decision, ballot.tally, ballot.label, tuple(ballot.rollouts)) for ballot in ballots
    ]
