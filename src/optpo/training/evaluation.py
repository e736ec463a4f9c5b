"""Votes of a policy without training: what evaluation, `optpo vote` and the audit are made of."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from optpo.data import AnswerClasses, AnswerSettings, MathVerifier, Question, same_answer
from optpo.sampling.budgeted import Budget, take_votes_within
from optpo.sampling.engine import SampleSettings
from optpo.sampling.scheduler import Ballot, Reader, take_votes
from optpo.sampling.transformers_engine import TransformersEngine
from optpo.sampling.weights import VoteWeight, weigh_by
from optpo.training.policy import Policy
from optpo.voting import StoppingRule, Tally, Verdict
from optpo.voting.accuracy import mean_with_interval


class Voter:
    """A policy with its engine and its way of reading answers; a context manager.

    `verifier` compares maths answers in processes of its own, where the settings ask for that.
    """

    def __init__(self, policy: Policy, sample: SampleSettings, answers: AnswerSettings) -> None:
        self.policy = policy
        self.sample = sample
        self.answers = answers
        self.engine = TransformersEngine(
            policy.model, policy.decode, policy.end_tokens, sample, policy.mixed
        )
        self.verifier: MathVerifier | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "Voter":
        if self.answers.compare == "math":
            self.verifier = self._stack.enter_context(MathVerifier())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ballots(
        self,
        prompts: Mapping[str, tuple[int, ...]],
        carried: Mapping[str, Mapping[str, float]] | None = None,
    ) -> list[Ballot]:
        """A ballot a question, empty but for the votes by answer that are carried over."""
        ballots = []
        for name, tokens in prompts.items():
            classes = AnswerClasses(self.answers, self.verifier)
            votes: dict[int, float] = {}
            for answer, count in (carried or {}).get(name, {}).items():
                number = classes.classify(answer)
                votes[number] = votes.get(number, 0.0) + count
            ballots.append(Ballot(name, tokens, classes, Tally(carried=tuple(votes.values()))))
        return ballots

    def copy(self, ballot: Ballot) -> Ballot:
        """A ballot with the same votes of this visit, which may go on without the first's knowing."""
        classes = AnswerClasses.from_json(ballot.classes.to_json(), self.answers, self.verifier)
        return Ballot(
            ballot.prompt_id,
            ballot.prompt_tokens,
            classes,
            Tally(ballot.tally.votes, ballot.tally.weights),
            list(ballot.rollouts),
            launched=ballot.tally.total,
        )

    def vote(
        self,
        ballots: Sequence[Ballot],
        rule: StoppingRule,
        *,
        seed: int,
        purpose: str,
        on_verdict: Callable[[int, int], None] = lambda done, total: None,
        on_ballot: Callable[[Ballot], None] = lambda ballot: None,
        weight: VoteWeight = "equal",
        budget: Budget | None = None,
    ) -> None:
        """Sample until the rule stops every ballot, or the budget they share is used up."""
        weigh = weigh_by(weight, self.sample.max_new_tokens)
        take = take_votes if budget is None else partial(take_votes_within, budget=budget)
        take(
            self.engine,
            ballots,
            rule,
            Reader(self.policy.decode, self.answers.extract_answer, weigh),
            seed=seed,
            version=self.policy.version,
            purpose=purpose,
            on_verdict=on_verdict,
            on_ballot=on_ballot,
        )

    def correct(self, answer: str | None, gold: str) -> bool:
        """Whether an answer equals the known one; for reports only."""
        return answer is not None and same_answer(answer, gold, self.answers, self.verifier)


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


def verdict_of(ballot: Ballot) -> Verdict:
    """The verdict of a ballot whose vote has ended."""
    decision = ballot.decision
    if decision is None or decision.kind is None:
        raise ValueError(f"the vote on {ballot.prompt_id!r} has not ended")
    counts = ballot.tally.counts
    return Verdict(
        prompt_id=ballot.prompt_id,
        kind=decision.kind,
        label=ballot.leading,
        confidence=decision.confidence,
        counts={ballot.classes.labels[vote]: count for vote, count in sorted(counts.items())},
        unparsed=ballot.tally.total - ballot.tally.parsed,
        rollouts=ballot.tally.total,
        tokens=ballot.tokens,
        cancelled_rollouts=ballot.cancelled_rollouts,
        cancelled_tokens=ballot.cancelled_tokens,
        carried=dict(zip(ballot.classes.labels, ballot.tally.carried, strict=False)),
    )
