"""A key-value cache in pages, in which rows leave and enter without copying the others.

A row's keys and values lie in pages of `PAGE` columns anywhere in one pool, and the pool has no
holes: attention reads the pages in use and nothing else, however the rows differ in length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, CacheLayerMixin

PAGE = 32

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class PromptPages:
    """A computed prompt: keys and values a layer, (pages, heads, PAGE, head size) each."""

    length: int
    layers: list[tuple[Tensor, Tensor]]


def in_pages(states: Tensor) -> Tensor:
    """(heads, columns, size) as (pages, heads, PAGE, size), zeros after the end."""
    heads, columns, size = states.shape
    padded = pad(states, (0, 0, 0, -columns % PAGE))
    return padded.view(heads, -1, PAGE, size).transpose(0, 1).contiguous()


@dataclass
class Step:
    """Where the next token of every row goes, and what it sees.

    `lengths` (rows,): columns of each row, the new one included; `width` the most of them. `page`,
    `offset` (rows,): where the new one is written. `owner`, `first` (pages in use,): each page's
    row, and the place in it of the page's first column. `table` (rows, most pages of a row): each
    row's pages in their order.
    """

    width: int
    lengths: Tensor
    page: Tensor
    offset: Tensor
    owner: Tensor
    first: Tensor
    table: Tensor
    _places: dict[int, Tensor] = field(default_factory=dict, init=False)
    _biases: dict[tuple[int | None, int], Tensor] = field(default_factory=dict, init=False)
    _members: Tensor | None = field(default=None, init=False)

    def move_on(self) -> None:
        """Go to the next column of every row; none may have filled its page."""
        self.width += 1
        self.lengths += 1
        self.offset += 1
        for places in self._places.values():
            places.add_(1)
        for (window, heads), bias in list(self._biases.items()):
            if window is None:
                bias.view(-1).index_fill_(0, self._places[heads], 0.0)
            else:
                del self._biases[window, heads]

    def places(self, heads: int) -> Tensor:
        """Where the new columns lie in a pool of (pages x heads x PAGE), (rows x heads,)."""
        if heads not in self._places:
            head = torch.arange(heads, device=self.page.device)
            places = (self.page[:, None] * heads + head) * PAGE + self.offset[:, None]
            self._places[heads] = places.flatten()
        return self._places[heads]

    def bias(self, window: int | None, heads: int) -> Tensor:
        """0 for the columns the new token sees, else -inf, (pages in use x heads, 1, PAGE) float32.

        With a `window` a token sees the last so many columns only, its own included.
        """
        if (window, heads) not in self._biases:
            # Kept up to date by it.
            self.places(heads)
            place = self.first[:, None] + torch.arange(PAGE, device=self.first.device)
            end = self.lengths[self.owner][:, None]
            hidden = place >= end
            if window is not None:
                hidden |= place < end - window
            bias = torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, -torch.inf)
            self._biases[window, heads] = bias.repeat_interleave(heads, 0)[:, None]
        return self._biases[window, heads]

    def sum_by_row(self, parts: Tensor) -> Tensor:
        """(pages in use, ...) added up over each row's pages, (rows, ...)."""
        rows = len(self.lengths)
        if not parts.is_cuda:
            return parts.new_zeros(rows, *parts.shape[1:]).index_add_(0, self.owner, parts)
        # There index_add_ adds in no fixed order, and the last bits of a log-prob would vary.
        if self._members is None:
            row = torch.arange(rows, device=self.owner.device)
            self._members = (row[:, None] == self.owner).to(parts.dtype)
        return (self._members @ parts.flatten(1)).view(rows, *parts.shape[1:])

    def mask(self) -> Tensor:
        """Which columns are a row's own where rows lie side by side, (rows, width) bool."""
        places = torch.arange(self.width, device=self.lengths.device)
        return places >= self.width - self.lengths[:, None]


class PageLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # typed in part there
    """One layer's pool of keys and values, (pages, heads, PAGE, head size) each."""

    is_sliding = False

    def __init__(self, side_by_side: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # typed in part there
        self._side_by_side = side_by_side
        self.step: Step | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Unused: `PageCache` makes the pool."""

    @property
    def pool(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all pages, those not in use too."""
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def grow(self, pages: int, used: int, like: tuple[Tensor, Tensor]) -> None:
        """Make room for so many pages, keeping those in use; `like` gives heads, size and type."""
        # What a page holds beyond its row's end is hidden, but must be finite.
        grown = [states.new_zeros(pages, *states.shape[1:]) for states in like]
        if used:
            for new, old in zip(grown, self.pool, strict=True):
                new[:used] = old[:used]
        self.keys, self.values = grown
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one new column a row; returns the pages in use, or all rows side by side."""
        step, (keys, values) = self._now, self.pool
        places = step.places(keys.shape[1])
        for states, new in ((keys, key_states), (values, value_states)):
            size = new.shape[-1]
            states.view(-1, size).index_copy_(0, places, new.reshape(-1, size).to(states.dtype))
        if not self._side_by_side:
            used = len(step.owner)
            return keys[:used], values[:used]
        # Every row ends in the last column, as masks are used to; what precedes a row is masked.
        place = step.lengths[:, None] - step.width + torch.arange(step.width, device=keys.device)
        place = place.clamp(min=0)
        page, offset = step.table.gather(1, place // PAGE), place % PAGE
        return keys[page, :, offset].transpose(1, 2), values[page, :, offset].transpose(1, 2)

    @property
    def _now(self) -> Step:
        assert self.step is not None
        return self.step

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns of rows side by side with the query's, and the offset of the first."""
        return self._now.width - 1 + query_length, 0

    def get_seq_length(self) -> int:
        """Columns of rows side by side before the query's."""
        return self._now.width - 1

    def get_max_length(self) -> int:
        """No maximum: the pool grows."""
        return -1


class PageCache(Cache):
    """All layers of a model; `lengths` (rows,) are the columns of each row.

    `side_by_side`: layers hand out (rows, heads, columns, size) as any attention reads it, copied
    together at every step, instead of their pages for `paged_attention`.
    """

    def __init__(self, layers: int, side_by_side: bool = False) -> None:
        self._page_layers = [PageLayer(side_by_side) for _ in range(layers)]
        super().__init__(layers=[*self._page_layers])
        self.clear()

    def clear(self) -> None:
        """Drop all rows."""
        self.pages = 0
        self.lengths: Numbers = np.zeros(0, dtype=np.int64)
        self._table: Numbers = np.zeros((0, 1), dtype=np.int64)
        self._owner: Numbers = np.zeros(0, dtype=np.int64)
        self._first: Numbers = np.zeros(0, dtype=np.int64)
        # How often the step may move on before a row needs another page.
        self._moves = 0

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.lengths)

    def enter(self, prompts: Sequence[PromptPages]) -> None:
        """Add rows that begin with these prompts, after those there are."""
        counts = np.array([-(-prompt.length // PAGE) for prompt in prompts])
        first_page, first_row = self.pages, self.rows
        self.lengths = np.append(self.lengths, [prompt.length for prompt in prompts])
        self._table = np.pad(self._table, ((0, len(prompts)), (0, 0)))
        self._add_pages(
            np.repeat(np.arange(first_row, self.rows), counts),
            np.concatenate([np.arange(count) for count in counts]),
            prompts[0].layers,
        )
        for number, layer in enumerate(self._page_layers):
            for which, states in enumerate(layer.pool):
                pages = [prompt.layers[number][which] for prompt in prompts]
                torch.cat(pages, out=states[first_page : self.pages])

    def leave(self, rows: Sequence[int]) -> None:
        """Remove rows; those that remain keep their order."""
        self._moves = 0
        stays = np.ones(self.rows, dtype=bool)
        stays[list(rows)] = False
        kept = stays[self._owner]
        self.pages = int(kept.sum())
        # The last pages move into the holes.
        holes = np.flatnonzero(~kept[: self.pages])
        movers = np.flatnonzero(kept[self.pages :]) + self.pages
        if len(holes):
            to, source = to_device((holes, movers), self._page_layers[0].pool[0].device)
            for layer in self._page_layers:
                for states in layer.pool:
                    states[to] = states[source]
            self._owner[holes], self._first[holes] = self._owner[movers], self._first[movers]
            self._table[self._owner[holes], self._first[holes] // PAGE] = holes
        self._owner = (np.cumsum(stays) - 1)[self._owner[: self.pages]]
        self._first = self._first[: self.pages]
        self._table, self.lengths = self._table[stays], self.lengths[stays]

    def advance(self) -> Step:
        """Give every row one more column, and prepare the forward that writes it."""
        step = self._page_layers[0].step
        if self._moves > 0 and step is not None:
            self._moves -= 1
            self.lengths += 1
            step.move_on()
            return step
        full = np.flatnonzero(self.lengths % PAGE == 0)
        if len(full):
            self._add_pages(full, self.lengths[full] // PAGE)
        place = self.lengths
        self.lengths = place + 1
        offset = place % PAGE
        self._moves = PAGE - 1 - int(offset.max())
        parts = (
            self.lengths,
            self._table[np.arange(self.rows), place // PAGE],
            offset,
            self._owner,
            self._first,
            self._table,
        )
        on_device = to_device(parts, self._page_layers[0].pool[0].device)
        on_device[-1] = on_device[-1].view(self._table.shape)
        step = Step(int(self.lengths.max()), *on_device)
        for layer in self._page_layers:
            layer.step = step
        return step

    def _add_pages(
        self, rows: Numbers, places: Numbers, like: Sequence[tuple[Tensor, Tensor]] | None = None
    ) -> None:
        """Give these rows one more page each, as the row's `places`-th."""
        self._moves = 0
        pages = np.arange(self.pages, self.pages + len(rows))
        self._make_room(self.pages + len(rows), like)
        self.pages += len(rows)
        self._owner = np.append(self._owner, rows)
        self._first = np.append(self._first, places * PAGE)
        missing = int(places.max()) + 1 - self._table.shape[1]
        self._table = np.pad(self._table, ((0, 0), (0, max(0, missing))))
        self._table[rows, places] = pages

    def _make_room(self, pages: int, like: Sequence[tuple[Tensor, Tensor]] | None) -> None:
        if self._page_layers[0].is_initialized and pages <= len(self._page_layers[0].pool[0]):
            return
        # A layer at a time, so that no more than one is held twice.
        for number, layer in enumerate(self._page_layers):
            layer.grow(pages + pages // 2, self.pages, layer.pool if like is None else like[number])


def to_device(parts: Sequence[Numbers], device: torch.device) -> list[Tensor]:
    """Arrays as flat int64 tensors on a device, by one transfer for them all."""
    flat = torch.from_numpy(np.concatenate([part.ravel() for part in parts])).to(device)
    return list(torch.split(flat, [part.size for part in parts]))
