"""The questions a report lists: each with its last verdict and a few of its rollouts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optpo.reporting.formatting import one_line
from optpo.reporting.run_data import Row, RunData, number

ROLLOUTS_SHOWN = 3
_TEXT_HEAD = 1400
_TEXT_TAIL = 600


@dataclass(frozen=True)
class ListedRollout:
    """One rollout as the report shows it; `left_out` characters are cut from its middle."""

    index: int
    step: str
    answer: str | None
    kept: bool
    reward: float | None
    advantage: float | None
    finish: str
    head: str
    tail: str
    left_out: int


@dataclass(frozen=True)
class ListedQuestion:
    """One question as the report shows it; `kind` is empty where no verdict was reached yet."""

    id: str
    title: str
    messages: tuple[tuple[str, str], ...]
    step: int | None
    kind: str
    label: str | None
    confidence: float | None
    votes: int | None
    counts: tuple[tuple[str, int], ...]
    unparsed: int
    carried: tuple[tuple[str, float], ...]
    cancelled: int
    gold: str | None
    correct: bool | None
    audit_label: str | None
    audit_agrees: bool | None
    rollouts: tuple[ListedRollout, ...] = ()


def list_questions(run: RunData, limit: int) -> tuple[ListedQuestion, ...]:
    """Return at most `limit` questions of `run` in file order, those with a verdict first."""
    verdicts = {str(row.get("prompt_id")): row for row in run.verdicts}
    questions = {str(row.get("id")): row for row in run.questions}
    for prompt_id in verdicts:
        questions.setdefault(prompt_id, {})
    order = sorted(questions, key=lambda prompt_id: prompt_id not in verdicts)[:limit]
    rollouts = _choose_rollouts(run, {prompt_id for prompt_id in order if prompt_id in verdicts})
    return tuple(
        replace(
            _listed(prompt_id, questions[prompt_id], verdicts.get(prompt_id, {})),
            rollouts=rollouts.get(prompt_id, ()),
        )
        for prompt_id in order
    )


def _listed(prompt_id: str, question: Row, verdict: Row) -> ListedQuestion:
    messages = _messages(question.get("prompt"))
    counts = verdict.get("counts")
    pairs = counts.items() if isinstance(counts, Mapping) else ()
    past = verdict.get("carried")
    carried = past.items() if isinstance(past, Mapping) else ()
    votes, step = number(verdict, "rollouts"), number(verdict, "step")
    gold = question.get("gold")
    if gold is None:
        gold = verdict.get("gold")
    correct = verdict.get("correct")
    audit = verdict.get("audit")
    audit = audit if isinstance(audit, Mapping) else {}
    agrees = audit.get("agrees")
    return ListedQuestion(
        id=prompt_id,
        title=one_line(messages[-1][1]) if messages else prompt_id,
        messages=messages,
        step=None if step is None else int(step),
        kind=one_line(verdict.get("kind") or ""),
        label=_text_or_none(verdict.get("label")),
        confidence=number(verdict, "confidence"),
        votes=None if votes is None else int(votes),
        counts=tuple(sorted(((str(a), int(n)) for a, n in pairs), key=lambda p: (-p[1], p[0]))),
        unparsed=int(number(verdict, "unparsed") or 0),
        carried=tuple(
            sorted(((str(a), float(n)) for a, n in carried), key=lambda pair: (-pair[1], pair[0]))
        ),
        cancelled=int(number(verdict, "cancelled_rollouts") or 0),
        gold=_text_or_none(gold),
        correct=correct if isinstance(correct, bool) else None,
        audit_label=_text_or_none(audit.get("label")),
        audit_agrees=agrees if isinstance(agrees, bool) else None,
    )


def _messages(prompt: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(prompt, Sequence) and not isinstance(prompt, str):
        return tuple(
            (str(message.get("role", "")), str(message.get("content", "")))
            for message in prompt
            if isinstance(message, Mapping)
        )
    return () if prompt is None else (("", str(prompt)),)


def _choose_rollouts(run: RunData, wanted: set[str]) -> dict[str, tuple[ListedRollout, ...]]:
    """Take each question's rollouts from the newest step that sampled it."""
    chosen: dict[str, tuple[ListedRollout, ...]] = {}
    for step, rows in run.rollouts_newest_first():
        missing = wanted - chosen.keys()
        if not missing:
            break
        groups: dict[str, list[Row]] = {}
        for row in rows:
            prompt_id = str(row.get("prompt_id"))
            if prompt_id in missing:
                groups.setdefault(prompt_id, []).append(row)
        for prompt_id, group in groups.items():
            chosen[prompt_id] = tuple(_listed_rollout(row, step) for row in _telling(group))
    return chosen


def _telling(group: list[Row]) -> list[Row]:
    """Pick the few that show most: best kept, worst kept, first not kept, then by index."""
    group = sorted(group, key=lambda row: number(row, "index") or 0)
    kept = [row for row in group if row.get("kept")]
    ranked = sorted(kept, key=lambda row: -(number(row, "reward") or 0))
    first_choice = [*ranked[:1], *ranked[-1:], *[row for row in group if not row.get("kept")][:1]]
    picked: list[Row] = []
    for row in [*first_choice, *group]:
        if len(picked) < ROLLOUTS_SHOWN and not any(row is other for other in picked):
            picked.append(row)
    return sorted(picked, key=lambda row: number(row, "index") or 0)


def _listed_rollout(row: Row, step: str) -> ListedRollout:
    text = str(row.get("text") or "")
    left_out = len(text) - _TEXT_HEAD - _TEXT_TAIL
    cut = left_out > 0
    return ListedRollout(
        index=int(number(row, "index") or 0),
        step=step,
        answer=_text_or_none(row.get("answer")),
        kept=bool(row.get("kept")),
        reward=number(row, "reward"),
        advantage=number(row, "advantage"),
        finish=one_line(row.get("finish") or ""),
        head=text[:_TEXT_HEAD] if cut else text,
        tail=text[-_TEXT_TAIL:] if cut else "",
        left_out=max(0, left_out),
    )


def _text_or_none(value: Any) -> str | None:
    return None if value is None else one_line(value, longest=200)
