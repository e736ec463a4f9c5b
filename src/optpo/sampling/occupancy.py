"""How full an engine was: slots in use over time."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Occupancy:
    """Counts the slots in use from each `note` to the next; seconds are those of `clock`."""

    clock: Callable[[], float] = time.monotonic
    _spans: list[tuple[float, int, int]] = field(default_factory=list)
    _since: tuple[float, int, int] | None = None

    def note(self, in_flight: int, slots: int) -> None:
        """From now on so many rollouts are in flight, in an engine of so many slots."""
        now = self.clock()
        if self._since is not None:
            began, busy, of = self._since
            self._spans.append((now - began, busy, of))
        self._since = (now, min(in_flight, slots), slots)

    @property
    def seconds(self) -> float:
        """From the first note to the last."""
        return sum(span for span, _, _ in self._spans)

    @property
    def slot_seconds(self) -> float:
        """Seconds times slots, empty or in use."""
        return sum(span * slots for span, _, slots in self._spans)

    @property
    def idle_slot_seconds(self) -> float:
        """Seconds times slots that stood empty."""
        return sum(span * (slots - busy) for span, busy, slots in self._spans)

    @property
    def share(self) -> float | None:
        """The mean share of slots in use; None where no time has passed."""
        offered = self.slot_seconds
        return None if offered == 0 else 1 - self.idle_slot_seconds / offered

    def over_time(self, pieces: int = 20) -> list[float]:
        """The share in each of so many equal pieces of the time; empty where none has passed."""
        if self.seconds == 0:
            return []
        length = self.seconds / pieces
        used, offered = [0.0] * pieces, [0.0] * pieces
        at = 0.0
        for span, busy, slots in self._spans:
            end = at + span
            piece = min(int(at / length), pieces - 1)
            while span > 0 and at < end:
                until = end if piece == pieces - 1 else min(end, (piece + 1) * length)
                used[piece] += (until - at) * busy
                offered[piece] += (until - at) * slots
                at, piece = until, min(piece + 1, pieces - 1)
        return [part / whole if whole else 0.0 for part, whole in zip(used, offered, strict=True)]
