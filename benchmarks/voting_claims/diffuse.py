"""Claim 4: where votes are diffuse a rule abstains rather than name a wrong label for sure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from optpo.recipes.rule_specs import read_rules, shipped_specs
from optpo.voting.recorded import RecordedVotes
from optpo.voting.replay import replay, row_of


def most_diffuse(files: Mapping[str, Sequence[RecordedVotes]]) -> str:
    """The file whose questions give their first answer the smallest share of the votes."""

    def share(question: RecordedVotes) -> float:
        votes = np.array(question.votes)
        return float(np.bincount(votes[votes >= 0], minlength=1).max() / len(votes))

    return min(files, key=lambda file: float(np.mean([share(each) for each in files[file]])))


def by_rule(
    questions: Sequence[RecordedVotes], cap: int, orders: int, seed: int
) -> list[dict[str, Any]]:
    """Every rule as it comes: what it leaves undecided, and how good all and decided labels are."""
    specs = shipped_specs()
    rules = read_rules([f"fixed:votes={cap}" if spec == "fixed" else spec for spec in specs])
    found = replay(questions, rules, cap=cap, orders=orders, seed=seed)
    return [{"rule": spec, **row_of(each)} for spec, each in zip(specs, found, strict=True)]


def table(file: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row a rule."""
    names = {
        "undecided": "undecided",
        "agreement": "agreement",
        "decided_agreement": "of decided",
        "accuracy": "accuracy",
        "decided_accuracy": "of decided",
        "claimed_error": "claimed error",
    }
    shown = Table("rule", "votes", *names.values(), title=file)
    for row in rows:
        cells = ("-" if row[name] is None else f"{100 * row[name]:.1f} %" for name in names)
        shown.add_row(row["rule"], f"{row['mean_votes']:.1f}", *cells)
    return shown
