"""What a vote is about, as its journal remembers it."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from optpo.data import Question
    from optpo.sampling.budgeted import Budget
    from optpo.sampling.vote_settings import VoteSettings
    from optpo.training.settings import RunSettings

    Settings = Union[RunSettings, VoteSettings]  # noqa: UP007


def about_vote(
    settings: "Settings", questions: "Sequence[Question]", budget: "Budget | None"
) -> dict[str, Any]:
    """Everything that decides a vote's rollouts and verdicts, as a journal remembers it."""
    from optpo.recipes import settings_to_mapping

    mapping = settings_to_mapping(settings)
    sample = {key: value for key, value in mapping["sample"].items() if key != "rows"}
    asked = json.dumps([[question.id, str(question.prompt)] for question in questions])
    how = [("endpoint", "api"), ("model", "precision"), ("model", "chat")]
    return {
        "model": model_name(settings),
        **{f"{part}.{key}": mapping[part][key] for part, key in how if part in mapping},
        "questions": f"{len(questions)}, {blake2b(asked.encode(), digest_size=8).hexdigest()}",
        "template": settings.data.template,
        "answers": mapping["data"]["answers"],
        "sample": sample,
        **{key: mapping[key] for key in ("seed", "allocate", "vote_weight", "schedule")},
        "budget": None if budget is None else [budget.amount, budget.unit],
    }


def model_name(settings: "Settings") -> str:
    """What a vote calls its model."""
    from optpo.sampling.vote_settings import VoteSettings

    if isinstance(settings, VoteSettings):
        return settings.endpoint.model or settings.endpoint.url
    return settings.model.name or "embedded"
