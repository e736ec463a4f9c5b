"""How many rollouts to have in flight at a server: as many as make it faster, fewer when it protests."""

START = 4
SETTLING = 8
MEASURED = 24
"""Tokens for each rollout in flight that pass after a change before the rate is measured, and that a
measurement takes."""

GAIN = 0.1
"""Of the rise in rollouts in flight the share that the rate must rise by, or the rise is taken back."""

RESTING = 8
"""Measurements for which nothing is tried after a rise was taken back or a server protested."""


class Concurrency:
    """Raises `limit` while tokens a second rise with it, and halves it where the server protests.

    The limit doubles from measurement to measurement until that does not pay or the server protests;
    then it rests for `RESTING` measurements, and doubling is tried again. Only what was measured
    with the limit used is judged: a limit that nobody needs is not raised.

    A pure function of what it is told: no clock, no chance. `now` is in seconds and must not fall.

    Args:
        most: the highest limit, 1 or more rollouts.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = min(START, most)
        # The limit before the rise on trial, and its rate (tokens a second).
        self._before: tuple[int, float] | None = None
        self._rest = 0
        self._in_flight = 0
        self._seen = 0.0
        self._changed = self._seen
        self._restart()

    def observe(self, now: float, in_flight: int, tokens: int = 0) -> None:
        """Note the rollouts in flight from now on, and tokens that have just arrived."""
        if self._settling > 0:
            self._settling -= tokens
            self._opened = now
        else:
            self._tokens += tokens
            self._used += self._in_flight * (now - self._seen)
        self._in_flight, self._seen = in_flight, now
        elapsed = now - self._opened
        if self._tokens < MEASURED * self.limit or elapsed <= 0:
            return
        # Three quarters, because between two polls of a caller some have ended.
        if self._used >= 0.75 * self.limit * elapsed:
            self._judge(now, self._tokens / elapsed)
        else:
            self._restart()

    def protest(self, now: float, asked: float) -> None:
        """Halve the limit: a rollout asked for at the time `asked` was put off or never answered.

        One that was asked for before the last change of the limit says nothing about it.
        """
        if asked < self._changed:
            return
        self._before, self._rest = None, RESTING
        self._set(now, max(1, self.limit // 2))

    def _judge(self, now: float, rate: float) -> None:
        if self._before is not None:
            smaller, rate_before = self._before
            self._before = None
            if rate < rate_before * (1 + GAIN * (self.limit / smaller - 1)):
                self._rest = RESTING
                self._set(now, smaller)
                return
        if self.limit == self.most or self._rest > 0:
            self._rest -= 1
            self._restart()
            return
        self._before = (self.limit, rate)
        self._set(now, min(self.most, 2 * self.limit))

    def _set(self, now: float, limit: int) -> None:
        self.limit, self._changed = limit, now
        self._restart()

    def _restart(self) -> None:
        self._settling = float(SETTLING * self.limit)
        self._tokens, self._used, self._opened = 0, 0.0, self._seen
