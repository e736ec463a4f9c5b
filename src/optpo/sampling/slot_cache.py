"""A key-value cache of fixed slots, in which rows leave and enter without copying the others."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

PromptCache = list[tuple[Tensor, Tensor]]
"""Keys and values a layer, each (heads, prompt tokens, head size)."""


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # typed in part there
    """One layer's keys and values, (slots, heads, columns, head size).

    Rows are aligned at the right: the tokens of every row end at `end`, the next free column.
    """

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # typed in part there
        self.rows = 0
        self.begin = 0
        self.end = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Unused: `SlotCache` makes the buffers."""

    def make(self, slots: int, columns: int, keys: Tensor, values: Tensor) -> None:
        """Make or grow the buffers, keeping what they hold; `keys` and `values` give the shape."""
        old_keys, old_values = self.keys, self.values
        self.keys = keys.new_zeros(slots, keys.shape[0], columns, keys.shape[-1])
        self.values = values.new_zeros(slots, values.shape[0], columns, values.shape[-1])
        if old_keys is not None and old_values is not None:
            self.keys[:, :, : old_keys.shape[2]] = old_keys
            self.values[:, :, : old_values.shape[2]] = old_values
        self.is_initialized = True

    @property
    def buffers(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all slots and columns, those not in use too."""
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one new column for the active rows and return all columns in use."""
        keys, values = self.buffers
        after = self.end + key_states.shape[-2]
        keys[: self.rows, :, self.end : after] = key_states
        values[: self.rows, :, self.end : after] = value_states
        return keys[: self.rows, :, self.begin : after], values[: self.rows, :, self.begin : after]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns in use with the query's, and the offset of the first."""
        return self.end - self.begin + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.end - self.begin

    def get_max_length(self) -> int:
        """No maximum: the buffers grow."""
        return -1


class SlotCache(Cache):
    """All layers of a model; `lengths` (slots,) says how many columns of each row are its own."""

    def __init__(self, layers: int, slots: int) -> None:
        self._slot_layers = [SlotLayer() for _ in range(layers)]
        super().__init__(layers=[*self._slot_layers])
        self.slots = slots
        self.rows = 0
        self.columns = 0
        self.end = 0
        self.lengths = torch.zeros(slots, dtype=torch.int64)

    def enter(self, prompt: PromptCache) -> int:
        """Give a row that begins with this prompt the next slot; returns the slot."""
        length = prompt[0][0].shape[1]
        self._make_room(length, prompt)
        slot = self.rows
        for layer, own in zip(self._slot_layers, prompt, strict=True):
            for buffer, columns in zip(layer.buffers, own, strict=True):
                buffer[slot, :, self.end - length : self.end] = columns
        self.lengths[slot] = length
        self.rows += 1
        return slot

    def leave(self, slot: int) -> None:
        """Free a slot by moving the last row into it."""
        last = self.rows - 1
        if slot != last:
            begin = self.end - int(self.lengths[last])
            for layer in self._slot_layers:
                for buffer in layer.buffers:
                    # Only the mover's own columns: what lies left of them is masked.
                    buffer[slot, :, begin : self.end] = buffer[last, :, begin : self.end]
            self.lengths[slot] = self.lengths[last]
        self.rows = last

    def advance(self) -> Tensor:
        """Prepare a forward of one token a row; returns the mask (rows, columns in use + 1)."""
        if self.end == self.columns:
            self._slide(keep=int(self.lengths[: self.rows].max()))
        lengths = self.lengths[: self.rows]
        begin = self.end - int(lengths.max())
        for layer in self._slot_layers:
            layer.rows, layer.begin, layer.end = self.rows, begin, self.end
        columns = torch.arange(begin, self.end + 1)
        return columns >= (self.end - lengths)[:, None]

    def advanced(self) -> None:
        """Count the column that the forward has just written."""
        self.end += 1
        self.lengths[: self.rows] += 1

    def _make_room(self, length: int, prompt: PromptCache) -> None:
        if self.columns == 0:
            self.columns = max(64, 2 * length)
            for layer, (keys, values) in zip(self._slot_layers, prompt, strict=True):
                layer.make(self.slots, self.columns, keys, values)
        if self.rows == 0:
            self.end = 0
        if self.end < length:
            self._shift_right(length - self.end)

    def _shift_right(self, by: int) -> None:
        # A prompt longer than every row so far: rows move right so that all still end together.
        if self.end + by >= self.columns:
            self._grow(self.end + by)
        for layer in self._slot_layers:
            for buffer in layer.buffers:
                buffer[: self.rows, :, by : self.end + by] = buffer[
                    : self.rows, :, : self.end
                ].clone()
        self.end += by

    def _slide(self, keep: int) -> None:
        # The columns are full: drop those at the left that no row uses, or grow.
        if keep > self.columns // 2:
            self._grow(self.columns)
        else:
            for layer in self._slot_layers:
                for buffer in layer.buffers:
                    buffer[: self.rows, :, :keep] = buffer[
                        : self.rows, :, self.end - keep : self.end
                    ].clone()
            self.end = keep

    def _grow(self, at_least: int) -> None:
        self.columns = max(2 * self.columns, at_least + 1)
        for layer in self._slot_layers:
            keys, values = layer.buffers
            layer.make(self.slots, self.columns, keys[0], values[0])
