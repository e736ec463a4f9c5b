"""What a run has spent."""

import json

from optpo.rollout import Rollout
from optpo.sampling.ballot import Ballot
from optpo.training.ledger import Ledger, fixed_budget_tokens


def ballot_of(*lengths):
    ballot = Ballot("q", (1,), None)
    ballot.rollouts = [
        Rollout("q", n, 0, (1,), (3,) * length, (-1.0,) * length, "stop")
        for n, length in enumerate(lengths)
    ]
    return ballot


def test_the_fixed_budget_is_64_votes_a_question():
    """The estimate is 64 times each question's own mean length, summed: 64 * 3 + 64 * 10."""
    assert fixed_budget_tokens([ballot_of(2, 4), ballot_of(10)]) == 64 * 3 + 64 * 10
    assert fixed_budget_tokens([ballot_of(*[5] * 64)]) == 5 * 64
    assert fixed_budget_tokens([]) == 0


def test_the_ledger_survives_json():
    """Totals come back from a checkpoint, and two ledgers share no counts."""
    ledger = Ledger(tokens=5, seconds=1.5)
    ledger.verdicts["decided"] += 1
    back = Ledger(**json.loads(json.dumps(ledger.to_json())))
    assert back == ledger
    assert Ledger().verdicts["decided"] == 0
