"""`optpo evaluate`: mean@k, pass@k and maj@k of a model."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import arg

from optpo.cli.flags import SettingsFlags
from optpo.cli.output import show
from optpo.errors import DataError, SettingsError

_DEFAULT_K = (1, 4, 16, 64)


@dataclass(frozen=True)
class Evaluate(SettingsFlags):
    """Measure a model on questions whose answers are known: mean@k, pass@k and maj@k.

    Intervals are Wilson's at 95 %, with the questions as the sample.
    """

    samples: Annotated[
        int | None, arg(metavar="N", help_behavior_hint="(default: as evaluate.samples says)")
    ] = None
    """Rollouts a question."""
    k: Annotated[
        str | None, arg(metavar="K,...", help_behavior_hint="(default: 1,4,16,64 up to --samples)")
    ] = None
    """For which k to give pass@k and maj@k."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Sample, and print the accuracies."""
        settings = self.settings()
        samples = settings.evaluate.samples if self.samples is None else self.samples
        chosen = self._chosen_k(samples)
        from optpo.data import load_questions
        from optpo.reporting.terminal import open_view
        from optpo.training.engines import open_voter
        from optpo.training.loading import load_policy
        from optpo.training.questions import prompt_tokens
        from optpo.voting import FixedRule

        loaded = load_questions(settings.data.questions, settings.data.limit)
        gold = {question.id: question.gold for question in loaded if question.gold is not None}
        if not gold:
            raise DataError(f"no question of {settings.data.questions} has a known answer (gold)")
        questions = [question for question in loaded if question.id in gold]
        policy = load_policy(settings.model, settings.sample.temperature)
        prompts = prompt_tokens(
            policy, questions, settings.model, settings.data, settings.sample.max_new_tokens
        )
        with open_voter(policy, settings, prompts.values()) as voter:
            ballots = voter.ballots(prompts)
            with open_view(sys.stderr) as view:
                voter.vote(
                    ballots,
                    FixedRule(votes=samples),
                    seed=settings.seed,
                    purpose="evaluate",
                    on_verdict=lambda done, total: view.progress(
                        "evaluation", done, total, "questions"
                    ),
                )
            right = [
                {
                    vote
                    for vote in ballot.tally.counts
                    if voter.correct(ballot.classes.labels[vote], gold[ballot.prompt_id])
                }
                for ballot in ballots
            ]
        result = {
            "model": settings.model.name or "embedded",
            "data": settings.data.questions,
            "seed": settings.seed,
            "questions": len(questions),
            "without_gold": len(loaded) - len(questions),
            "samples": samples,
            "interval": "Wilson over questions, 95 %",
            **accuracies([ballot.tally.votes for ballot in ballots], right, chosen),
        }
        show(json.dumps(result, indent=2) if self.json else _in_words(result))

    def _chosen_k(self, samples: int) -> list[int]:
        if samples < 1:
            raise SettingsError([f"--samples is {samples}; it must be 1 or more"])
        if self.k is None:
            return [k for k in _DEFAULT_K if k <= samples]
        words = [word.strip() for word in self.k.split(",")]
        if not all(word.isdecimal() and 1 <= int(word) <= samples for word in words):
            raise SettingsError(
                [f"--k is {self.k}; it must be numbers like 1,4,16, each from 1 to {samples}"]
            )
        return sorted({int(word) for word in words})


def accuracies(
    votes: Sequence[Sequence[int]], right: Sequence[set[int]], chosen: Sequence[int]
) -> dict[str, Any]:
    """mean@n, and pass@k and maj@k for every k chosen, each with its interval.

    Args:
        votes: a question's votes, as in `Tally`, n each.
        right: a question's right classes.
        chosen: the k.
    """
    from optpo.voting.accuracy import majority_at_k, mean_with_interval, pass_at_k

    questions = [
        (some, sum(vote in classes for vote in some), classes)
        for some, classes in zip(votes, right, strict=True)
    ]

    def estimate(shares: Sequence[float]) -> dict[str, float]:
        return dict(zip(("value", "low", "high"), mean_with_interval(shares), strict=True))

    return {
        "mean": estimate([hits / len(some) for some, hits, _ in questions]),
        "pass": {
            str(k): estimate([pass_at_k(len(some), hits, k) for some, hits, _ in questions])
            for k in chosen
        },
        "majority": {
            str(k): estimate([majority_at_k(some, classes, k) for some, _, classes in questions])
            for k in chosen
        },
    }


def _in_words(result: dict[str, Any]) -> str:
    named = [(f"mean@{result['samples']}", result["mean"])]
    named += [(f"pass@{k}", estimate) for k, estimate in result["pass"].items()]
    named += [(f"maj@{k}", estimate) for k, estimate in result["majority"].items()]
    lines = [
        f"{result['questions']} questions, {result['samples']} samples each; {result['interval']}"
    ]
    if result["without_gold"]:
        lines.append(f"{result['without_gold']} more have no known answer and were left out")
    lines += [
        f"{name:<10} {estimate['value']:7.2%}   {estimate['low']:.2%} to {estimate['high']:.2%}"
        for name, estimate in named
    ]
    return "\n".join(lines)
