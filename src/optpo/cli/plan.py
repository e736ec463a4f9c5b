"""`optpo plan`: which stopping rule reaches a target error with the fewest votes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

from optpo.cli.flags import budget_flag_problems
from optpo.cli.output import show
from optpo.errors import SettingsError

if TYPE_CHECKING:
    from optpo.voting.plan import Candidate, Interval
    from optpo.voting.recorded import RecordedVotes
    from optpo.voting.rule import StoppingRule
    from optpo.voting.runs import Runs


@dataclass(frozen=True)
class Plan:
    """Find the stopping rule that keeps a target error with the fewest votes; needs no model.

    The votes are assumed (--shares) or recorded (--votes). Every rule's level is chosen on one half
    of the questions, and what it costs is measured on the other. An error is a decided label that
    is not the most frequent answer, right or not.
    """

    error: float = 0.05
    """The most decided labels that may be wrong, as a share."""
    shares: Annotated[
        tuple[str, ...],
        UseAppendAction,
        arg(metavar="P,P,...", help_behavior_hint="(repeatable: kinds of question)"),
    ] = ()
    """Assumed shares of the answers, as 0.5,0.2,0.1; the rest are answers given once only."""
    votes: Annotated[
        tuple[Path, ...], arg(metavar="FILE ...", help_behavior_hint="(instead of --shares)")
    ] = ()
    """Recorded votes as JSON Lines: id, answers; of several files as one set of questions."""
    rules: Annotated[
        str | None, arg(metavar="RULE,...", help_behavior_hint="(default: each rule)")
    ] = None
    """Rules by commas, settings by colons, as in beta,optpo:statistic=posterior."""
    policy: Annotated[
        Path | None, arg(metavar="FILE", help_behavior_hint="(default: none is learnt)")
    ] = None
    """Also learn a policy from the recorded votes, for the rule frontier, and write it here."""
    cap: Annotated[int, arg(metavar="N")] = 64
    """Most votes of a question, and at most those of the shortest recorded one."""
    floor: Annotated[int, arg(metavar="N")] = 1
    """Fewest votes of a question."""
    orders: Annotated[int, arg(metavar="N")] = 8
    """Orders of each recorded question: its own, and random ones."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Same seed, same halves, orders and simulated votes."""
    compare: Literal["exact", "numeric", "choice"] = "exact"
    """When two recorded answers are one: the same text, the same number, or the same letter."""
    json: bool = False
    """Print JSON."""

    def run(self) -> None:
        """Plan, and print the table."""
        self._check_flags()
        plan = self._recorded() if self.votes else self._assumed()
        if self.json:
            show(json.dumps(plan, indent=2))
            return
        from optpo.reporting.plan_table import plan_table

        show(plan_table(plan), end="")

    def _check_flags(self) -> None:
        """Refuse what cannot work before anything is read.

        Raises:
            SettingsError: everything that is wrong with the flags.
        """
        problems = budget_flag_problems(self.cap, self.floor, self.orders)
        if not 0 < self.error < 0.5:
            problems.append(f"--error is {self.error}; it must be above 0 and below 0.5")
        if bool(self.shares) == bool(self.votes):
            problems.append(
                "plan needs either assumed votes, as in --shares 0.5,0.2,0.1, or recorded ones, "
                "as in --votes FILE"
            )
        if self.policy and not self.votes:
            problems.append("--policy is learnt from recorded votes; it needs --votes FILE")
        if self.policy and not self.policy.expanduser().parent.is_dir():
            problems.append(f"--policy {self.policy}: there is no folder {self.policy.parent}")
        if problems:
            raise SettingsError(problems)

    def _assumed(self) -> dict[str, Any]:
        """Plan on simulated votes."""
        from optpo.voting.runs import simulated_runs

        shapes = [_numbers(text) for text in self.shares]
        halves = [
            simulated_runs(shapes, cap=self.cap, seed=2 * self.seed + half) for half in (0, 1)
        ]
        sizes = {"chosen_on": len(halves[0].tallies), "measured_on": len(halves[1].tallies)}
        return self._plan(self._levels(self.cap), halves, shapes, self.cap, sizes)

    def _recorded(self) -> dict[str, Any]:
        """Plan on recorded votes."""
        from optpo.voting.frontier_curve import split_by_id
        from optpo.voting.plan import learn_levels, shares_of
        from optpo.voting.runs import recorded_runs

        questions = self._read()
        cap = min([self.cap, *(len(question.votes) for question in questions)])
        if self.floor > cap:
            raise SettingsError(
                [f"--floor is {self.floor}; the shortest recorded question has {cap} votes"]
            )
        parts = split_by_id(questions, self.seed)
        halves = [
            recorded_runs(part, cap=cap, orders=self.orders, seed=self.seed) for part in parts
        ]
        sizes = {"chosen_on": len(parts[0]), "measured_on": len(parts[1])}
        shapes = [shares_of(question) for question in parts[1]]
        rules = self._levels(cap)
        if self.policy is None:
            return self._plan(rules, halves, shapes, cap, sizes)
        with TemporaryDirectory() as folder:
            rules["frontier"] = learn_levels(parts[0], Path(folder), cap=cap, seed=self.seed)
            return self._plan(rules, halves, shapes, cap, sizes)

    def _read(self) -> "list[RecordedVotes]":
        from optpo.data.answers import AnswerSettings
        from optpo.voting.recorded import read_recorded

        key = AnswerSettings(compare=self.compare).canonical_key
        return [question for path in self.votes for question in read_recorded(path, key)]

    def _levels(self, cap: int) -> "dict[str, Sequence[StoppingRule]]":
        """The rules at all their levels, named without the level."""
        from optpo.recipes.rule_specs import read_rules, shipped_specs, without_level
        from optpo.voting.plan import levels_of

        given = shipped_specs() if self.rules is None else self.rules.split(",")
        # The policy that is learnt stands for the rule frontier.
        specs = [s for spec in given if (s := spec.strip()) != "frontier" or not self.policy]
        levels: dict[str, Sequence[StoppingRule]] = {}
        for spec, rule in zip(specs, read_rules(specs), strict=True):
            levels[without_level(spec, rule)] = levels_of(rule, cap)
        return levels

    def _plan(
        self,
        rules: "Mapping[str, Sequence[StoppingRule]]",
        halves: "Sequence[Runs]",
        shapes: Sequence[Sequence[float]],
        cap: int,
        sizes: Mapping[str, int],
    ) -> dict[str, Any]:
        """The plan as a value that `json` can write; keeps the policy where one was learnt."""
        from optpo.voting.plan import (
            least_error_shown,
            least_votes_for_all_shapes,
            least_votes_for_these_shapes,
            plan_rules,
        )

        found = plan_rules(halves[0], halves[1], rules, error=self.error, floor=self.floor, cap=cap)
        rows = [self._row(candidate) for candidate in found]
        return {
            "target_error": self.error,
            "least_error_shown": least_error_shown(sizes["chosen_on"]),
            "floor": self.floor,
            "cap": cap,
            "votes": [str(path) for path in self.votes] or None,
            "shares": [list(shares) for shares in shapes] if self.shares else None,
            **sizes,
            "least_votes_for_all_shapes": least_votes_for_all_shapes(shapes, self.error, cap),
            "least_votes_for_these_shapes": least_votes_for_these_shapes(shapes, self.error, cap),
            "best": next((row["rule"] for row in rows if row["target"] == "kept"), None),
            "rows": rows,
        }

    def _row(self, candidate: "Candidate") -> dict[str, Any]:
        from optpo.voting.sweep import level_setting

        spec, level = candidate.name, level_setting(candidate.rule)
        if level is not None:
            spec += f":{level}={getattr(candidate.rule, level)}"
        if self.policy and candidate.name == "frontier":
            learnt: Any = candidate.rule
            self.policy.expanduser().write_bytes(Path(learnt.file).read_bytes())
            spec += f":file={self.policy}:cap={candidate.rule.cap}"
        return {
            "rule": spec,
            "target": candidate.target,
            **_interval("mean_votes", candidate.votes),
            **_interval("error", candidate.error),
            **_interval("undecided", candidate.undecided),
        }


def _interval(name: str, values: "Interval | None") -> dict[str, float | None]:
    ends = (None, None, None) if values is None else values
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise SettingsError(
            [f"--shares {text}: must be numbers by commas, as in 0.5,0.2,0.1"]
        ) from None
