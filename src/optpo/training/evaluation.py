"""A policy's votes, and its accuracy on questions whose answers are known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from optpo.data import AnswerClasses, Question
from optpo.sampling.ballot import Ballot
from optpo.sampling.voter import Voter
from optpo.voting.accuracy import mean_with_interval


def adopted(voter: Voter, ballot: Ballot) -> Ballot:
    """A ballot that may have been filled in another process, to be read by this voter."""
    classes = AnswerClasses.from_json(ballot.classes.to_json(), voter.answers, voter.verifier)
    return replace(ballot, classes=classes)


@dataclass(frozen=True)
class Accuracy:
    """Of questions whose gold is known: mean over rollouts with its interval, and of the vote."""

    mean: float
    mean_low: float
    mean_high: float
    majority: float
    questions: int


def accuracy(
    voter: Voter, ballots: Sequence[Ballot], questions: Mapping[str, Question]
) -> Accuracy | None:
    """Mean@k and maj@k of ballots with k rollouts each; none where no question has gold."""
    shares, majorities = [], []
    for ballot in ballots:
        gold = questions[ballot.prompt_id].gold
        if gold is None:
            continue
        right = {
            vote: vote >= 0 and voter.correct(ballot.classes.labels[vote], gold)
            for vote in set(ballot.tally.votes)
        }
        shares.append(sum(right[vote] for vote in ballot.tally.votes) / ballot.tally.total)
        # Where votes are carried, an answer may lead that nobody gave this time.
        majorities.append(voter.correct(ballot.leading, gold))
    if not shares:
        return None
    mean, low, high = mean_with_interval(shares)
    return Accuracy(mean, low, high, sum(majorities) / len(majorities), len(shares))
