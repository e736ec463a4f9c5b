"""The slot cache: every row keeps its own columns, whatever its neighbours do."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from optpo.sampling.slot_cache import SlotCache

LAYERS, SLOTS, HEADS, SIZE = 2, 5, 2, 3

moves = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.integers(1, 200)),
        st.tuples(st.just("leave"), st.integers(0, SLOTS - 1)),
        # Stretches of decoding, so that the columns run full and slide or grow.
        st.tuples(st.just("advance"), st.integers(1, 90)),
    ),
    max_size=12,
)


@given(moves)
def test_rows_hold_exactly_their_own_columns(moves):
    """After any entering, leaving and decoding, the columns that the mask shows of each row are the
    keys and values written for it, in order, and no others."""
    cache, rows, written = SlotCache(LAYERS, SLOTS), [], 0
    for move, number in moves:
        if move == "enter" and len(rows) < SLOTS:
            written += 1
            prompt = (
                torch.full((HEADS, number, SIZE), written) + torch.arange(number)[:, None] / 512
            )
            assert cache.enter([(prompt, -prompt)] * LAYERS) == len(rows)
            rows.append(prompt)
        elif move == "leave" and number < len(rows):
            cache.leave(number)
            last = rows.pop()
            if number < len(rows):
                rows[number] = last
        elif move == "advance" and rows:
            for _ in range(number):
                mask = cache.advance()
                assert mask.shape == (len(rows), cache.layers[0].get_seq_length() + 1)
                # At least one row uses the leftmost column: none is carried along for nothing.
                assert mask[:, 0].any()
                written += 1
                column = torch.full((len(rows), HEADS, 1, SIZE), float(written))
                for layer in cache.layers:
                    keys, values = layer.update(column, -column)
                cache.advanced()
                rows = [torch.cat([row, column[0]], dim=1) for row in rows]
                for row, row_mask, row_keys, row_values in zip(
                    rows, mask, keys, values, strict=True
                ):
                    assert row_keys[:, row_mask].equal(row)
                    assert row_values[:, row_mask].equal(-row)
        assert cache.lengths[: len(rows)].tolist() == [row.shape[1] for row in rows]


def test_an_emptied_cache_begins_again_at_the_left():
    """When the last row leaves, the columns are free again: a run's memory does not creep."""
    cache = SlotCache(1, 2)
    prompt = [(torch.ones(1, 5, 1), torch.ones(1, 5, 1))]
    for _ in range(50):
        cache.enter(prompt)
        for _ in range(20):
            cache.advance()
            cache.layers[0].update(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
            cache.advanced()
        cache.leave(0)
    assert cache.columns == 64
