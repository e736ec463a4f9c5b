"""The questions of a step, those of middling value more often."""

import math
from collections.abc import Sequence
from hashlib import blake2b

from optpo.errors import DataError, SettingsError

UNVISITED = 0.5
"""The value taken for a question of which nothing is known: it is worth the most to ask."""


def draw_questions(
    ids: Sequence[str],
    values: Sequence[float | None],
    count: int,
    *,
    seed: int,
    step: int,
    explore: float = 0.05,
    least: float = 0.0,
    greatest: float = 1.0,
) -> list[int]:
    """Places in `ids` of `count` questions (all, where there are fewer), the first drawn first.

    Single-stream Policy Optimization's draw (2509.13232, item 8): without replacement, with weights
    sqrt(v (1 - v)) + explore, v the place of a value between the `least` and the `greatest` that
    there can be (outside, the nearer end); None where a question was never visited. Nothing is drawn
    from a posterior, although the published README speaks of Thompson sampling; there, a question
    without a value is never drawn.

    A pure function of its arguments, and of the set of questions rather than their order: each
    question has its own random number, and the smallest of -log(u) / weight are taken (Efraimidis and
    Spirakis 2006). Questions of weight 0 come last.

    Raises:
        DataError: ids occur twice, or values are not one a question or not numbers.
        SettingsError: `explore` or `count` is below 0, or `least` not below `greatest`.
    """
    problems = [
        f"{name} is {value}; it must be 0 or more"
        for name, value in (("explore", explore), ("count", count))
        if not value >= 0
    ]
    if not least < greatest:
        problems.append(f"least is {least}; it must be below greatest, {greatest}")
    if problems:
        raise SettingsError(problems)
    if len(ids) != len(values) or len(set(ids)) != len(ids):
        raise DataError(
            f"{len(values)} values for {len(ids)} questions, {len(set(ids))} of them distinct"
        )
    if wrong := [value for value in values if value is not None and math.isnan(value)]:
        raise DataError(f"{len(wrong)} values are not numbers")
    places = [None if value is None else (value - least) / (greatest - least) for value in values]
    weights = [draw_weight(place, explore) for place in places]
    draws = [_uniform(seed, step, name) for name in ids]
    keys = [
        (-math.log(draw) / weight if weight > 0 else math.inf, draw)
        for draw, weight in zip(draws, weights, strict=True)
    ]
    return sorted(range(len(ids)), key=keys.__getitem__)[:count]


def draw_weight(value: float | None, explore: float) -> float:
    """sqrt(v (1 - v)) + explore."""
    known = UNVISITED if value is None else min(max(value, 0.0), 1.0)
    return math.sqrt(known * (1 - known)) + explore


def _uniform(seed: int, step: int, name: str) -> float:
    """A number in (0, 1), its own for every seed, step and question."""
    text = f"draw\0{seed}\0{step}\0{name}".encode()
    number = int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
    # Of 64 bits only so many that 0 and 1 cannot be reached by rounding.
    return ((number >> 12) + 0.5) / 2**52
