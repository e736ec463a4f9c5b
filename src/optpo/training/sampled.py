"""What the first stages of a step hand on to the rest of it."""

from dataclasses import dataclass

from optpo.sampling.ballot import Ballot
from optpo.sampling.occupancy import Occupancy
from optpo.training.prompt_state import Partial
from optpo.training.visits import Visit


@dataclass(frozen=True)
class Sampled:
    """A step's visits, in the order of its questions.

    `scheduled` are all questions whose turn it was, those that rest too; `seconds` were spent on
    the vote, without the audits; `occupancies` say how full each process's engine was then.
    `tokens_prefill` are prompt tokens that were computed. `gap` is the largest difference in nats
    between a log-prob that the engine recorded and the sampling policy's own, where those took its
    place. `partials` are rollouts that go on at the next step, `begun` the turn of the next question.
    """

    step: int
    scheduled: tuple[str, ...]
    visits: tuple[Visit, ...]
    seconds: float
    occupancies: tuple[Occupancy, ...]
    tokens_prefill: int
    gap: float = 0.0
    partials: tuple[Partial, ...] = ()
    begun: int = 0

    @property
    def ballots(self) -> list[Ballot]:
        """The vote of each visit."""
        return [visit.ballot for visit in self.visits]

    @property
    def tokens_greedy(self) -> int:
        """Tokens of the greedy rollouts."""
        return sum(len(visit.greedy.tokens) for visit in self.visits if visit.greedy is not None)
