"""What cancelled rollouts had cost, told before the process that knows has answered."""


class CancelCosts:
    """Estimates from a rollout's age, each put right in later ones once the true number is known.

    So the sum over many is true, but for those whose number is still to come.
    """

    def __init__(self) -> None:
        self._seconds, self._tokens, self._longest = 0.0, 0, 0
        self._estimates: dict[int, int] = {}
        self._owed = 0

    def ended(self, tokens: int, seconds: float) -> None:
        """Learn the pace from a rollout that came back so long after it was sent."""
        self._seconds += seconds
        self._tokens += tokens
        self._longest = max(self._longest, tokens)

    def estimate(self, handle: int, seconds: float) -> int:
        """Tokens of a rollout cancelled so long after it was sent; not more than the longest had."""
        pace = self._tokens / self._seconds if self._seconds > 0 else 0.0
        own = min(self._longest, round(pace * seconds))
        told = min(self._longest, max(0, own + self._owed))
        self._estimates[handle] = own
        self._owed -= told - own
        return told

    def counted(self, handle: int, tokens: int) -> None:
        """Learn the true number of one that was estimated."""
        self._owed += tokens - self._estimates.pop(handle)
