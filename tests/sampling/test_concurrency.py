"""How many rollouts are in flight at a server: as many as pay, fewer when it protests."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optpo.sampling.concurrency import START, Concurrency

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["tokens", "protest", "late protest", "idle"]),
        st.floats(0, 10),
        st.integers(0, 3000),
    ),
    max_size=200,
)


def follow(events, most):
    """Tell a new Concurrency of some events; its limit after each."""
    concurrency, now, limits = Concurrency(most), 0.0, []
    for kind, seconds, tokens in events:
        asked, now = now, now + seconds
        if kind == "protest":
            concurrency.protest(now, now)
        elif kind == "late protest":
            concurrency.protest(now, asked)
        else:
            in_flight = 0 if kind == "idle" else concurrency.limit
            concurrency.observe(now, in_flight, tokens)
        limits.append(concurrency.limit)
    return limits


@given(EVENTS, st.integers(1, 300))
def test_whatever_happens_the_limit_is_within_its_bounds(events, most):
    """At least 1, at most the setting; the same events give the same limits; a protest never raises
    the limit, and nothing more than doubles it."""
    limits = follow(events, most)
    assert all(1 <= limit <= most for limit in limits)
    assert follow(events, most) == limits
    for before, after, (kind, _, _) in zip(limits, limits[1:], events[1:], strict=False):
        assert after <= 2 * before
        assert "protest" not in kind or after <= before


@given(st.integers(1, 300), st.lists(st.integers(0, 500), max_size=100))
def test_a_limit_that_nobody_needs_is_not_raised(most, tokens):
    """With half of it in flight, or nothing, whatever the rate, it stays."""
    concurrency = Concurrency(most)
    start = concurrency.limit
    assert start == min(START, most)
    for second, arrived in enumerate(tokens):
        concurrency.observe(float(second), start // 2, arrived)
    assert concurrency.limit == start


def test_protests_of_the_same_moment_count_once():
    """Rollouts that were asked for before the limit fell say nothing about the limit it fell to."""
    concurrency = Concurrency(64)
    concurrency.limit = 64
    for _ in range(20):
        concurrency.protest(5.0, asked=4.0)
    assert concurrency.limit == 32
    concurrency.protest(6.0, asked=5.5)
    assert concurrency.limit == 16


class Server:
    """Decodes all rows together, a step in fixed + each x rows seconds, for up to `rows` at once.

    Rollouts have geometric lengths, 85 tokens on average; beyond `refuses_beyond` it protests;
    between the times in `away` it answers nothing and every rollout times out.
    """

    def __init__(self, fixed, each, rows=10**9, refuses_beyond=10**9, away=(0.0, 0.0), seed=0):
        self.fixed, self.each, self.rows = fixed, each, rows
        self.refuses_beyond, self.away = refuses_beyond, away
        self.draw = random.Random(seed)

    def rate(self, in_flight):
        """Tokens a second with so many in flight."""
        rows = min(in_flight, self.rows)
        return rows / (self.fixed + self.each * rows)

    def run(self, concurrency, tokens=150_000):
        """Keep the server as full as the limit says; (time, limit, tokens so far) after each step."""
        now, made, rows, history = 0.0, 0, [], []
        while made < tokens:
            while len(rows) < concurrency.limit:
                if len(rows) >= self.refuses_beyond:
                    concurrency.protest(now, now)
                    break
                rows.append(1 + int(self.draw.expovariate(1 / 85)))
            if self.away[0] <= now < self.away[1]:
                asked, now, rows = now, now + 1.0, []
                concurrency.protest(now, asked)
                continue
            active = min(len(rows), self.rows)
            # A busy machine: a step may take half as long again.
            now += (self.fixed + self.each * active) * self.draw.uniform(1, 1.5)
            rows = [left - (place < active) for place, left in enumerate(rows)]
            rows = [left for left in rows if left > 0]
            made += active
            concurrency.observe(now, len(rows), active)
            history.append((now, concurrency.limit, made))
        return history


@pytest.mark.parametrize(
    ("fixed", "each", "rows"),
    [(0.01, 5e-5, 10**9), (0.01, 2e-4, 10**9), (0.01, 1e-3, 10**9), (0.002, 0.002, 10**9),
     (1e-4, 5e-3, 10**9), (0.01, 1e-4, 16), (0.01, 1e-4, 4), (0.01, 1e-4, 1)],
)  # fmt: skip
@pytest.mark.parametrize("seed", [0, 1])
def test_a_server_is_filled_as_far_as_it_pays(fixed, each, rows, seed):
    """In the second half of a run the limit allows 85 % of the best rate there is, on average; and
    where more in flight gives nothing, it stays within a few times what is needed."""
    server = Server(fixed, each, rows, seed=seed)
    history = server.run(Concurrency(256))
    limits = [limit for _, limit, _ in history[len(history) // 2 :]]
    best = max(server.rate(limit) for limit in range(1, 257))
    assert sum(map(server.rate, limits)) / len(limits) >= 0.85 * best
    enough = next(limit for limit in range(1, 257) if server.rate(limit) >= 0.95 * best)
    assert sum(limits) / len(limits) <= max(4 * START, 4 * enough)


@pytest.mark.parametrize("most", [1, 3, 10, 60])
def test_a_server_that_protests_is_kept_near_what_it_takes(most):
    """Of the steps in the second half eight in ten ask for no more than it takes; and on average it
    is more than half full."""
    history = Server(0.01, 1e-4, refuses_beyond=most, seed=2).run(Concurrency(256))
    limits = sorted(limit for _, limit, _ in history[len(history) // 2 :])
    assert limits[len(limits) * 8 // 10] <= most
    assert sum(min(limit, most) for limit in limits) / len(limits) > most / 2


def test_a_server_that_comes_back_is_full_again_soon():
    """While it is away one rollout asks for it; it is as full as before within 20,000 tokens."""
    server = Server(0.01, 1e-4, away=(5.0, 65.0))
    history = server.run(Concurrency(128), tokens=400_000)
    before = max(limit for now, limit, _ in history if now < 5.0)
    back = next(place for place, (now, _, _) in enumerate(history) if now >= 65.0)
    assert before >= 64 and history[back][1] <= 2
    made = history[back][2]
    full = next(tokens for _, limit, tokens in history[back:] if limit >= before / 2)
    assert full - made < 20_000
