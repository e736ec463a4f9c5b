"""`optpo vote`: adaptive majority voting without training."""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from optpo.cli.flags import SettingsFlags
from optpo.cli.lines import open_lines
from optpo.cli.output import show, show_aside
from optpo.errors import SettingsError

if TYPE_CHECKING:
    from optpo.data import Question
    from optpo.sampling.ballot import Ballot
    from optpo.sampling.budgeted import Budget
    from optpo.sampling.voter import Voter
    from optpo.voting import StoppingRule


@dataclass(frozen=True)
class Vote(SettingsFlags):
    """Answer questions by adaptive majority vote, without training.

    One verdict a line as JSON, written as soon as it is reached.
    """

    out: Annotated[str, arg(metavar="FILE|-")] = "-"
    """Where the verdicts go; - is standard output."""
    rollouts: Annotated[
        str | None, arg(metavar="FILE", help_behavior_hint="(default: not written)")
    ] = None
    """Also write every rollout counted, one a line as JSON."""
    record: Annotated[
        str | None, arg(metavar="FILE", help_behavior_hint="(default: not written)")
    ] = None
    """Also write each question's votes for `optpo replay`, one question a line as JSON.

    Without their weights, and without questions that a budget left no vote for.
    """
    budget_tokens: Annotated[
        int | None, arg(metavar="N", help_behavior_hint="(default: as the rule needs)")
    ] = None
    """Sample this many tokens at most for all questions together, where they help most."""
    budget_votes: Annotated[
        int | None, arg(metavar="N", help_behavior_hint="(default: as the rule needs)")
    ] = None
    """The same with rollouts."""
    json: bool = False
    """Print the summary as JSON (with --out FILE; verdicts are JSON anyway)."""

    def run(self) -> None:
        """Vote, and say how it went."""
        settings = self.settings()
        budget = self._budget(settings.sample.max_new_tokens)
        from optpo.data import load_questions
        from optpo.reporting.terminal import open_view
        from optpo.sampling.voter import verdict_of
        from optpo.training.evaluation import policy_voter
        from optpo.training.loading import load_policy
        from optpo.training.questions import prompt_tokens

        questions = load_questions(settings.data.questions, settings.data.limit)
        with ExitStack() as stack:
            write_verdict = stack.enter_context(open_lines(self.out, "--out"))
            write_rollout = stack.enter_context(open_lines(self.rollouts, "--rollouts"))
            write_record = stack.enter_context(open_lines(self.record, "--record"))
            policy = load_policy(settings.model, settings.sample.temperature)
            prompts = prompt_tokens(
                policy, questions, settings.model, settings.data, settings.sample.max_new_tokens
            )
            voter = stack.enter_context(
                policy_voter(policy, settings.sample, settings.data.answers)
            )
            view = stack.enter_context(open_view(sys.stderr))

            def finished(ballot: "Ballot") -> None:
                write_verdict(verdict_of(ballot).to_json())
                for rollout in ballot.rollouts:
                    write_rollout(
                        {
                            "prompt_id": rollout.prompt_id,
                            "index": rollout.index,
                            "answer": rollout.answer,
                            "finish": rollout.finish,
                            "tokens": len(rollout.tokens),
                            "text": rollout.text,
                        }
                    )

                if ballot.rollouts:
                    write_record(_recorded(voter, ballot, gold[ballot.prompt_id], model))

            gold = {question.id: question.gold for question in questions}
            model = settings.model.name or "embedded"
            ballots = voter.ballots(prompts)
            voter.vote(
                ballots,
                settings.allocate,
                seed=settings.seed,
                purpose="vote",
                on_verdict=lambda done, total: view.progress("vote", done, total, "questions"),
                on_ballot=finished,
                weight=settings.vote_weight,
                budget=budget,
            )
            summary = _summary(voter, ballots, questions, settings.allocate, budget)
        # Where standard output holds the verdicts, nothing else goes there.
        tell = show_aside if self.out == "-" else show
        tell(json.dumps(summary) if self.json else _in_words(summary))

    def _budget(self, longest: int) -> "Budget | None":
        from optpo.sampling.budgeted import Budget

        if self.budget_tokens is not None and self.budget_votes is not None:
            raise SettingsError(["--budget-tokens and --budget-votes: give one of them"])
        if self.budget_tokens is not None:
            return Budget(self.budget_tokens, "tokens", longest)
        return None if self.budget_votes is None else Budget(self.budget_votes, "votes")


def _recorded(voter: "Voter", ballot: "Ballot", gold: str | None, model: str) -> dict[str, Any]:
    """One question's votes as `optpo replay` reads them: equal answers are written alike."""
    labels, votes = ballot.classes.labels, ballot.tally.votes
    row: dict[str, Any] = {
        "id": ballot.prompt_id,
        "model": model,
        "answers": ["" if vote < 0 else labels[vote] for vote in votes],
        "tokens": [len(rollout.tokens) for rollout in ballot.rollouts],
    }
    if gold is None:
        return row
    right = [voter.correct(label, gold) for label in labels]
    return row | {"gold": gold, "correct": [vote >= 0 and right[vote] for vote in votes]}


def _summary(
    voter: "Voter",
    ballots: "Sequence[Ballot]",
    questions: "Sequence[Question]",
    rule: "StoppingRule",
    budget: "Budget | None",
) -> dict[str, Any]:
    gold = {question.id: question.gold for question in questions}
    right = {
        ballot.prompt_id: voter.correct(ballot.leading, known)
        for ballot in ballots
        if (known := gold[ballot.prompt_id]) is not None
    }
    judged = [
        right[ballot.prompt_id]
        for ballot in ballots
        if ballot.decided and ballot.prompt_id in right
    ]
    rollouts = sum(ballot.tally.total for ballot in ballots)
    return {
        "questions": len(ballots),
        "verdicts": dict(
            Counter(str(ballot.decision.kind) for ballot in ballots if ballot.decision)
        ),
        "rollouts": rollouts,
        "rollouts_at_cap": rule.cap * len(ballots),
        "tokens": sum(ballot.tokens for ballot in ballots),
        "tokens_cancelled": sum(ballot.cancelled_tokens for ballot in ballots),
        "label_accuracy": sum(judged) / len(judged) if judged else None,
        "leading_accuracy": sum(right.values()) / len(right) if right else None,
        "budget": None if budget is None else _under_budget(budget, ballots, rule),
    }


def _under_budget(
    budget: "Budget", ballots: "Sequence[Ballot]", rule: "StoppingRule"
) -> dict[str, Any]:
    costs = {
        "tokens": sum(ballot.tokens + ballot.cancelled_tokens for ballot in ballots),
        "votes": sum(ballot.tally.total + ballot.cancelled_rollouts for ballot in ballots),
    }
    cut = [ballot for ballot in ballots if not rule.decide(ballot.tally).stop]
    return {budget.unit: budget.amount, "spent": costs[budget.unit], "cut_short": len(cut)}


def _in_words(summary: Mapping[str, Any]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in summary["verdicts"].items())
    accuracy = summary["label_accuracy"]
    known = "" if accuracy is None else f"; {accuracy:.1%} of the labels that can be checked right"
    if budget := summary["budget"]:
        known = f"; the budget cut {budget['cut_short']} questions short{known}"
        if (leading := summary["leading_accuracy"]) is not None:
            known += f"; {leading:.1%} of all leading answers right"
    return (
        f"{summary['questions']} questions: {kinds}; {summary['rollouts']} rollouts "
        f"(cap {summary['rollouts_at_cap']}), {summary['tokens']} tokens{known}"
    )
