"""One step as rows of the run's files."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optpo.batch import RolloutBatch, segment_mean, segment_sum
from optpo.data import Question
from optpo.rollout import Rollout
from optpo.sampling.ballot import Ballot
from optpo.sampling.occupancy import Occupancy
from optpo.sampling.voter import Voter, verdict_of
from optpo.training.evaluation import accuracy
from optpo.training.judge import Judged
from optpo.training.ledger import fixed_budget_tokens
from optpo.training.visits import Visit

PIECES_OF_A_STEP = 10
"""Into so many equal parts the time of a step's sampling is cut, to see how full the engine was."""


def metrics_row(
    voter: Voter,
    visits: Sequence[Visit],
    questions: Mapping[str, Question],
    judged: Judged,
    flips: Sequence[bool | None],
    full: float = 1.0,
) -> dict[str, Any]:
    """What a step was before its update; `full` is the score from which on a rollout is right."""
    batch, rewards = judged
    ballots = [visit.ballot for visit in visits]
    right = [
        voter.correct(ballot.label, gold)
        for ballot in ballots
        if ballot.label is not None and (gold := questions[ballot.prompt_id].gold) is not None
    ]
    kinds = [verdict_of(ballot).kind for ballot in ballots]
    known_flips = [flip for flip in flips if flip is not None]
    tokens = int(batch.lengths.sum())
    given = ~rewards.isnan()
    drifts = [visit.drift for visit in visits if visit.drift is not None]
    return {
        "accuracy": _accuracy(voter, ballots, questions, batch, full),
        "label_accuracy": sum(right) / len(right) if right else None,
        "labels_judged": len(right),
        "labels_right": sum(right),
        "questions": len(ballots),
        "rollouts": batch.rollouts,
        "rollouts_cancelled": sum(ballot.cancelled_rollouts for ballot in ballots),
        "tokens": tokens,
        "tokens_cancelled": sum(ballot.cancelled_tokens for ballot in ballots),
        "tokens_audit": sum(
            visit.audit.tokens - visit.ballot.tokens for visit in visits if visit.audit is not None
        ),
        "fixed_budget_tokens": fixed_budget_tokens(ballots),
        "verdicts": {kind: kinds.count(kind) for kind in ("decided", "capped", "tied", "empty")},
        "undecided_share": 1 - kinds.count("decided") / len(kinds),
        "mean_votes": batch.rollouts / len(ballots),
        "mean_length": tokens / batch.rollouts,
        # The mean of -log p over what was sampled estimates the entropy a token.
        "entropy": float(-batch.logps.double().mean()),
        "reward": float(rewards[given].mean()) if given.any() else None,
        "zero_variance_groups": int(judged.uniform.sum()),
        "label_flip_rate": sum(known_flips) / len(known_flips) if known_flips else None,
        "loss": None,
        "gradient_norm": None,
        "votes_carried": sum(sum(visit.carried.values()) for visit in visits),
        "drift": sum(drifts) / len(drifts) if drifts else None,
    }


def _accuracy(
    voter: Voter,
    ballots: Sequence[Ballot],
    questions: Mapping[str, Question],
    batch: RolloutBatch,
    full: float,
) -> float | None:
    """Mean over questions of the share of right rollouts: by their scores, without any by gold."""
    scored = ~batch.scores.isnan()
    if not scored.any():
        reached = accuracy(voter, ballots, questions)
        return None if reached is None else reached.mean
    right, groups = (batch.scores[scored] >= full).float(), batch.groups[scored]
    asked = segment_sum(torch.ones_like(right), groups, batch.group_count) > 0
    return float(segment_mean(right, groups, batch.group_count)[asked].mean())


def kept_figures(batch: RolloutBatch, keep: Tensor) -> dict[str, int]:
    """How much of a step is trained on."""
    tokens, kept = int(batch.lengths.sum()), int(batch.lengths[keep].sum())
    return {
        "rollouts_kept": int(keep.sum()),
        "tokens_kept": kept,
        "tokens_untrained": tokens - kept,
    }


def slot_figures(occupancies: Sequence[Occupancy]) -> dict[str, Any]:
    """How full the engines of all processes were while a step was sampled."""
    offered = sum(one.slot_seconds for one in occupancies)
    idle = sum(one.idle_slot_seconds for one in occupancies)
    shares = [pieces for one in occupancies if (pieces := one.over_time(PIECES_OF_A_STEP))]
    return {
        "slot_seconds": offered,
        "slot_seconds_idle": idle,
        "slot_occupancy": 1 - idle / offered if offered else None,
        "slot_occupancy_over_time": [
            round(sum(piece) / len(shares), 3) for piece in zip(*shares, strict=True)
        ],
    }


def verdict_rows(
    step: int,
    voter: Voter,
    visits: Sequence[Visit],
    questions: Mapping[str, Question],
) -> Iterator[dict[str, Any]]:
    """A line a question: its verdict, whether it was right, and what its audit found."""
    for visit in visits:
        ballot, audit = visit.ballot, visit.audit
        gold = questions[ballot.prompt_id].gold
        known = gold is not None and ballot.leading is not None
        yield {
            "step": step,
            **verdict_of(ballot).to_json(),
            "gold": gold,
            "correct": voter.correct(ballot.leading, str(gold)) if known else None,
            "audit": None
            if audit is None
            else {
                "rollouts": audit.tally.total,
                "label": audit.leading,
                "agrees": audit.leading == ballot.leading,
            },
        }


def rollout_rows(
    rollouts: Sequence[Rollout], keep: Tensor, rewards: Tensor, advantages: Tensor
) -> Iterator[dict[str, Any]]:
    """A line a rollout; reward and advantage are null where there is none."""
    columns = (keep.tolist(), rewards.tolist(), advantages.tolist())
    for rollout, kept, reward, advantage in zip(rollouts, *columns, strict=True):
        yield {
            "prompt_id": rollout.prompt_id,
            "index": rollout.index,
            "version": rollout.version,
            "tokens": list(rollout.tokens),
            "logps": [round(value, 6) for value in rollout.logps],
            "text": rollout.text,
            "answer": rollout.answer,
            "vote": rollout.vote,
            "finish": rollout.finish,
            "kept": kept,
            "reward": None if math.isnan(reward) else reward,
            "advantage": None if math.isnan(advantage) else round(advantage, 6),
        }
