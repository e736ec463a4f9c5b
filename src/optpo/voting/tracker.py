"""What is known of a question from its last visit: its votes, discounted, and when to ask again."""

from collections.abc import Mapping
from dataclasses import dataclass

from optpo.errors import SettingsError


@dataclass(frozen=True)
class VoteTracker:
    """How much of a question's past votes still counts at its next visit, and how long it may rest.

    The votes so far are kept at a share of 2^(-drift / half_drift), held between `least_kept` and
    `most_kept`, as Single-stream Policy Optimization forgets its values (2509.13232). `drift` is
    the mean absolute change in log-prob, nats a token, of rollouts of the last visit (it is not a
    KL divergence). With n new votes a visit the past never counts for more than n kept / (1 -
    kept) votes. `most_kept` 0 forgets everything.

    A question has nothing to teach when all its new votes agreed on the label it had before: every
    rollout would have the same reward. It then rests for 1, 2, 4, ... visits, up to `longest_rest`
    (0: never), each time until it is asked again and found to be as before.

    Heuristic: votes of an older policy are evidence about this one only as far as the policy has
    not moved on that question. A rule that counts them may be sure too soon where it has.

    Args:
        most_kept: in [0, 1).
        least_kept: in [0, most_kept].
        half_drift: nats a token above 0; 0.06 in the published code.
        probes: rollouts a question that are stored to measure its drift, 1 or more.
        longest_rest: visits, 0 or more.

    Raises:
        SettingsError: settings out of range, all of them together.

    >>> VoteTracker(most_kept=0.96, least_kept=0.875).kept(drift=0.005)
    0.9438743126816935
    """

    most_kept: float = 0.0
    least_kept: float = 0.0
    half_drift: float = 0.06
    probes: int = 2
    longest_rest: int = 0

    def __post_init__(self) -> None:
        checks = {
            f"most_kept is {self.most_kept}; it must be 0 (forget all) or more, and below 1": (
                0 <= self.most_kept < 1
            ),
            f"least_kept is {self.least_kept}; it must lie between 0 and most_kept": (
                0 <= self.least_kept <= self.most_kept
            ),
            f"half_drift is {self.half_drift}; it must be above 0": self.half_drift > 0,
            f"probes is {self.probes}; it must be a whole number, 1 or more": (
                type(self.probes) is int and self.probes >= 1
            ),
            f"longest_rest is {self.longest_rest}; it must be a whole number, 0 (never) or more": (
                type(self.longest_rest) is int and self.longest_rest >= 0
            ),
        }
        if problems := [problem for problem, holds in checks.items() if not holds]:
            raise SettingsError(problems)

    def kept(self, drift: float) -> float:
        """The share of past votes that still counts after so much drift, nats a token."""
        return min(max(2 ** (-drift / self.half_drift), self.least_kept), self.most_kept)

    def next_rest(self, last_rest: int, *, nothing_to_teach: bool) -> int:
        """The visits to rest for now, after `last_rest` the time before."""
        return min(self.longest_rest, 2 * last_rest or 1) if nothing_to_teach else 0


def remember(past: Mapping[str, float], kept: float, new: Mapping[str, float]) -> dict[str, float]:
    """Votes by answer after a visit: the past ones at the share `kept`, and the new ones."""
    votes = {answer: kept * count for answer, count in past.items() if kept * count > 0}
    for answer, count in new.items():
        votes[answer] = votes.get(answer, 0.0) + count
    return votes
