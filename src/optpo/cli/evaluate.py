"""`optpo evaluate`: mean@k, pass@k and maj@k of a model."""

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import arg

from optpo.cli.flags import Reward, SettingsFlags, reward_settings
from optpo.cli.output import show
from optpo.errors import RewardError, SettingsError


@dataclass(frozen=True)
class Evaluate(SettingsFlags):
    """Measure a model on questions whose answers can be checked: mean@k, pass@k and maj@k.

    pass@k is unbiased, maj@k exact over all subsets of k. Intervals are Wilson's at 95 %,
    with the questions as the sample.
    """

    samples: Annotated[
        int | None, arg(metavar="N", help_behavior_hint="(default: as evaluate.samples says)")
    ] = None
    """Rollouts a question."""
    k: Annotated[
        str | None,
        arg(metavar="K,...", help_behavior_hint="(default: 1,4,16,64 below --samples, and that)"),
    ] = None
    """For which k to give pass@k and maj@k."""
    reward: Reward = None
    """What says that a rollout is right, as for `optpo train`: a full score (score.full)."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Sample, and print the accuracies."""
        settings = self.settings(reward_settings(self.reward))
        samples = settings.evaluate.samples if self.samples is None else self.samples
        chosen = self._chosen_k(samples)
        from optpo.data import load_questions, open_scorer, require_judged
        from optpo.reporting.terminal import open_view
        from optpo.training.engines import open_voter
        from optpo.training.evaluation import asked_questions, by_k
        from optpo.training.loading import load_policy
        from optpo.training.questions import prompt_tokens
        from optpo.voting import FixedRule
        from optpo.voting.accuracy import mean_at_n

        data = settings.data
        loaded = {question.id: question for question in load_questions(data.questions, data.limit)}
        # Before the model is loaded, which takes longer; mathematics is compared after.
        scorer = open_scorer(settings.score, loaded, data.answers, None)
        require_judged(scorer, loaded.values(), data.questions)
        questions = [question for question in loaded.values() if scorer.judges(question)]
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
            scorer = open_scorer(settings.score, loaded, data.answers, voter.verifier)
            asked = asked_questions(voter, ballots, loaded, scorer)
        if not asked:
            raise RewardError(f"{settings.score.by} gave no rollout a score: nothing is measured")
        estimates = by_k(asked, chosen)
        result = {
            "model": settings.model.name or "embedded",
            "data": settings.data.questions,
            "seed": settings.seed,
            "questions": len(asked),
            "without_gold": len(loaded) - len(asked),
            "samples": samples,
            "scored_by": settings.score.by,
            "interval": "Wilson over questions, 95 %",
            "mean": vars(mean_at_n(asked)),
            "pass": estimates["passes"],
            "majority": estimates["majorities"],
        }
        show(json.dumps(result, indent=2) if self.json else _in_words(result))

    def _chosen_k(self, samples: int) -> list[int]:
        if samples < 1:
            raise SettingsError([f"--samples is {samples}; it must be 1 or more"])
        if self.k is None:
            from optpo.voting.accuracy import usual_k

            return usual_k(samples)
        words = [word.strip() for word in self.k.split(",")]
        if not all(word.isdecimal() and 1 <= int(word) <= samples for word in words):
            raise SettingsError(
                [f"--k is {self.k}; it must be numbers like 1,4,16, each from 1 to {samples}"]
            )
        return sorted({int(word) for word in words})


def _in_words(result: dict[str, Any]) -> str:
    named = [(f"mean@{result['samples']}", result["mean"])]
    named += [(f"pass@{k}", estimate) for k, estimate in result["pass"].items()]
    named += [(f"maj@{k}", estimate) for k, estimate in result["majority"].items()]
    lines = [
        f"{result['questions']} questions, {result['samples']} samples each; {result['interval']}"
    ]
    if result["without_gold"]:
        lines.append(f"{result['without_gold']} more cannot be checked and were left out")
    lines += [
        f"{name:<10} {estimate['value']:7.2%}   {estimate['low']:.2%} to {estimate['high']:.2%}"
        for name, estimate in named
    ]
    return "\n".join(lines)
