"""How soon a vote could be over, for rules that have no formula for it."""

from optpo.voting.rule import StoppingRule
from optpo.voting.tally import Tallies, Tally


def fewest_equal_votes(rule: StoppingRule, tally: Tally) -> int:
    """What `StoppingRule.look_ahead` returns, by trying: all further votes for each class in turn.

    Exact for a rule whose evidence a vote for the leader does not lower and an unparsed one does
    not raise. A class not yet seen is tried too.
    """
    further = max(0, rule.cap - tally.total)
    unseen = 1 + max(tally.scores, default=-1)
    weights = None if tally.weights is None else (*tally.weights, *[1.0] * further)
    tallies = Tallies.of(
        [
            Tally((*tally.votes, *[number] * further), weights, tally.carried)
            for number in (*tally.scores, unseen)
        ]
    )
    over = rule.decide_many(tallies).stop[:, tally.total :]
    return int(over.any(axis=0).argmax())
