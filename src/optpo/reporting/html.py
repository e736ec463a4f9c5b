"""Writes the report of one run, or of several side by side, as one self-contained HTML file."""

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optpo.errors import RunDirectoryError, SettingsError
from optpo.recipes.registry import part_class
from optpo.reporting import charts, formatting
from optpo.reporting.accuracy_rows import AccuracyRow, accuracy_rows
from optpo.reporting.charts import Track
from optpo.reporting.overview import Overview, overview
from optpo.reporting.questions import ListedQuestion, list_questions
from optpo.reporting.run_data import Row, RunData, number, read_run
from optpo.reporting.svg import COMPACT

if TYPE_CHECKING:
    from optpo.voting.calibration import CalibrationBin

QUESTIONS_LISTED = 500
FEWEST_AUDITS = 20
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class _Chart:
    """One figure of the page; `drawing` is None where the run measured nothing to draw."""

    title: str
    caption: str
    drawing: str | None


@dataclass(frozen=True)
class _Page:
    """One run as the template sees it."""

    track: Track
    overview: Overview
    recipe: str
    model: str
    seed: str
    claim: str
    verified: bool
    accuracy: tuple[AccuracyRow, ...]
    audits: int
    audits_agreed: int
    bins: "Sequence[CalibrationBin]"
    questions: tuple[ListedQuestion, ...]
    question_count: int
    guards: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]


def write_report(directories: Sequence[Path], out: Path) -> None:
    """Write the report of the runs in `directories` to `out`, replacing it at once when complete.

    The file asks nothing of any other place and is the same for the same input. At most
    `QUESTIONS_LISTED` questions are listed, shared among the runs.

    Raises RunDirectoryError if there is no run, or one is missing or damaged.
    """
    if not directories:
        raise RunDirectoryError("no run directory was given; give at least one")
    runs = charts.tracks([read_run(directory) for directory in directories])
    page = render(runs)
    out.parent.mkdir(parents=True, exist_ok=True)
    half_written = out.with_name(out.name + ".part")
    half_written.write_text(page, encoding="utf-8")
    os.replace(half_written, out)  # noqa: PTH105 - pathlib's replace does the same


def render(runs: Sequence[Track]) -> str:
    """Return the report of `runs` as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amount": formatting.amount,
        "decimal": formatting.decimal,
        "duration": formatting.duration,
        "percent": formatting.percent,
        "one_line": formatting.one_line,
        "drawing": Markup,
    }
    environment.globals |= {"points": formatting.points, "saving": formatting.saving}
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    pages = [_page(track, QUESTIONS_LISTED // len(runs)) for track in runs]
    return environment.get_template("report.html.jinja").render(
        pages=pages,
        alone=len(pages) == 1,
        progress=_progress_charts(runs),
        votes=_votes_charts(runs),
        calibration=_calibration_chart(pages),
        ledger=_ledger_chart(pages),
        training=_training_charts(runs),
        fixed_votes=charts.FIXED_VOTES,
        fewest_audits=FEWEST_AUDITS,
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _page(track: Track, limit: int) -> _Page:
    run = track.run
    confidences, agrees, audited = _audits(run)
    from optpo.voting.calibration import calibration_bins

    return _Page(
        track=track,
        overview=overview(run),
        recipe=_fact(run, "recipe"),
        model=_fact(run, "model"),
        seed=_fact(run, "seed"),
        claim=_claim(run),
        verified=_verified(run),
        accuracy=accuracy_rows(run),
        audits=len(agrees),
        audits_agreed=sum(agrees),
        bins=calibration_bins(confidences, agrees, audited),
        questions=list_questions(run, limit),
        question_count=len(
            {str(row.get("id")) for row in run.questions}
            | {str(row.get("prompt_id")) for row in run.verdicts}
        ),
        guards=_guards(run),
        settings=tuple(_flat(run.config)),
    )


def _audits(run: RunData) -> tuple[list[float], list[bool], list[str]]:
    """Return confidence, agreement and question of each label checked against the full vote.

    Only verdicts that decided claim anything; the others went to the cap themselves.
    """
    confidences, agrees, questions = [], [], []
    for row in run.verdicts:
        audit, confidence = row.get("audit"), number(row, "confidence")
        agreed = audit.get("agrees") if isinstance(audit, Mapping) else None
        claimed = row.get("kind") == "decided" and confidence is not None and 0 <= confidence <= 1
        if claimed and confidence is not None and isinstance(agreed, bool):
            confidences.append(confidence)
            agrees.append(agreed)
            questions.append(str(row.get("prompt_id")))
    return confidences, agrees, questions


def _claim(run: RunData) -> str:
    """Say what the confidence of the run's rule is about; nothing where the rule is not known."""
    settings = run.config.get("allocate")
    name = settings.get("part") if isinstance(settings, Mapping) else None
    try:
        claims = part_class("allocate", name).claims
    except (SettingsError, AttributeError):
        return ""
    return {
        "mode": "Its rule claims that a label is the answer the model gives most often; the full "
        "vote stands for that here, and is itself a sample.",
        "full vote": "Its rule claims that a label is the one the full vote would end in, which is "
        "exactly what an audit checks.",
    }.get(
        claims,
        "Its rule claims nothing about errors: the confidence is a heuristic figure that need not "
        "be met.",
    )


def _verified(run: RunData) -> bool:
    """Whether a verifier rewards the run's rollouts, where else votes do."""
    return any(number(row, "scored_share") is not None for row in run.steps)


def _fact(run: RunData, name: str) -> str:
    """Return a setting's short form: itself, or the name it is known by."""
    value = run.summary.get(name, run.config.get(name))
    if isinstance(value, Mapping):
        value = value.get("name") or "embedded"
    return formatting.NOTHING if value is None else formatting.one_line(value, longest=60)


def _guards(run: RunData) -> tuple[tuple[str, str], ...]:
    """Return each message once, with the steps it came in."""
    steps: dict[str, list[str]] = {}
    for row in run.steps:
        messages = row.get("guards")
        for message in messages if isinstance(messages, list) else []:
            steps.setdefault(str(message), []).append(str(row.get("step", "?")))
    return tuple((message, ", ".join(places)) for message, places in steps.items())


def _flat(settings: Row, above: str = "") -> list[tuple[str, str]]:
    """Return nested settings as (dotted name, value) pairs."""
    pairs: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{name}.")
        else:
            plain = value if isinstance(value, str) else _as_json(value)
            pairs.append((name, formatting.one_line(plain, longest=400)))
    return pairs


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _progress_charts(runs: Sequence[Track]) -> list[_Chart]:
    if len(runs) > 1:
        captions = ["mean of each run with its 95 % interval"] * 2
    else:
        captions = [
            "mean with its 95 % interval, and the majority vote; dots: each step's rollouts",
            "questions the run never trained on",
        ]
    return [
        _Chart("Adapted questions", captions[0], charts.evaluation_chart(runs, "adapt")),
        _Chart("Unseen questions", captions[1], charts.evaluation_chart(runs, "unseen")),
    ]


def _votes_charts(runs: Sequence[Track]) -> list[_Chart]:
    caption = "how many verdicts took how many votes" if len(runs) == 1 else (
        "share of verdicts reached with so many votes or fewer"
    )  # fmt: skip
    mean = charts.steps_chart(runs, [("mean_votes", "votes")], "mean-votes", from_zero=True)
    return [
        _Chart("Votes before stopping", caption, charts.votes_chart(runs)),
        _Chart("Mean votes, by step", "a policy that agrees with itself needs fewer", mean),
    ]


def _calibration_chart(pages: Sequence[_Page]) -> str | None:
    return charts.calibration_chart(
        [(page.track, page.bins) for page in pages if page.audits >= FEWEST_AUDITS]
    )


def _ledger_chart(pages: Sequence[_Page]) -> str | None:
    return charts.ledger_chart(
        [
            (page.track, page.overview.ledger, page.overview.fixed_budget_tokens)
            for page in pages
            if page.overview.ledger
        ]
    )


def _training_charts(runs: Sequence[Track]) -> list[_Chart]:
    gold = [("accuracy", "rollouts"), ("label_accuracy", "labels")]
    if len(runs) == 1:
        title, caption = "Rollouts and labels", "share of the step's that equal gold"
    else:
        title, caption = "Rollouts", "share of the step's that equal gold"
    first = _Chart(
        title, caption, charts.steps_chart(runs, gold, "sampled", share=True, size=COMPACT)
    )
    asked = (
        ("Entropy", "nats a token", "entropy", False),
        ("Gradient norm", "before clipping", "gradient_norm", False),
        ("KL divergence", "from the reference, nats a token", "kl", False),
        ("Undecided questions", "share of the step's questions", "undecided_share", True),
        ("Label flips", "labels that changed since the last visit", "label_flip_rate", True),
        (
            "Slots in use",
            "of the engine, while a step is sampled",
            "slot_occupancy_over_time",
            True,
        ),
    )
    drawn = (
        _Chart(
            title, caption, charts.steps_chart(runs, [(key, title)], key, share=share, size=COMPACT)
        )
        for title, caption, key, share in asked
    )
    return [chart for chart in (first, *drawn) if chart.drawing]
