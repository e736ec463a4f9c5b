"""The OpenAI protocol: what is sent for a rollout, and how the answer is read as it streams in."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from optpo.data import ChatMessage
from optpo.rollout import FinishReason
from optpo.sampling.endpoint import Api
from optpo.sampling.engine import Request, SampleSettings
from optpo.sampling.retry import AttemptError, remedy_of

_STOPPED = ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "tool_calls", "function_call")
_BROKEN_OFF = ("abort", "error", "insufficient_system_resource")


@dataclass(frozen=True)
class Dialect:
    """How a server wants to be spoken to: the model's name, and the optional fields it takes."""

    model: str
    fields: frozenset[str]
    length_field: str = "max_tokens"


def request_of(
    request: Request, settings: SampleSettings, dialect: Dialect, api: Api
) -> tuple[str, dict[str, Any]]:
    """The path and the body that ask for a rollout.

    Messages go to /chat/completions, text where `api` says; token ids, which count only where there
    is no prompt, to /completions.
    Raises ValueError where there is neither.
    """
    prompt = request.prompt
    if not (request.prompt_tokens if prompt is None else prompt):
        raise ValueError(f"the question {request.prompt_id!r} is empty")
    body: dict[str, Any] = {"model": dialect.model, "stream": True}
    chat = False
    if prompt is None:
        body["prompt"] = list(request.prompt_tokens)
    elif isinstance(prompt, str) and api == "completions":
        body["prompt"] = prompt
    else:
        chat = True
        messages = (ChatMessage("user", prompt),) if isinstance(prompt, str) else prompt
        body["messages"] = [asdict(message) for message in messages]
    body[dialect.length_field] = settings.max_new_tokens
    optional = optional_fields(settings, chat) | {"seed": seed_of(request.stream)}
    body |= {name: value for name, value in optional.items() if name in dialect.fields}
    return ("/chat/completions" if chat else "/completions"), body


def optional_fields(settings: SampleSettings, chat: bool) -> dict[str, Any]:
    """Every field that a server may refuse, with its value.

    What is off is said to be off: servers have defaults of their own for top_p, top_k, min_p and
    the repetition penalty, some from the model's folder.
    """
    fields: dict[str, Any] = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "top_k": settings.top_k or -1,
        "min_p": settings.min_p,
        "repetition_penalty": 1.0,
        "seed": 0,
        "logprobs": True if chat else 1,
        "return_token_ids": True,
        "stream_options": {"include_usage": True},
    }
    if settings.stop:
        fields |= {"stop": list(settings.stop), "include_stop_str_in_output": True}
    if settings.stop_tokens:
        fields["stop_token_ids"] = list(settings.stop_tokens)
    return fields


def seed_of(stream: int) -> int:
    """A rollout's seed on a server: the lowest 31 bits of its stream.

    Servers take signed or unsigned numbers of 32 or 64 bits, and this range is in all of them. Of
    64 rollouts of a question two share a seed, and so their tokens, once in a million questions.
    """
    return stream & 0x7FFFFFFF


@dataclass(frozen=True)
class Sampled:
    """A whole answer, and how many tokens the prompt had and were cached, where the server tells."""

    tokens: tuple[int, ...]
    logps: tuple[float, ...]
    text: str
    finish: FinishReason
    reason: str
    prompt_tokens: int
    cached_tokens: int


class AnswerReader:
    """Reads one answer, event by event, and knows whether it is whole.

    What comes after the end is not read, so an answer that is delivered twice counts once. An
    answer whose token ids are not as many as the server counts is broken. `quote` shortens what an
    error repeats of the server's words.
    """

    def __init__(self, quote: Callable[[str], str]) -> None:
        self.ended = False
        self._quote = quote
        self._text: list[str] = []
        self._ids: list[int] = []
        self._logps: list[float | None] = []
        self._chunks = 0
        self._finish: str | None = None
        self._counted = 0
        self._prompt_tokens = 0
        self._cached_tokens = 0

    @property
    def tokens(self) -> int:
        """Tokens that have arrived; where the server does not tell, pieces of text."""
        return len(self._ids) or len(self._logps) or self._chunks

    def read(self, data: str) -> None:
        """Read an event of a stream, or a whole answer that came without one.

        Raises AttemptError for what is no answer, and for the error that a server reports in it.
        """
        if self.ended:
            return
        if data.strip() == "[DONE]":
            self.ended = True
            return
        try:
            self._read(json.loads(data))
        except (ValueError, TypeError, AttributeError, KeyError):
            raise AttemptError("again", f"it sent what is no answer: {self._quote(data)}") from None

    def sampled(self) -> Sampled:
        """The answer, once nothing more comes; raises AttemptError where it is not whole."""
        if self._finish is None:
            what = "the answer broke off" if self.tokens else "the answer was empty"
            raise AttemptError("again", f"{what} after {self.tokens} tokens")
        if self._finish in _BROKEN_OFF:
            raise AttemptError("again", f"the server broke the answer off ({self._finish})")
        if self._ids and self._counted not in (0, len(self._ids)):
            raise AttemptError(
                "again", f"{len(self._ids)} tokens arrived where the server counts {self._counted}"
            )
        tokens = tuple(self._ids) or (-1,) * max(1, self._counted or self.tokens)
        logps = tuple(logp for logp in self._logps if logp is not None)
        stopped = self._finish in _STOPPED
        return Sampled(
            tokens=tokens,
            logps=logps if len(logps) == len(tokens) else (),
            text="".join(self._text),
            finish="stop" if stopped else "length",
            reason="" if stopped or self._finish == "length" else self._finish,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
        )

    def _read(self, event: dict[str, Any]) -> None:
        if error := event.get("error"):
            raise self._reported(error)
        if usage := event.get("usage"):
            details = usage.get("prompt_tokens_details") or {}
            self._counted = int(usage.get("completion_tokens") or 0)
            self._prompt_tokens = int(usage.get("prompt_tokens") or 0)
            self._cached_tokens = int(details.get("cached_tokens") or 0)
        for choice in event.get("choices") or ():
            if choice.get("index", 0) == 0 and self._finish is None:
                self._read_choice(choice)

    def _read_choice(self, choice: dict[str, Any]) -> None:
        part = choice.get("delta") or choice.get("message") or {}
        if piece := part.get("content") or choice.get("text"):
            if not isinstance(piece, str):
                raise TypeError("the text of an answer must be text")
            self._text.append(piece)
        if piece or part.get("reasoning_content") or part.get("reasoning"):
            self._chunks += 1
        self._ids.extend(int(token) for token in choice.get("token_ids") or ())
        if logprobs := choice.get("logprobs"):
            told = [entry["logprob"] for entry in logprobs.get("content") or ()]
            told += logprobs.get("token_logprobs") or ()
            self._logps.extend(None if logp is None else float(logp) for logp in told)
        finish = choice.get("finish_reason")
        self._finish = None if finish is None else str(finish)

    def _reported(self, error: Any) -> AttemptError:
        """The error that a server reports instead: an object, or a sentence."""
        told: dict[str, Any] = error if isinstance(error, dict) else {"message": error}
        why = self._quote(str(told.get("message") or told))
        code, kind = str(told.get("code")), told.get("type")
        if code.isdigit() and int(code) >= 400:
            return AttemptError(remedy_of(int(code)), f"it reports error {code}: {why}")
        spent = "insufficient_quota" in (code, kind)
        return AttemptError("fatal" if spent else "again", f"it reports an error: {why}")
