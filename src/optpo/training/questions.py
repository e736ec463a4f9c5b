"""The questions of a run, and the tokens a policy is asked with."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from optpo.data import DataSettings, Question, load_questions
from optpo.errors import DataError, ModelError
from optpo.training.policy import Policy
from optpo.training.run_directory import RunDirectory
from optpo.training.settings import ModelSettings, RunSettings

QUESTIONS, UNSEEN = "questions.jsonl", "unseen.jsonl"


def questions_of_run(
    data: DataSettings, directory: RunDirectory
) -> tuple[list[Question], list[Question]]:
    """Those to adapt to and those to watch; the run's own copies where it has begun."""
    sources = (
        (directory.path / QUESTIONS, data.questions, data.limit),
        (directory.path / UNSEEN, data.unseen, None),
    )
    questions, unseen = (
        [] if named is None else load_questions(kept if kept.exists() else named, limit)
        for kept, named, limit in sources
    )
    return questions, unseen


def question_rows(questions: Iterable[Question]) -> Iterator[dict[str, Any]]:
    """The lines of a questions file."""
    for question in questions:
        prompt = question.prompt
        text = prompt if isinstance(prompt, str) else [vars(message) for message in prompt]
        yield {
            "id": question.id,
            "prompt": text,
            "gold": question.gold,
            **question.columns,
        }


def thought_needed(questions: Iterable[Question]) -> dict[str, float]:
    """1 or 0 a question, by id, as its column `needed` says; not a number where it says nothing.

    Raises DataError, naming every such question, where that is anything but true, false or null.
    """
    given = {question.id: question.columns.get("needed") for question in questions}
    wrong = [
        f"{name!r} ({value!r})"
        for name, value in given.items()
        if not isinstance(value, bool | None)
    ]
    if wrong:
        raise DataError(
            f"needed must be true, false or null; it is something else of {', '.join(wrong)}"
        )
    return {name: math.nan if value is None else float(value) for name, value in given.items()}


def prompt_tokens(
    policy: Policy,
    questions: Sequence[Question],
    model: ModelSettings,
    data: DataSettings,
    max_new_tokens: int,
) -> dict[str, tuple[int, ...]]:
    """Tokens a question, by id, with template and chat markup.

    Raises ModelError, naming every such question, where prompt and answer cannot fit the context.
    """
    template = getattr(policy.tokenizer, "chat_template", None)
    if model.chat == "always" and template is None:
        raise ModelError("model.chat is 'always', but the tokenizer has no chat template")
    wrap = model.chat == "always" or (model.chat == "auto" and template is not None)
    tokens = {question.id: _encode(policy, question, data.template, wrap) for question in questions}
    context = getattr(policy.model.config, "max_position_embeddings", None)
    if context is not None:
        problems = [
            _too_long(name, len(prompt), max_new_tokens, context)
            for name, prompt in tokens.items()
            if len(prompt) + max_new_tokens > context
        ]
        if problems:
            more = f"\n... and {len(problems) - 5} more" if len(problems) > 5 else ""
            room = context - max(map(len, tokens.values()))
            fits = f"\nAll fit with --set sample.max_new_tokens={room} or less" if room > 0 else ""
            raise ModelError("\n".join(problems[:5]) + more + fits)
    return tokens


def prompt_variants(
    policy: Policy, questions: Sequence[Question], settings: RunSettings
) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The ways of asking that each question's rollouts take in turn; none where there is one.

    Raises ModelError where they hold tokens that the model does not know.
    """
    found = [
        prompt_tokens(
            policy,
            [with_suffix(question, suffix) for question in questions],
            settings.model,
            settings.data,
            settings.sample.max_new_tokens,
        )
        for suffix in settings.prompts.suffixes
    ]
    unknown = policy.tokenizer.unk_token_id
    if unknown is not None and any(unknown in t for tokens in found for t in tokens.values()):
        raise ModelError(
            "prompts.sentence has words that this model has no tokens for; say it in others, or "
            "announce nothing by --set prompts.sentence='\"\"'"
        )
    names = [question.id for question in questions] if found else []
    return {name: tuple(tokens[name] for tokens in found) for name in names}


def with_suffix(question: Question, suffix: str) -> Question:
    """The same question, with a text behind its prompt, or behind the last message of it."""
    prompt = question.prompt
    if isinstance(prompt, str):
        return replace(question, prompt=prompt + suffix)
    *before, last = prompt
    return replace(question, prompt=(*before, replace(last, content=last.content + suffix)))


def _too_long(name: str, length: int, max_new_tokens: int, context: int) -> str:
    if length >= context:
        return f"question {name!r} has {length} tokens, over the model's context of {context}"
    return (
        f"question {name!r} has {length} tokens; with sample.max_new_tokens {max_new_tokens} "
        f"that is over the model's context of {context}"
    )


def _encode(policy: Policy, question: Question, template: str, wrap: bool) -> tuple[int, ...]:
    if isinstance(question.prompt, str):
        text = template.replace("{prompt}", question.prompt)
        messages = [{"role": "user", "content": text}]
    else:
        wrap = True
        messages = [
            {"role": message.role, "content": message.content} for message in question.prompt
        ]
    if wrap:
        if getattr(policy.tokenizer, "chat_template", None) is None:
            raise ModelError(
                f"question {question.id!r} is a list of chat messages, "
                "but the tokenizer has no chat template"
            )
        text = str(
            policy.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        )
        # The template writes the special tokens itself.
        encoded = policy.tokenizer(text, add_special_tokens=False)
    else:
        encoded = policy.tokenizer(text)
    tokens = tuple(int(token) for token in encoded["input_ids"])
    if not tokens:
        raise ModelError(f"question {question.id!r} has no tokens for this model")
    return tokens
