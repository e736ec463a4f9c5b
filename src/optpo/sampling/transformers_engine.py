"""The embedded engine: a batched decoding loop over any transformers causal language model.

A finished or cancelled row leaves at once and a waiting one takes its slot; a question's prompt is
computed once and its keys and values are shared out to all of its rollouts. In float32 a rollout's
tokens depend on its own random stream alone: a draw so close that rounding could flip it is
repeated on logits computed for that row by itself (`sampling/draw.py`).
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from optpo.errors import ModelError
from optpo.rollout import FinishReason
from optpo.sampling.draw import FLOAT32_TOLERANCE, Draw, draw_tokens
from optpo.sampling.engine import Capabilities, Completion, Request, SampleSettings
from optpo.sampling.module_weights import read_weights
from optpo.sampling.slot_cache import PromptCache, SlotCache

PROMPT_CACHE_TOKENS = 16384
PREFILL_PROMPTS = 16


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
        self._cache = SlotCache(config.num_hidden_layers, settings.rows)
        self._version = 0
        self._next_handle = 0
        self._waiting: deque[tuple[int, Request]] = deque()
        self._active: list[_Row] = []
        self._finished: list[Completion] = []
        self._prompts: OrderedDict[tuple[int, ...], tuple[PromptCache, Tensor]] = OrderedDict()
        self._streams = torch.zeros(settings.rows, dtype=torch.int64)
        self.prefill_tokens = 0
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

    def close(self) -> None:
        """Drop everything; there is nothing else to let go of."""
        self._waiting.clear()
        self._active.clear()
        self._finished.clear()
        self._cache.rows = 0

    def submit(self, request: Request) -> int:
        """Queue a rollout; rows enter in the order of submission."""
        handle = self._next_handle
        self._next_handle += 1
        self._waiting.append((handle, request))
        return handle

    @torch.inference_mode()
    def cancel(self, handle: int) -> int:
        """Drop a rollout; its slot is free for the next one. Returns the tokens it had cost."""
        for slot, row in enumerate(self._active):
            if row.handle == handle:
                self._leave(slot)
                return len(row.tokens)
        self._waiting = deque(entry for entry in self._waiting if entry[0] != handle)
        self._finished = [done for done in self._finished if done.handle != handle]
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
        with self._precision():
            while True:
                self._admit()
                if self._finished or not self._active:
                    finished, self._finished = self._finished, []
                    return finished
                self._decode()

    def _admit(self) -> None:
        while self._waiting and len(self._active) < self._settings.rows:
            self._prefill()
            first = len(self._active)
            logits = []
            while self._waiting and len(self._active) < self._settings.rows:
                handle, request = self._waiting[0]
                if request.prompt_tokens not in self._prompts:
                    break
                self._waiting.popleft()
                keys_values, prompt_logits = self._prompts[request.prompt_tokens]
                slot = self._cache.enter(keys_values)
                self._streams[slot] = request.stream
                self._active.append(_Row(handle, request))
                logits.append(prompt_logits)
            self._draw(torch.stack(logits), first)

    def _decode(self) -> None:
        mask = self._cache.advance()
        device = self._model.device
        tokens = torch.tensor([[row.tokens[-1]] for row in self._active], device=device)
        positions = self._cache.lengths[: len(self._active), None].to(device)
        output = self._model(
            input_ids=tokens,
            attention_mask=mask.to(device),
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache.advanced()
        self._draw(output.logits[:, -1], first=0)

    def _draw(self, logits: Tensor, first: int) -> None:
        """Draw for the active rows from `first` on; rows that end leave."""
        rows = self._active[first:]
        positions = torch.tensor([len(row.tokens) for row in rows], device=logits.device)
        streams = self._streams[first : first + len(rows)].to(logits.device)
        draw = draw_tokens(logits, streams, positions, self._settings, self._tolerance)
        tokens, logps = draw.tokens.tolist(), draw.logps.tolist()
        for place in draw.close.nonzero()[:, 0].tolist() if self._exact else ():
            alone = self._draw_alone(rows[place])
            tokens[place], logps[place] = int(alone.tokens), float(alone.logps)
        ended = []
        for place, row in enumerate(rows):
            row.tokens.append(tokens[place])
            row.logps.append(logps[place])
            if finish := self._finish_of(row):
                ended.append(first + place)
                self._finished.append(
                    Completion(
                        row.handle, tuple(row.tokens), tuple(row.logps), finish, self._version
                    )
                )
        for slot in reversed(ended):
            self._leave(slot)

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
        position = torch.tensor([len(row.tokens)], device=device)
        return draw_tokens(logits, stream, position, self._settings, tolerance=0.0)

    def _leave(self, slot: int) -> None:
        self._cache.leave(slot)
        last = self._active.pop()
        if slot < len(self._active):
            self._active[slot] = last
            self._streams[slot] = self._streams[len(self._active)]

    def _prefill(self) -> None:
        """Compute the prompts of the rollouts that are about to enter, each once."""
        needed = {
            request.prompt_tokens for _, request in islice(self._waiting, self._settings.rows)
        }
        for prompt in needed & self._prompts.keys():
            self._prompts.move_to_end(prompt)
        missing = dict.fromkeys(
            request.prompt_tokens
            for _, request in islice(self._waiting, self._settings.rows)
            if request.prompt_tokens not in self._prompts
        )
        wanted = list(missing)[:PREFILL_PROMPTS]
        if not wanted:
            return
        longest = max(map(len, wanted))
        padded = torch.zeros(len(wanted), longest, dtype=torch.int64)
        mask = torch.zeros(len(wanted), longest, dtype=torch.int64)
        for place, prompt in enumerate(wanted):
            padded[place, longest - len(prompt) :] = torch.tensor(prompt)
            mask[place, longest - len(prompt) :] = 1
        device = self._model.device
        cache = DynamicCache()
        output = self._model(
            input_ids=padded.to(device),
            attention_mask=mask.to(device),
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0).to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        for place, prompt in enumerate(wanted):
            self._prompts[prompt] = (
                [_own_columns(layer, place, len(prompt)) for layer in cache.layers],
                output.logits[place, -1].clone(),
            )
        self.prefill_tokens += sum(map(len, wanted))
        kept = sum(map(len, self._prompts))
        for prompt in list(self._prompts):
            if kept <= PROMPT_CACHE_TOKENS or prompt in needed:
                break
            kept -= len(prompt)
            del self._prompts[prompt]


def _own_columns(layer: object, row: int, length: int) -> tuple[Tensor, Tensor]:
    """Keys and values of a left-padded row without its padding, each (heads, length, head size)."""
    assert isinstance(layer, DynamicLayer)
    assert layer.keys is not None and layer.values is not None
    return layer.keys[row, :, -length:].clone(), layer.values[row, :, -length:].clone()
