"""What a setting may be, found by asking the settings themselves."""

from collections.abc import Callable
from dataclasses import replace
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from optpo.errors import OptpoError

_FAR = 1e6
_NEAR = 1e-9
_MOST_TRIED = 4096
_LANDMARKS = (0.0, 0.5, 1.0, 2.0, 10.0, 100.0)


def ranges(settings: Any) -> dict[str, str]:
    """What every single setting of this dataclass may be, by name; those of sections are left out.

    A number's range is not written down anywhere a second time: values are tried, with the other
    settings as they are, and the ends of what is accepted are narrowed down.
    """
    hints = get_type_hints(type(settings))
    found = {name: _range(settings, name, hints[name]) for name in vars(settings) if name in hints}
    return {name: text for name, text in found.items() if text}


def _range(settings: Any, name: str, hint: Any) -> str:
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    if get_origin(hint) is Literal:
        return " | ".join(map(str, get_args(hint)))
    optional = len(kinds) < len(get_args(hint))
    if optional and len(kinds) == 1:
        within = _range(settings, name, kinds[0])
        return f"{within}, or null" if within else ""
    if hint is bool:
        return "true or false"
    if hint in (int, float):
        accepts = _asker(settings, name, hint)
        intervals = _accepted(accepts, whole=hint is int, known=getattr(settings, name))
        return _in_words(intervals) if hint is float else _whole(accepts, intervals)
    return {str: "text"}.get(hint, "a list" if get_origin(hint) is tuple else "")


def _asker(settings: Any, name: str, kind: type[Any]) -> Callable[[float], bool]:
    def accepts(value: float) -> bool:
        try:
            replace(settings, **{name: kind(value)})
        except OptpoError:
            return False
        return True

    return accepts


class _Interval:
    """A stretch of accepted values; an end that is None lies beyond all that was tried."""

    def __init__(self, low: float | None, high: float | None, holds: tuple[bool, bool]) -> None:
        self.low, self.high, self.holds = low, high, holds

    def __str__(self) -> str:
        if self.low is not None and self.low == self.high:
            return f"{self.low:g}"
        low, high = (None if end is None else f"{end:g}" for end in (self.low, self.high))
        if low is None and high is None:
            return "any number"
        if high is None:
            return f"{low} or more" if self.holds[0] else f"above {low}"
        if low is None:
            return f"{high} or less" if self.holds[1] else f"below {high}"
        if all(self.holds):
            return f"{low} to {high}"
        above = f"{low} or more" if self.holds[0] else f"above {low}"
        return f"{above}, {f'{high} at most' if self.holds[1] else f'below {high}'}"


def _accepted(accepts: Callable[[float], bool], *, whole: bool, known: Any) -> list[_Interval]:
    """The stretches of accepted numbers between the points tried."""
    step = 1.0 if whole else _NEAR
    landmarks = {*_LANDMARKS, *(-mark for mark in _LANDMARKS)}
    if isinstance(known, int | float):
        landmarks.add(float(known))
    if whole:
        landmarks = {float(int(mark)) for mark in landmarks}
    points = sorted(
        {mark + off for mark in landmarks for off in (-step, 0.0, step)} | {-_FAR, _FAR}
    )
    answers = [accepts(point) for point in points]
    found: list[_Interval] = []
    low: float | None = None
    inside, holds_low = answers[0], True
    for place in range(1, len(points)):
        if answers[place] == answers[place - 1]:
            continue
        edge, holds = _edge(accepts, points[place - 1], points[place], step)
        if answers[place]:
            low, holds_low, inside = edge, holds, True
        else:
            found.append(_Interval(low, edge, (holds_low, holds)))
            inside = False
    if inside:
        found.append(_Interval(low, None, (holds_low, False)))
    return found


def _edge(
    accepts: Callable[[float], bool], left: float, right: float, step: float
) -> tuple[float, bool]:
    """Where acceptance changes between two points, and whether that number is itself accepted."""
    at_left = accepts(left)
    while right - left > 1.5 * step:
        middle = (left + right) / 2 if step < 1 else float(int((left + right) // 2))
        if accepts(middle) == at_left:
            left = middle
        else:
            right = middle
    if step == 1:
        return (left, True) if at_left else (right, True)
    edge = float(f"{(left + right) / 2:.6g}")
    if abs(edge) < 10 * _NEAR:
        edge = 0.0
    return edge, accepts(edge)


def _whole(accepts: Callable[[float], bool], intervals: list[_Interval]) -> str:
    """The same for whole numbers, which are named one by one where there are gaps among them."""
    ends = [interval.high for interval in intervals]
    if None in ends or intervals[0].low is None:
        return _in_words(intervals).replace("any number", "any whole number")
    tried = range(-_MOST_TRIED, _MOST_TRIED + 1)
    accepted = [value for value in tried if accepts(value)]
    gaps = accepted and len(accepted) <= accepted[-1] - accepted[0]
    return ", ".join(map(str, accepted)) if gaps else _in_words(intervals)


def _in_words(intervals: list[_Interval]) -> str:
    return ", or ".join(map(str, intervals))
