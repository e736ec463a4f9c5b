"""A policy's votes, and its accuracy on questions whose rollouts can be judged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from optpo.data import AnswerClasses, Question, Scorer
from optpo.sampling.ballot import Ballot
from optpo.sampling.voter import Voter
from optpo.training.distributed import Processes
from optpo.voting import FixedRule
from optpo.voting.accuracy import (
    Asked,
    majorities,
    mean_at_n,
    mean_with_interval,
    passes,
)


def adopted(voter: Voter, ballot: Ballot) -> Ballot:
    """A ballot that may have been filled in another process, to be read by this voter."""
    classes = AnswerClasses.from_json(ballot.classes.to_json(), voter.answers, voter.verifier)
    return replace(ballot, classes=classes)


def take_votes_of_all(
    voter: Voter,
    prompts: Mapping[str, tuple[int, ...]],
    votes: int,
    processes: Processes,
    *,
    seed: int,
    purpose: str,
    on_verdict: Callable[[int, int], None],
) -> list[Ballot]:
    """So many votes of every question, each process taking its share; all of them come to each."""
    names = processes.share(list(prompts))
    ballots = voter.ballots({name: prompts[name] for name in names})
    voter.vote(ballots, FixedRule(votes=votes), seed=seed, purpose=purpose, on_verdict=on_verdict)
    return [adopted(voter, ballot) for ballot in processes.gather(ballots)]


@dataclass(frozen=True)
class Accuracy:
    """Of questions that can be judged, with 95 % intervals over the questions.

    `mean` is the share of right rollouts, `majority` of votes that were right, `passed` of questions
    with a right rollout among theirs. `passes` and `majorities` are pass@k and maj@k by k, as text,
    where they were asked for: {"value", "low", "high"} each.
    """

    mean: float
    mean_low: float
    mean_high: float
    majority: float
    majority_low: float
    majority_high: float
    passed: float
    passed_low: float
    passed_high: float
    questions: int
    passes: dict[str, dict[str, float]] = field(default_factory=dict)
    majorities: dict[str, dict[str, float]] = field(default_factory=dict)


def judged(question: Question, scorer: Scorer | None = None) -> bool:
    """Whether this question's rollouts can be judged: by the scorer, without one by gold."""
    return question.gold is not None if scorer is None else scorer.judges(question)


def accuracy(
    voter: Voter,
    ballots: Sequence[Ballot],
    questions: Mapping[str, Question],
    scorer: Scorer | None = None,
    at: Sequence[int] = (),
) -> Accuracy | None:
    """Accuracy of ballots with one or more rollouts each; None where no question can be judged.

    Args:
        voter: compares answers with gold.
        ballots: those of questions that cannot be judged are passed over.
        questions: by id.
        scorer: says which rollouts are right, those with a full score; without one, gold does.
        at: for which k to give pass@k and maj@k; each ballot must have so many rollouts.
    """
    right = _right_rollouts(voter, ballots, questions, scorer)
    asked, majority = [], []
    for ballot in ballots:
        if (rollouts := right.get(ballot.prompt_id)) is not None:
            asked.append(_asked(ballot, rollouts))
            majority.append(_leader_is_right(voter, ballot, asked[-1], questions, scorer))
    if not asked:
        return None
    mean = mean_at_n(asked)
    some = mean_with_interval([float(one.hits > 0) for one in asked])
    return Accuracy(
        mean.value,
        mean.low,
        mean.high,
        *mean_with_interval([float(one) for one in majority]),
        *some,
        len(asked),
        **by_k(asked, at),
    )


def asked_questions(
    voter: Voter,
    ballots: Sequence[Ballot],
    questions: Mapping[str, Question],
    scorer: Scorer | None = None,
) -> list[Asked]:
    """The votes of every ballot that can be judged, and what of them is right."""
    right = _right_rollouts(voter, ballots, questions, scorer)
    return [
        _asked(ballot, right[ballot.prompt_id]) for ballot in ballots if ballot.prompt_id in right
    ]


def by_k(asked: Sequence[Asked], at: Sequence[int]) -> dict[str, Any]:
    """pass@k and maj@k for every k in `at`, as `Accuracy` holds them."""
    return {
        "passes": {str(k): vars(passes(asked, k)) for k in at},
        "majorities": {str(k): vars(majorities(asked, k)) for k in at},
    }


def _right_rollouts(
    voter: Voter,
    ballots: Sequence[Ballot],
    questions: Mapping[str, Question],
    scorer: Scorer | None,
) -> dict[str, list[bool]]:
    """Which rollouts are right, by question; questions that cannot be judged are left out."""
    if scorer is None:
        found = {}
        for ballot in ballots:
            gold = questions[ballot.prompt_id].gold
            if gold is not None and ballot.tally.total:
                labels = ballot.classes.labels
                right = {vote for vote in ballot.tally.counts if voter.correct(labels[vote], gold)}
                found[ballot.prompt_id] = [vote in right for vote in ballot.tally.votes]
        return found
    known = [ballot for ballot in ballots if scorer.judges(questions[ballot.prompt_id])]
    scores = iter(scorer.score([rollout for ballot in known for rollout in ballot.rollouts]))
    given = {
        ballot.prompt_id: [next(scores) for _ in ballot.rollouts]
        for ballot in known
        if ballot.rollouts
    }
    return {
        name: [score is not None and score >= scorer.full for score in of_question]
        for name, of_question in given.items()
        if any(score is not None for score in of_question)
    }


def _asked(ballot: Ballot, right: Sequence[bool]) -> Asked:
    """A class is right where its first rollout is: the one whose answer stands for the class."""
    votes = ballot.tally.votes
    classes = {vote for vote in set(votes) if vote >= 0 and right[votes.index(vote)]}
    return Asked(votes, classes, sum(right))


def _leader_is_right(
    voter: Voter,
    ballot: Ballot,
    asked: Asked,
    questions: Mapping[str, Question],
    scorer: Scorer | None,
) -> bool:
    leader, gold = ballot.tally.leader, questions[ballot.prompt_id].gold
    if leader is not None and leader in ballot.tally.votes and scorer is not None:
        return leader in asked.right
    # Where votes are carried, an answer may lead that nobody gave this time.
    return gold is not None and voter.correct(ballot.leading, gold)
