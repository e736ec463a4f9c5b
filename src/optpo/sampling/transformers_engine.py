"""The embedded engine: a batched decoding loop over any transformers causal language model.

A finished or cancelled row leaves at once and a waiting one takes its place; a question's prompt is
computed once and its keys and values are shared out to all of its rollouts. In float32 a rollout's
tokens depend on its own random stream alone: a draw so close that rounding could flip it is
repeated on logits computed for that row by itself (`sampling/draw.py`).
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple, dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from optpo.errors import ModelError
from optpo.rollout import FinishReason
from optpo.sampling.draw import FLOAT32_TOLERANCE, Draw, Noise, draw_tokens
from optpo.sampling.engine import Capabilities, Completion, Request, SampleSettings
from optpo.sampling.module_weights import read_weights
from optpo.sampling.onednn_linear import by_onednn, onednn_forwards
from optpo.sampling.page_cache import PageCache, to_device
from optpo.sampling.paged_attention import can_attend_by_page, paged
from optpo.sampling.prompt_cache import PromptCache


@dataclass
class _Row:
    handle: int
    request: Request
    tokens: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)


class TransformersEngine:
    """Samples from a transformers model in this process, on its device, in batches of `rows`."""

    def __init__(
        self,
        model: PreTrainedModel,
        decode: Callable[[Sequence[int]], str],
        end_tokens: Sequence[int],
        settings: SampleSettings,
        precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        config = model.config.get_text_config()
        layers = set(getattr(config, "layer_types", None) or ())
        unknown = sorted(layers - {"full_attention", "sliding_attention"})
        # Older recurrent models do not name their layers, but say that they carry a state.
        if unknown or getattr(model, "_is_stateful", False):
            named = f" of type {', '.join(unknown)}" if unknown else ""
            raise ModelError(
                f"this model has layers{named} whose state cannot be shared between rollouts; "
                "use a model with attention layers only"
            )
        self._model = model
        self._decode_text = decode
        self._end_tokens = frozenset(end_tokens) | frozenset(settings.stop_tokens)
        self._settings = settings
        # A stop string ends with the newest token; a character takes four byte-level tokens at most.
        self._stop_window = 4 * max(map(len, settings.stop), default=0) + 1
        # Outside float32 rounding is too coarse for any tolerance to make draws repeatable.
        self._precision = precision
        self._exact = model.dtype == torch.float32 and isinstance(precision(), nullcontext)
        self._tolerance = FLOAT32_TOLERANCE if self._exact else 0.0
        self._by_page = can_attend_by_page(model)
        self._cache = PageCache(config.num_hidden_layers, side_by_side=not self._by_page)
        self._forwards = onednn_forwards(model) if self._exact else {}
        self._version = 0
        self._next_handle = 0
        self._waiting: OrderedDict[int, Request] = OrderedDict()
        self._active: list[_Row] = []
        self._finished: dict[int, Completion] = {}
        # The newest tokens of the active rows, and their noise, while they stay the same rows.
        self._next: tuple[Tensor, Noise] | None = None
        self._prompts = PromptCache(model)
        self.repeated_draws = 0

    @property
    def capabilities(self) -> Capabilities:
        """Everything; exact streams in float32 only."""
        return Capabilities(
            cancel=True, logps=True, seed=True, exact_streams=self._exact, prefix_cache=True
        )

    @property
    def slots(self) -> int:
        """The rows of a batch."""
        return self._settings.rows

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens computed so far."""
        return self._prompts.computed_tokens

    def close(self) -> None:
        """Drop everything; there is nothing else to let go of."""
        self._waiting.clear()
        self._active.clear()
        self._finished.clear()
        self._cache.clear()
        self._next = None

    @property
    def lost_tokens(self) -> int:
        """None: a rollout does not fail alone."""
        return 0

    def submit(self, request: Request) -> int:
        """Queue a rollout; rows enter in the order of submission."""
        handle = self._next_handle
        self._next_handle += 1
        self._waiting[handle] = request
        return handle

    @torch.inference_mode()
    def cancel(self, handle: int) -> int:
        """Drop a rollout; its place is free for the next one. Returns the tokens it had cost."""
        if self._waiting.pop(handle, None) or self._finished.pop(handle, None):
            return 0
        for place, row in enumerate(self._active):
            if row.handle == handle:
                self._leave([place])
                return len(row.tokens)
        return 0

    def update_weights(self, version: int, folder: Path | None = None) -> None:
        """Count a new policy version; with a folder, its weights are read into the module.

        Without, the module is shared and has changed; prompts must be computed anew either way.
        Raises RuntimeError while rollouts are in flight: they would mix two policies; and
        EngineError if the folder's weights are not all there or not this module's.
        """
        if self._active or self._waiting:
            raise RuntimeError("weights changed while rollouts were in flight")
        if folder is not None:
            read_weights(self._model, folder)
        self._version = version
        self._prompts.clear()

    @torch.inference_mode()
    def poll(self) -> list[Completion]:
        """Decode until at least one rollout finishes; empty when none is waiting or in flight."""
        with (
            self._precision(),
            paged(self._model) if self._by_page else nullcontext(),
            by_onednn(self._forwards),
        ):
            while not self._finished and (self._waiting or self._active):
                self._admit()
                if self._active and not self._finished:
                    self._decode()
        finished = list(self._finished.values())
        self._finished.clear()
        return finished

    def _admit(self) -> None:
        """Let waiting rollouts in while there is room; each draws its first token."""
        while self._waiting and (room := self._settings.rows - len(self._active)):
            soon = islice(self._waiting.values(), self._settings.rows)
            self._prompts.compute([request.prompt_tokens for request in soon])
            entering, prompts = [], []
            for handle, request in islice(self._waiting.items(), room):
                if (prompt := self._prompts.get(request.prompt_tokens)) is None:
                    break
                entering.append(_Row(handle, request))
                prompts.append(prompt)
            for row in entering:
                del self._waiting[row.handle]
            self._cache.enter([prompt.pages for prompt in prompts])
            self._active += entering
            logits = torch.stack([prompt.logits for prompt in prompts])
            streams = np.array([row.request.stream for row in entering])
            self._draw(logits, entering, Noise(*to_device([streams, 0 * streams], logits.device)))

    def _decode(self) -> None:
        """One token more for every row."""
        rows = self._active
        if self._next is None:
            tokens, streams, drawn = to_device(
                [
                    np.array([row.tokens[-1] for row in rows]),
                    np.array([row.request.stream for row in rows]),
                    np.array([len(row.tokens) for row in rows]),
                ],
                self._model.device,
            )
            self._next = tokens, Noise(streams, drawn)
        tokens, noise = self._next
        step = self._cache.advance()
        # Paged attention sees what the step says, and asks for no mask: one of four dimensions is
        # left as it is.
        by_page = {"step": step, "attention_mask": tokens.new_zeros(1, 1, 1, 1)}
        output = self._model(
            input_ids=tokens[:, None],
            position_ids=step.lengths[:, None] - 1,
            past_key_values=self._cache,
            use_cache=True,
            **(by_page if self._by_page else {"attention_mask": step.mask()}),
        )
        self._draw(output.logits[:, -1], rows, noise)

    def _draw(self, logits: Tensor, rows: Sequence[_Row], noise: Noise) -> None:
        """Draw for these rows, the last of the active ones; those that end leave."""
        draw = draw_tokens(
            logits, noise, self._settings, self._tolerance, _by_entropy(rows, logits.device)
        )
        noise.move_on()
        self._next = (draw.tokens, noise) if len(rows) == len(self._active) else None
        # One transfer; float64 holds every token exactly.
        tokens, logps, close = torch.stack(
            [draw.tokens.double(), draw.logps.double(), draw.close.double()]
        ).tolist()
        if self._exact:
            for place in np.flatnonzero(close).tolist():
                alone = self._draw_alone(rows[place])
                tokens[place], logps[place] = int(alone.tokens), float(alone.logps)
                self._next = None
        ended = []
        first = len(self._active) - len(rows)
        for place, row in enumerate(rows):
            row.tokens.append(int(tokens[place]))
            row.logps.append(logps[place])
            if finish := self._finish_of(row):
                ended.append(first + place)
                self._finished[row.handle] = Completion(
                    row.handle, tuple(row.tokens), tuple(row.logps), finish, self._version
                )
        if ended:
            self._leave(ended)

    def _finish_of(self, row: _Row) -> FinishReason | None:
        if row.tokens[-1] in self._end_tokens:
            return "stop"
        if self._settings.stop:
            text = self._decode_text(row.tokens[-self._stop_window :])
            if any(stop in text for stop in self._settings.stop):
                return "stop"
        return "length" if len(row.tokens) >= self._settings.max_new_tokens else None

    def _draw_alone(self, row: _Row) -> Draw:
        """Repeat a row's draw on logits that no neighbour and no cache had a part in."""
        self.repeated_draws += 1
        device = self._model.device
        sequence = torch.tensor([[*row.request.prompt_tokens, *row.tokens]], device=device)
        logits = self._model(input_ids=sequence, use_cache=False, logits_to_keep=1).logits[:, -1]
        stream = torch.tensor([row.request.stream], device=device)
        noise = Noise(stream, torch.tensor([len(row.tokens)], device=device))
        return draw_tokens(logits, noise, self._settings, 0.0, _by_entropy([row], device))

    def _leave(self, places: Sequence[int]) -> None:
        self._next = None
        self._cache.leave(places)
        for place in reversed(places):
            del self._active[place]


def _by_entropy(rows: Sequence[_Row], device: torch.device) -> Tensor | None:
    """The fields of the rows' temperatures by entropy, (rows, 4); strength 0 for one without."""
    if all(row.request.by_entropy is None for row in rows):
        return None
    nothing = (0.0, 0.0, 0.0, 0.0)
    each = (row.request.by_entropy for row in rows)
    fields = [nothing if one is None else astuple(one) for one in each]
    return torch.tensor(fields, device=device)
