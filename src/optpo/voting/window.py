"""Early-stopping self-consistency: a window of votes that all agree (arXiv 2401.10480)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from optpo.errors import SettingsError
from optpo.voting.beta import leader_is_likelier
from optpo.voting.look_ahead import fewest_equal_votes
from optpo.voting.rule import (
    AtCap,
    Claim,
    Decision,
    Decisions,
    budget_problems,
    conclude,
    conclude_many,
)
from optpo.voting.tally import Tallies, Tally


@dataclass(frozen=True)
class WindowRule:
    """Stop at the end of a window of votes that are all for one answer (ESC).

    The votes are read in consecutive windows of `window` that do not overlap. After the first one
    that is unanimous the vote is over, or as soon after it as the floor is reached and one answer
    leads: two that tie give no label. An unparsed vote in a window makes it not unanimous.

    The label is the answer with most of all votes so far. That is the paper's label where no window
    was unanimous; where one was, its published code takes the answer of that window instead. The two
    differ only where a late window is unanimous for an answer that is still behind.

    Nothing is guaranteed: `window` is no error level. With a share p of votes for the leader a
    window is unanimous for it with probability p^window, however small the doubt that is left, and
    the more windows there are the likelier is one that is unanimous by chance, for a rival too.

    The confidence is the posterior probability that the leader is the likelier of the two first
    answers, as in `BetaRule`: a heuristic figure, no claim.

    Args:
        window: votes in a window; the paper's is 5. At 1 the first answer that is read is the label.
        floor: fewest votes before it may stop.
        cap: most votes; the paper's is 40 for most of its questions, 64 for MATH.
        at_cap: what becomes of a vote without a unanimous window at the cap; "leader" is the
            paper's.

    Raises:
        SettingsError: settings out of range, all of them together.

    >>> WindowRule(window=3).look_ahead(Tally((0, 1)))
    4
    """

    claims: ClassVar[Claim | None] = None
    refuses: ClassVar[Mapping[str, str]] = {
        "weights": "a window is unanimous or not, whatever its votes weigh",
        "carried": "carried votes have no order, so they fill no window",
    }

    window: int = 5
    floor: int = 1
    cap: int = 64
    at_cap: AtCap = "abstain"

    def __post_init__(self) -> None:
        problems = []
        if type(self.window) is not int or self.window < 1:
            problems.append(f"window = {self.window!r}: must be a whole number of votes, 1 or more")
        problems += budget_problems(self.floor, self.cap, self.at_cap)
        if problems:
            raise SettingsError(problems)

    def decide(self, tally: Tally) -> Decision:
        """Say whether the vote is over."""
        likelier, log_odds = leader_is_likelier(tally.leader_votes, tally.runner_up_votes)
        seen = self._unanimous_window_seen(np.array([tally.votes], dtype=np.int64))
        return conclude(
            self,
            tally,
            sure=seen[0, -1] and not tally.tied,
            confidence=likelier,
            log_evidence=log_odds,
        )

    def decide_many(self, tallies: Tallies) -> Decisions:
        """Say the same of many questions at once."""
        likelier, log_odds = leader_is_likelier(tallies.leader_votes, tallies.runner_up_votes)
        return conclude_many(
            self,
            tallies,
            sure=self._unanimous_window_seen(tallies.votes) & ~tallies.tied,
            confidence=likelier,
            log_evidence=log_odds,
        )

    def look_ahead(self, tally: Tally) -> int:
        """Return the fewest further votes that could end the test if they all agreed.

        They fill up the present window, where it is of one mind so far, or else the next one too.
        """
        return fewest_equal_votes(self, tally)

    def _unanimous_window_seen(self, votes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(questions, votes + 1) whether a window that has ended by then was unanimous."""
        questions, length = votes.shape
        count = length // self.window
        windows = votes[:, : count * self.window].reshape(questions, count, self.window)
        unanimous = (windows == windows[:, :, :1]).all(axis=2) & (windows[:, :, 0] >= 0)
        seen = np.logical_or.accumulate(np.pad(unanimous, ((0, 0), (1, 0))), axis=1)
        return np.asarray(seen[:, np.arange(length + 1) // self.window])
