"""A cluster of engines without a model: seeded votes, log-normal durations and a clock of its own.

Every slot decodes one rollout at a time and knows nothing of its neighbours. An engine that takes
new weights first lets its rollouts end, as the protocol asks.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optpo.sampling.ballot import Ballot, Reader
from optpo.sampling.engine import Capabilities, Completion, Request

ANSWERS = 6
"""Of each question: the likeliest, and five that share what it leaves."""


@dataclass(frozen=True)
class Questions:
    """What each rollout of each question will say, and how many seconds it takes, (Q, cap) each."""

    votes: NDArray[np.int64]
    seconds: NDArray[np.float64]


def draw_questions(count: int, cap: int, mean: float, sigma: float, seed: int) -> Questions:
    """The likeliest answer's share is uniform in [0.3, 1]; ln(duration) has the deviation `sigma`."""
    draw = np.random.default_rng(seed)
    likeliest = draw.uniform(0.3, 1.0, (count, 1)) > draw.random((count, cap))
    votes = np.where(likeliest, 0, draw.integers(1, ANSWERS, (count, cap)))
    seconds = draw.lognormal(np.log(mean) - sigma**2 / 2, sigma, (count, cap))
    return Questions(votes, seconds)


class Numbers:
    """Answer classes that are known beforehand."""

    @property
    def labels(self) -> list[str]:
        """All answers."""
        return [str(number) for number in range(ANSWERS)]

    def classify(self, answer: str | None) -> int:
        """The answer is its own class."""
        return -1 if answer is None else int(answer)

    def to_json(self) -> dict[str, object]:
        """Nothing to keep."""
        return {}


READER = Reader(decode=lambda tokens: str(tokens[0]), extract=lambda text: text)


def ballots_of(places: Sequence[int]) -> list[Ballot]:
    """An empty ballot a question."""
    return [Ballot(str(place), (), Numbers()) for place in places]


@dataclass(eq=False)
class _Node:
    """One engine; it takes no rollouts while it waits to take new weights, or takes them."""

    version: int = 0
    running: int = 0
    closed: bool = False


class SimulatedCluster:
    """An engine whose `poll` moves the clock on to the next rollout that ends."""

    capabilities = Capabilities(True, False, True, True, False)
    prefill_tokens = 0

    def __init__(self, engines: int, slots: int, load_seconds: float, questions: Questions) -> None:
        self.now = 0.0
        self.useful_seconds = self.wasted_seconds = 0.0
        self.slots = engines * slots
        self._slots_each, self._load_seconds, self._questions = slots, load_seconds, questions
        self._version = 0
        self._nodes = [_Node() for _ in range(engines)]
        # A node for each free slot, in the order in which they became free.
        self._free = deque(self._nodes * slots)
        self._queue: dict[int, Request] = {}
        self._running: dict[int, tuple[_Node, Request, float]] = {}
        # When, and which rollout ends; or, with a number below 0, which node has its weights.
        self._events: list[tuple[float, int]] = []
        self._loading: dict[int, tuple[_Node, int]] = {}
        self._handle = self._load = 0

    @property
    def room(self) -> int:
        """Free slots, less the rollouts that wait for one."""
        return len(self._free) - len(self._queue)

    def submit(self, request: Request) -> int:
        """Queue a rollout."""
        self._handle += 1
        self._queue[self._handle] = request
        return self._handle

    def cancel(self, handle: int) -> int:
        """Drop a rollout; its slot is free at once. It cost time, not tokens, here."""
        if self._queue.pop(handle, None) is None and handle in self._running:
            self.wasted_seconds += self._leave(handle)
        return 0

    def poll(self) -> list[Completion]:
        """Move on to the next rollout that ends; empty where none is there."""
        while self.next_time() is not None:
            if done := self.step():
                return done
        return []

    def next_time(self) -> float | None:
        """When something happens next; none where all is idle."""
        while self._queue and self._free:
            handle = next(iter(self._queue))
            request, node = self._queue.pop(handle), self._free.popleft()
            node.running += 1
            self._running[handle] = (node, request, self.now)
            seconds = self._questions.seconds[int(request.prompt_id), request.index]
            heapq.heappush(self._events, (self.now + seconds, handle))
        while self._events and self._events[0][1] > 0 and self._events[0][1] not in self._running:
            heapq.heappop(self._events)
        return self._events[0][0] if self._events else None

    def step(self) -> list[Completion]:
        """Move on to what happens next: the rollout that ended, if that was it."""
        self.now, which = heapq.heappop(self._events)
        if which < 0:
            node, node.version = self._loading.pop(which)
            self._open(node)
            return []
        node, request, _ = self._running[which]
        self.useful_seconds += self._leave(which)
        vote = int(self._questions.votes[int(request.prompt_id), request.index])
        return [Completion(which, (vote,), (), "stop", node.version)]

    def update_weights(self, version: int, folder: Path | None = None) -> None:
        """All engines are idle, and load at once."""
        if self._running or self._queue:
            raise RuntimeError("weights changed while rollouts were in flight")
        self.now += self._load_seconds
        self._version = version
        for node in self._nodes:
            node.version = version

    def roll_out_weights(self, version: int) -> None:
        """Each engine takes no more rollouts, lets its own end, loads, and goes on."""
        self._version = version
        self._free.clear()
        for node in self._nodes:
            if not node.closed:
                node.closed = True
                self._load_if_empty(node)

    def close(self) -> None:
        """Nothing to let go of."""

    def _leave(self, handle: int) -> float:
        """Take a rollout out of its slot; the seconds it was there."""
        node, _, began = self._running.pop(handle)
        node.running -= 1
        if not node.closed:
            self._free.append(node)
        else:
            self._load_if_empty(node)
        return self.now - began

    def _load_if_empty(self, node: _Node) -> None:
        if node.running == 0:
            self._load -= 1
            self._loading[self._load] = (node, self._version)
            heapq.heappush(self._events, (self.now + self._load_seconds, self._load))

    def _open(self, node: _Node) -> None:
        """Take rollouts again, unless newer weights have come meanwhile."""
        if node.version < self._version:
            self._load_if_empty(node)
        else:
            node.closed = False
            self._free.extend([node] * self._slots_each)
