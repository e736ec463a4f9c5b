"""Claim: one budget for a question set, spent where the next vote is worth most, buys more right labels.

Replays budgets on recorded votes (`--votes FILE ...`, JSON Lines as `optpo replay` reads) and on
simulated ones, each question's votes in a random order a seed. Contenders spend the same total:

- equal: as many votes for every question;
- lead, beta: the stopping rule at the level that spends the budget, as if that were known before; a
  mix of two neighbouring levels where none fits;
- blend: our reading of Blend-ASC (2511.12309): the next vote goes to the question that is highest in
  a mix of Adaptive-Consistency's doubt, 2 P(the leader is not the likelier), and the PPR-1v1 density
  at 1/2, cut at 1; the second's part grows with the share of the budget that is spent;
- value: `optpo.voting.spend`; in turn: `spend_in_turn`, the questions one after another.

Agreement: labels equal to the most frequent of all recorded answers (simulated: to the true mode).
The ratio of a contender: what `value` needs to reach its agreement, and to keep it with any more,
divided by what it has spent; both are means over the orders. Null where 40 votes do not reach it.
The embedded model shares tokens by `optpo vote --budget-tokens`, against an equal number of votes for
every question and against the `optpo` rule on one question after another until the tokens are gone.
"""

import argparse
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import betainc, betaln

from optpo.data import load_questions
from optpo.recipes import build_settings
from optpo.sampling.budgeted import Budget
from optpo.training.engines import open_voter
from optpo.training.loading import load_policy
from optpo.training.questions import prompt_tokens
from optpo.voting import (
    NO_VOTE,
    BetaRule,
    FixedRule,
    LeadRule,
    Tallies,
    spend,
    spend_in_turn,
)
from optpo.voting.recorded import read_recorded

EACH = (2, 3, 4, 6, 8, 12, 16)
EMBEDDED_EACH = (2, 4, 8)
FINE = np.geomspace(1, 40, 120)
CAP = 64

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Curve = tuple[Floats, Floats]


def main() -> None:
    """Run the contenders and print agreement and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--votes", type=Path, nargs="*", default=[], help="recorded votes")
    parser.add_argument("--seed", type=int, nargs="+", default=list(range(8)))
    parser.add_argument("--quick", action="store_true", help="two seeds")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = options.seed[:2] if options.quick else options.seed
    console = Console()
    tables = [compare("simulated", "votes", [simulate(seed) for seed in seeds])]
    for path in options.votes:
        questions = read_recorded(path)
        tables.append(compare(path.name, "votes", [shuffled(questions, seed) for seed in seeds]))
        if all(question.tokens for question in questions):
            tables.append(
                compare(path.name, "tokens", [shuffled(questions, seed) for seed in seeds])
            )
    for table in tables:
        show(console, table)
    embedded = [on_embedded(seed) for seed in seeds[:3]]
    show_embedded(console, embedded)
    if options.json:
        machine = f"{os.cpu_count()} cores ({platform.machine()}), numpy {np.__version__}"
        result = {"machine": machine, "seeds": seeds, "replays": tables, "embedded": embedded}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


class Votes:
    """Votes in one order, what each cost, and the labels that are right."""

    def __init__(self, votes: Integers, costs: Floats, right: NDArray[np.bool_]) -> None:
        self.tallies, self.costs, self.right = Tallies(votes), costs, right
        self.available = (votes != NO_VOTE).sum(axis=1)
        self.rows = np.arange(len(votes))

    def agreement(self, taken: Any) -> float:
        """Share of right labels after `taken` votes of each question."""
        return float(self.right[self.rows, self.tallies.leader[self.rows, taken]].mean())

    def cost(self, taken: Any) -> float:
        """What these votes cost, a question."""
        return float(np.pad(self.costs.cumsum(axis=1), ((0, 0), (1, 0)))[self.rows, taken].mean())


def shuffled(questions: Sequence[Any], seed: int) -> Votes:
    """Recorded votes, the questions and each one's votes in an order of their own."""
    rng = np.random.default_rng(seed)
    votes = np.full((len(questions), CAP), NO_VOTE)
    costs = np.ones(votes.shape)
    # The last column is for a question without any answer, whose leader is -1.
    right = np.zeros((len(questions), 2 + max(max(one.votes) for one in questions)), dtype=bool)
    for row, place in enumerate(rng.permutation(len(questions))):
        recorded = np.array(questions[place].votes)
        order = rng.permutation(len(recorded))[:CAP]
        votes[row, : len(order)] = recorded[order]
        if questions[place].tokens:
            costs[row, : len(order)] = np.array(questions[place].tokens)[order]
        counts = np.bincount(recorded[recorded >= 0], minlength=1)
        right[row, np.flatnonzero(counts == counts.max(initial=1))] = True
    return Votes(votes, costs, right)


def simulate(seed: int, questions: int = 500) -> Votes:
    """Modes of 30 to 100 %, a rival below, the rest spread over ten answers."""
    rng = np.random.default_rng(seed)
    mode = rng.uniform(0.3, 1.0, questions)
    rival = rng.uniform(0, 1, questions) * np.minimum(0.9 * mode, 1 - mode)
    draws = rng.uniform(size=(questions, CAP))
    others = np.where(draws < (mode + rival)[:, None], 1, rng.integers(2, 12, draws.shape))
    right = np.zeros((questions, 13), dtype=bool)
    right[:, 0] = True
    return Votes(np.where(draws < mode[:, None], 0, others), np.ones(draws.shape), right)


def compare(name: str, unit: str, orders: Sequence[Votes]) -> dict[str, Any]:
    """Agreement of every contender at every budget, and what `value` needs for as much."""
    agreement: dict[str, list[Floats]] = {}
    fine = []
    for votes in orders:
        if unit == "votes":
            votes.costs = np.ones(votes.costs.shape)
        # A budget of tokens is given in mean answers, so that both units read the same.
        unit_cost = float(votes.costs[votes.tallies.votes != NO_VOTE].mean())
        curves = contenders(votes, unit, unit_cost)
        fine.append(curves.pop("fine")[1])
        for contender, (cost, share) in curves.items():
            at = np.interp(EACH, cost / unit_cost, share)
            agreement.setdefault(contender, []).append(at)
    kept = np.minimum.accumulate(np.mean(fine, axis=0)[::-1])[::-1]
    return {
        "votes": name,
        "questions": len(orders[0].rows),
        "unit": unit,
        "budgets": EACH,
        "agreement": {
            contender: [spread(column.tolist()) for column in np.transpose(rows)]
            for contender, rows in agreement.items()
        },
        "ratios": {
            contender: [
                float(FINE[(kept >= level).argmax()] / each) if kept[-1] >= level else None
                for level, each in zip(np.mean(rows, axis=0), EACH, strict=True)
            ]
            for contender, rows in agreement.items()
            if contender != "value"
        },
    }


def contenders(votes: Votes, unit: str, unit_cost: float) -> dict[str, Curve]:
    """Cost a question and agreement of each contender, at its levels or at the budgets."""
    tallies, count = votes.tallies, len(votes.rows)

    def curve(takings: Sequence[Any]) -> Curve:
        points = sorted(
            (votes.cost(taken), votes.agreement(taken))
            for taken in (np.minimum(taken, votes.available) for taken in takings)
        )
        return np.array([cost for cost, _ in points]), np.array([share for _, share in points])

    def spent(budgets: Any) -> Curve:
        totals = np.array(budgets) * unit_cost * count
        shares = [votes.agreement(spend(tallies, total, CAP, votes.costs)) for total in totals]
        return totals / count, np.array(shares)

    def stops(rule: Any) -> Any:
        return rule.decide_many(tallies).first_stop

    levels = 1 - np.geomspace(0.49, 1e-7, 100)
    found = {
        "equal": curve(range(1, CAP + 1)),
        "lead": curve([stops(LeadRule(by=by, cap=CAP)) for by in range(1, 30)]),
        "beta": curve([stops(BetaRule(confidence=float(level), cap=CAP)) for level in levels]),
        "value": spent(EACH),
        "fine": spent(FINE),
    }
    if unit == "votes":
        found["blend"] = curve([blend(votes, each * count) for each in EACH])
        found["in turn"] = curve([spend_in_turn(tallies, each * count, CAP) for each in EACH])
    return found


def blend(votes: Votes, budget: int) -> Integers:
    """The votes that every question gets when the next goes to the first by both scores."""
    first, second = votes.tallies.leader_votes, votes.tallies.runner_up_votes
    doubt = 2 * betainc(first + 1.0, second + 1.0, 0.5)
    density = np.exp(-betaln(first + 1.0, second + 1.0) - (first + second) * np.log(2))
    ppr = np.minimum(1.0, density)
    taken = np.zeros(len(votes.rows), dtype=np.int64)
    now, later = np.full(len(taken), 2.0), np.full(len(taken), 2.0)
    for n in range(min(budget, int(votes.available.sum()))):
        share = n / budget
        place = int(((1 - share) * now + share * later).argmax())
        taken[place] += 1
        over = taken[place] >= votes.available[place]
        now[place] = -1.0 if over else doubt[place, taken[place]]
        later[place] = -1.0 if over else ppr[place, taken[place]]
    return taken


def on_embedded(seed: int) -> list[dict[str, Any]]:
    """Accuracy on the 256 unseen embedded questions at the same number of tokens."""
    settings = build_settings("optpo", assignments=["data.questions=unseen"])
    questions = load_questions(settings.data.questions, settings.data.limit)
    policy = load_policy(settings.model, settings.sample.temperature)
    longest = settings.sample.max_new_tokens
    prompts = prompt_tokens(policy, questions, settings.model, settings.data, longest)
    gold = {question.id: question.gold for question in questions}
    with open_voter(policy, settings, prompts.values()) as voter:

        def vote(rule: Any, budget: Budget | None = None) -> list[tuple[int, bool]]:
            ballots = voter.ballots(prompts)
            voter.vote(ballots, rule, seed=seed, purpose="vote", budget=budget)
            return [
                (ballot.tokens, voter.correct(ballot.leading, gold[ballot.prompt_id] or ""))
                for ballot in ballots
            ]

        def share(ended: Sequence[tuple[int, bool]]) -> float:
            return sum(right for _, right in ended) / len(questions)

        in_order, rows = vote(settings.allocate), []
        until = np.cumsum([tokens for tokens, _ in in_order])
        for each in EMBEDDED_EACH:
            equal = vote(FixedRule(votes=each))
            tokens = sum(cost for cost, _ in equal)
            shared = vote(settings.allocate, Budget(tokens, "tokens", longest))
            rows.append(
                {
                    "seed": seed,
                    "votes": each,
                    "tokens": tokens,
                    "tokens_spent": sum(cost for cost, _ in shared),
                    "equal": share(equal),
                    "in order": share(in_order[: int((until <= tokens).sum())]),
                    "budget": share(shared),
                }
            )
    return rows


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, least and most."""
    return {"mean": statistics.mean(values), "min": min(values), "max": max(values)}


def show(console: Console, table: Mapping[str, Any]) -> None:
    """Agreement, then ratios, a row a contender."""
    unit = "votes" if table["unit"] == "votes" else "mean answers' tokens"
    title = f"{table['votes']}: {table['questions']} questions, {unit} a question"
    shown = Table("agreement, %", *map(str, table["budgets"]), title=title)
    for contender, row in table["agreement"].items():
        shown.add_row(contender, *map(words, row))
    console.print(shown)
    shown = Table("ratio", *map(str, table["budgets"]))
    for contender, ratios in table["ratios"].items():
        cells = ["not reached" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        shown.add_row(contender, *cells)
    console.print(shown)


def show_embedded(console: Console, seeds: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Accuracies at the same tokens."""
    table = Table("tokens", "equal", "in order", "budget", title="embedded model, unseen questions")
    for rows in zip(*seeds, strict=True):
        names = ("equal", "in order", "budget")
        cells = [words(spread([row[name] for row in rows])) for name in names]
        table.add_row(f"{rows[0]['tokens']:,} ({rows[0]['votes']} votes each)", *cells)
    console.print(table)


def words(entry: Mapping[str, float]) -> str:
    """A spread in per cent: mean, least and most."""
    mean, least, most = (100 * entry[name] for name in ("mean", "min", "max"))
    return f"{mean:.1f} ({least:.1f} to {most:.1f})"


if __name__ == "__main__":
    main()
