"""`optpo replay`: stopping rules side by side on recorded votes."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from optpo.cli.flags import budget_flag_problems
from optpo.cli.output import show, show_aside
from optpo.errors import SettingsError

if TYPE_CHECKING:
    from optpo.reporting.replay_chart import Curve
    from optpo.voting.recorded import RecordedVotes
    from optpo.voting.replay import Outcomes
    from optpo.voting.rule import StoppingRule


@dataclass(frozen=True)
class Replay:
    """Replay recorded votes under several stopping rules, side by side; needs no model.

    Each question's recorded answers are read in their own order and in random ones. Agreement is
    with the majority of all recorded answers of the question, never with the truth; accuracy is
    that of the labels where right answers are known, whether the rule was sure of them or not.
    """

    files: Annotated[
        tuple[Path, ...],
        Positional,
        arg(metavar="FILE ...", help_behavior_hint="(one or more)"),
    ]
    """Recorded votes as JSON Lines: id, answers; optionally gold, tokens, model."""
    rules: Annotated[
        str | None, arg(metavar="RULE,...", help_behavior_hint="(default: each rule as it comes)")
    ] = None
    """Rules by commas, settings by colons, as in beta:confidence=0.95,lead:by=5,curtailed."""
    cap: Annotated[int, arg(metavar="N")] = 64
    """Most votes of a question, and at most those of a file's shortest question."""
    floor: Annotated[int, arg(metavar="N")] = 1
    """Fewest votes of a question."""
    orders: Annotated[int, arg(metavar="N")] = 8
    """Orders of each question: its own, and random ones."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Same seed, same orders."""
    compare: Literal["exact", "numeric", "choice"] = "exact"
    """When two answers are one: the same text, the same number, or the same letter."""
    json: Annotated[
        str | None, arg(metavar="FILE|-", help_behavior_hint="(default: not written)")
    ] = None
    """Write rows and calibration as JSON, - to standard output instead of the table."""
    calibration: bool = False
    """Also print how often labels of a claimed confidence were right."""
    plot: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="(default: not drawn)")] = (
        None
    )
    """Draw agreement against votes, each rule at all its levels: .png, .svg or .pdf."""

    def run(self) -> None:
        """Replay, and print the table."""
        self._check_flags()
        from optpo.data.answers import AnswerSettings
        from optpo.recipes.rule_specs import read_rules, shipped_specs
        from optpo.voting.recorded import read_recorded
        from optpo.voting.replay import row_of

        given = shipped_specs() if self.rules is None else self.rules.split(",")
        specs = list(dict.fromkeys(spec.strip() for spec in given))
        _refuse_budgets(specs)
        rules = read_rules([self._all_votes(spec) for spec in specs])
        key = AnswerSettings(compare=self.compare).canonical_key
        recorded = {str(path): read_recorded(path, key) for path in self.files}
        for file, questions in recorded.items():
            shortest = min(questions, key=lambda question: len(question.votes))
            if len(shortest.votes) < self.cap:
                show_aside(
                    f"{file}: the cap is {len(shortest.votes)}, as many votes as question "
                    f"{shortest.id!r} has"
                )
        rows, calibration, panels, limits = [], [], {}, {}
        for file, questions in recorded.items():
            for spec, outcomes in zip(specs, self._replay(file, questions, rules), strict=True):
                rows.append({"file": file, "rule": spec, **row_of(outcomes)})
                calibration.append({"file": file, "rule": spec, **_calibration(outcomes)})
            if self.plot:
                panels[file] = self._curves(file, questions, specs, rules)
                limits[file] = self._limit(questions)
        if self.plot:
            from optpo.reporting.replay_chart import draw_replay

            draw_replay(panels, limits, self.plot.expanduser())
        written = json.dumps({"rows": rows, "calibration": calibration}, indent=2)
        if self.json == "-":
            show(written)
            return
        if self.json:
            _write(Path(self.json).expanduser(), f"{written}\n")
        from optpo.reporting.replay_table import calibration_tables, replay_tables

        show(replay_tables(rows, self.orders), end="")
        if self.calibration:
            show(calibration_tables(calibration), end="")

    def _all_votes(self, spec: str) -> str:
        """A fixed number of votes that nobody has named is all of them."""
        names = [part.split("=")[0] for part in spec.split(":")]
        return f"{spec}:votes={self.cap}" if names[0] == "fixed" and "votes" not in names else spec

    def _check_flags(self) -> None:
        """Refuse what cannot work before anything is read.

        Raises:
            SettingsError: everything that is wrong with the flags.
        """
        problems = budget_flag_problems(self.cap, self.floor, self.orders)
        if not self.files:
            problems.append("replay needs recorded votes: optpo replay FILE ...")
        if self.plot:
            from optpo.reporting.replay_chart import SUFFIXES

            if self.plot.suffix.lower() not in SUFFIXES:
                problems.append(f"--plot is {self.plot}; it must end in {', '.join(SUFFIXES)}")
        outputs = {
            "--plot": self.plot,
            "--json": self.json and self.json != "-" and Path(self.json),
        }
        for flag, path in outputs.items():
            if path and not path.expanduser().parent.is_dir():
                problems.append(f"{flag} {path}: there is no folder {path.parent}")
            elif path and path.expanduser().is_dir():
                problems.append(f"{flag} {path}: is a folder; name a file")
        if problems:
            raise SettingsError(problems)

    def _replay(
        self, file: str, questions: "Sequence[RecordedVotes]", rules: "Sequence[StoppingRule]"
    ) -> "list[Outcomes]":
        """Replay one file; what does not fit its votes is told with its name."""
        from optpo.reporting.terminal import open_view
        from optpo.voting.replay import replay

        try:
            with open_view(sys.stderr) as view:
                return replay(
                    questions,
                    rules,
                    floor=self.floor,
                    cap=self.cap,
                    orders=self.orders,
                    seed=self.seed,
                    progress=lambda done, total: view.progress("replay", done, total, file),
                )
        except SettingsError as error:
            raise SettingsError([f"{file}: {problem}" for problem in error.problems]) from error

    def _curves(
        self,
        file: str,
        questions: "Sequence[RecordedVotes]",
        specs: "Sequence[str]",
        rules: "Sequence[StoppingRule]",
    ) -> "dict[str, Curve]":
        """Mean votes and agreement of each rule at all its levels, named without the level."""
        from optpo.recipes.rule_specs import without_level
        from optpo.voting.replay import row_of
        from optpo.voting.sweep import at_every_level

        curves: dict[str, Curve] = {}
        for spec, rule in zip(specs, rules, strict=True):
            name = without_level(spec, rule)
            if name not in curves:
                found = self._replay(file, questions, at_every_level(rule))
                points = [(row["mean_votes"], row["agreement"]) for row in map(row_of, found)]
                curves[name] = sorted(points)
        return curves

    def _limit(self, questions: "Sequence[RecordedVotes]") -> "Curve":
        """The dynamic-programming limit; none for a single question, which has no other half."""
        if len({question.id for question in questions}) < 2:
            return ()
        from optpo.voting.frontier_curve import frontier_curve

        found = frontier_curve(questions, cap=self.cap, orders=self.orders, seed=self.seed)
        return sorted((point.mean_votes, point.agreement) for point in found)


def _refuse_budgets(specs: Sequence[str]) -> None:
    """Refuse a floor or cap of a single rule: all rules are compared within the same ones.

    Raises:
        SettingsError: a rule has one; only frontier may name the cap that its policy was fitted to.
    """
    problems = [
        f"rule {spec}: {name} is the same for all rules, give it as --{name}"
        for spec in specs
        for name in ("floor", "cap")
        if any(part.startswith(f"{name}=") for part in spec.split(":"))
        and not (name == "cap" and spec.startswith("frontier:"))
    ]
    if problems:
        raise SettingsError(problems)


def _calibration(outcomes: "Outcomes") -> dict[str, Any]:
    """What a rule claims, and by bin how often it erred; errors are 1 - confidence or agreement."""
    from optpo.voting.replay import calibration_of

    return {
        "claims": outcomes.rule.claims,
        "interval": "Wilson, 95 %; labels of one question count as copies of a single one",
        "bins": [
            {
                "confidence_low": row.low,
                "confidence_high": row.high,
                "labels": row.count,
                "questions": row.questions,
                "claimed_error": 1 - row.claimed,
                "observed_error": 1 - row.observed,
                "error_low": 1 - row.interval_high,
                "error_high": 1 - row.interval_low,
            }
            for row in calibration_of(outcomes)
        ],
    }


def _write(path: Path, text: str) -> None:
    """Write a file, replacing it at once when complete."""
    half_written = path.with_name(path.name + ".part")
    half_written.write_text(text, encoding="utf-8")
    half_written.replace(path)
