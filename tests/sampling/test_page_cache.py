"""The page cache: every row keeps its own columns, whatever its neighbours do."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.sampling.page_cache import PAGE, PageCache, PromptPages, in_pages
from optpo.sampling.paged_attention import paged_attention

LAYERS, ROWS, HEADS, SIZE = 2, 5, 2, 3

moves = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.lists(st.integers(1, 100), min_size=1, max_size=3)),
        st.tuples(st.just("leave"), st.sets(st.integers(0, ROWS - 1), min_size=1)),
        st.tuples(st.just("advance"), st.integers(1, 90)),
    ),
    max_size=12,
)


def prompt_of(columns):
    """A prompt of these columns, (heads, columns, size), in every layer; values are their negative."""
    pages = in_pages(columns)
    return PromptPages(columns.shape[1], [(pages, -pages)] * LAYERS)


def rows_in_pages(step, keys):
    """Each row's own columns, (heads, columns, size), read through what the step says of pages."""
    rows = []
    seen = step.bias(None, 1)[:, 0] == 0
    for row in range(len(step.lengths)):
        pages = (step.owner == row).nonzero()[:, 0]
        pages = pages[step.first[pages].argsort()]
        rows.append(torch.cat([keys[page][:, seen[page]] for page in pages], dim=1))
    return rows


@given(moves, st.booleans())
def test_rows_hold_exactly_their_own_columns(moves, side_by_side):
    """After any entering, leaving and decoding, the columns shown of each row, by page or side by
    side, are the keys and values written for it, in order, and no others."""
    cache, rows, written = PageCache(LAYERS, side_by_side), [], 0
    for move, what in moves:
        if move == "enter" and len(rows) + len(what) <= ROWS:
            entering = []
            for length in what:
                written += 1
                own = torch.arange(length)[:, None] / 512
                entering.append(torch.full((HEADS, length, SIZE), float(written)) + own)
            cache.enter([prompt_of(columns) for columns in entering])
            rows += entering
        elif move == "leave":
            leaving = [row for row in sorted(what) if row < len(rows)]
            cache.leave(leaving)
            rows = [columns for row, columns in enumerate(rows) if row not in leaving]
        elif move == "advance" and rows:
            for _ in range(what):
                step = cache.advance()
                written += 1
                column = torch.full((len(rows), HEADS, 1, SIZE), float(written))
                for layer in cache.layers:
                    keys, values = layer.update(column, -column)
                rows = [torch.cat([row, column[0]], dim=1) for row in rows]
                # Nothing but the rows' own pages is handed out.
                pages = sum(-(-row.shape[1] // PAGE) for row in rows)
                assert len(step.owner) == pages
                if side_by_side:
                    assert keys.shape[2] == cache.layers[0].get_seq_length() + 1
                    found = [own[:, mask] for own, mask in zip(keys, step.mask(), strict=True)]
                else:
                    assert keys.shape[0] == pages
                    found = rows_in_pages(step, keys)
                assert values.equal(-keys)
                for own, row in zip(found, rows, strict=True):
                    assert own.equal(row)
        assert cache.lengths.tolist() == [row.shape[1] for row in rows]


def test_memory_follows_what_rows_hold():
    """The pool is as large as the columns in use ask for: rows that come and go do not make it
    creep, and one long row does not widen the others."""
    cache = PageCache(1)
    short = prompt_of(torch.ones(HEADS, 5, SIZE))
    for _ in range(50):
        cache.enter([short, short])
        for _ in range(20):
            cache.advance()
        cache.leave([0, 1])
    assert cache.layers[0].keys.shape[0] <= 3
    cache.enter([prompt_of(torch.ones(HEADS, 40 * PAGE, SIZE)), *[short] * 40])
    assert cache.layers[0].keys.shape[0] <= 1.5 * 80


@given(
    st.lists(st.integers(1, 3 * PAGE), min_size=1, max_size=4),
    st.sampled_from([None, 1, 7, PAGE, 50]),
    st.sampled_from([1, 3]),
)
def test_attention_by_page_equals_attention_by_row(lengths, window, groups):
    """Softmax over a row's pages is softmax over its columns, with a window and with shared heads
    too, however scores are spread."""
    generator = torch.Generator().manual_seed(sum(lengths))
    cache = PageCache(LAYERS)
    prompts = [4 * torch.randn(HEADS, length, SIZE, generator=generator) for length in lengths]
    cache.enter([prompt_of(prompt) for prompt in prompts])
    step = cache.advance()
    rows = len(lengths)
    new = torch.randn(rows, HEADS, 1, SIZE, generator=generator)
    query = 4 * torch.randn(rows, HEADS * groups, 1, SIZE, generator=generator)
    keys, values = cache.layers[0].update(new, -new)
    output, _ = paged_attention(
        torch.nn.Identity(), query, keys, values, None, 0.7, step=step, sliding_window=window
    )
    for row, prompt in enumerate(prompts):
        columns = torch.cat([prompt, new[row]], dim=1)[:, -(window or 10**6) :]
        for head in range(HEADS * groups):
            own = columns[head // groups]
            weights = (0.7 * query[row, head] @ own.T).softmax(-1)
            assert torch.allclose(output[row, 0, head], (weights @ -own)[0], atol=1e-4)
