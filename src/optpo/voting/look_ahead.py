"""How soon a vote could be over, for rules that have no formula for it."""

from bisect import bisect_left

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


def fewest_votes_for_the_leader(rule: StoppingRule, tally: Tally) -> int:
    """The same for a rule which such votes end soonest, and which no further one sets going again.

    Much quicker, as it asks for few decisions and not for every number of votes.
    """
    first = tally.leader or 0

    def over(more: int) -> bool:
        weights = None if tally.weights is None else (*tally.weights, *[1.0] * more)
        return rule.decide(Tally((*tally.votes, *[first] * more), weights, tally.carried)).stop

    return bisect_left(range(rule.cap - tally.total), True, key=over)
