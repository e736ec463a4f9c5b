"""Votes of an engine: what evaluation, `optpo vote`, the audit and each step's labels are made of."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from optpo.data import AnswerClasses, AnswerSettings, MathVerifier, same_answer
from optpo.errors import SettingsError
from optpo.sampling.ballot import Ballot, Reader
from optpo.sampling.budgeted import Budget, take_votes_within
from optpo.sampling.engine import Engine, EntropyTemperature, Prompt, SampleSettings
from optpo.sampling.occupancy import Occupancy
from optpo.sampling.scheduler import Schedule, take_votes
from optpo.sampling.weights import VoteWeight, weigh_by
from optpo.voting import StoppingRule, Tally, Verdict


class Voter:
    """An engine with its way of reading answers; a context manager, which closes the engine.

    `decode` makes text of tokens, for engines that return none. `version` is that of the engine's
    weights. `verifier` compares maths answers in processes of its own, where the settings ask for
    that.
    """

    def __init__(
        self,
        engine: Engine,
        decode: Callable[[Sequence[int]], str],
        sample: SampleSettings,
        answers: AnswerSettings,
    ) -> None:
        self.engine = engine
        self.decode = decode
        self.sample = sample
        self.answers = answers
        self.version = 0
        self.verifier: MathVerifier | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "Voter":
        self._stack.callback(self.engine.close)
        if self.answers.compare == "math":
            self.verifier = self._stack.enter_context(MathVerifier())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def update_weights(self, version: int, folder: Path | None = None) -> None:
        """Sample from now on with the weights of this version; see `Engine.update_weights`."""
        self.engine.update_weights(version, folder)
        self.version = version

    def ballots(
        self,
        prompts: Mapping[str, tuple[int, ...]],
        carried: Mapping[str, Mapping[str, float]] | None = None,
        variants: Mapping[str, tuple[tuple[int, ...], ...]] | None = None,
        by_entropy: EntropyTemperature | None = None,
    ) -> list[Ballot]:
        """A ballot a question, empty but for the votes by answer that are carried over.

        `variants` are the ways of asking that its rollouts take in turn, where there are several;
        `by_entropy` is the temperature that they are drawn at, where it is not the same for all tokens.
        """
        ballots = []
        for name, tokens in prompts.items():
            classes = AnswerClasses(self.answers, self.verifier)
            votes: dict[int, float] = {}
            for answer, count in (carried or {}).get(name, {}).items():
                number = classes.classify(answer)
                votes[number] = votes.get(number, 0.0) + count
            tally = Tally(carried=tuple(votes.values()))
            ways = (variants or {}).get(name, ())
            ballots.append(
                Ballot(name, tokens, classes, tally, variants=ways, by_entropy=by_entropy)
            )
        return ballots

    def text_ballots(self, prompts: Mapping[str, Prompt]) -> list[Ballot]:
        """A ballot a question, empty, for an engine that makes tokens itself."""
        return [
            Ballot(name, (), AnswerClasses(self.answers, self.verifier), prompt=prompt)
            for name, prompt in prompts.items()
        ]

    def copy(self, ballot: Ballot) -> Ballot:
        """A ballot with the same votes of this visit, which may go on without the first's knowing."""
        classes = AnswerClasses.from_json(ballot.classes.to_json(), self.answers, self.verifier)
        return Ballot(
            ballot.prompt_id,
            ballot.prompt_tokens,
            classes,
            Tally(ballot.tally.votes, ballot.tally.weights),
            list(ballot.rollouts),
            prompt=ballot.prompt,
            variants=ballot.variants,
            by_entropy=ballot.by_entropy,
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
        schedule: Schedule = "waves",
        budget: Budget | None = None,
    ) -> Occupancy:
        """Sample until the rule stops every ballot, or the budget they share is used up.

        A budget launches by a schedule of its own. Returns how full the engine was.

        Raises SettingsError where the engine does not tell what the votes are weighed by, EngineError
        where it fails.
        """
        if weight == "likelihood" and not self.engine.capabilities.logps:
            raise SettingsError(
                [
                    "vote_weight is 'likelihood', but what samples here tells no log-probs; it must "
                    "be 'equal' or 'brevity'"
                ]
            )
        weigh = weigh_by(weight, self.sample.max_new_tokens)
        take = (
            partial(take_votes, schedule=schedule)
            if budget is None
            else partial(take_votes_within, budget=budget)
        )
        return take(
            self.engine,
            ballots,
            rule,
            Reader(self.decode, self.answers.extract_answer, weigh),
            seed=seed,
            version=self.version,
            purpose=purpose,
            on_verdict=on_verdict,
            on_ballot=on_ballot,
        )

    def correct(self, answer: str | None, gold: str) -> bool:
        """Whether an answer equals the known one; for reports only."""
        return answer is not None and same_answer(answer, gold, self.answers, self.verifier)


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
        unfinished=sum(rollout.finish == "length" for rollout in ballot.rollouts),
    )
