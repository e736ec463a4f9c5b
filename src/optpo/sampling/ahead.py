"""How far ahead of the votes to launch: what a question needs for sure, and what it may need."""

import math


def chance_needed(
    ahead: int, leader_votes: float, runner_up_votes: float, total: float, pending: int
) -> float:
    """The probability that a vote still goes on after the rollouts that are pending.

    The lead is taken for a random walk: up by the leader's share of the votes, down by the
    runner-up's, both with one vote of each and one for neither added; the vote ends when the walk
    first gains `ahead`. In continuous time that first passage is inverse Gaussian.

    Args:
        ahead: the fewest further votes that could end the test, 1 or more.
        leader_votes, runner_up_votes, total: the votes counted, with those carried over.
        pending: rollouts launched and not counted.

    >>> chance_needed(3, 5, 2, 8, pending=2), round(chance_needed(3, 5, 2, 8, pending=6), 2)
    (1.0, 0.58)
    """
    if pending < ahead:
        return 1.0
    up, down = (leader_votes + 1) / (total + 3), (runner_up_votes + 1) / (total + 3)
    drift, variance = up - down, up + down - (up - down) ** 2
    spread = math.sqrt(2 * variance * pending)
    gained = math.erfc((ahead - drift * pending) / spread) / 2
    # Walks that reached the goal and fell back; for a strong drift the product is 0 times infinity.
    exponent = 2 * drift * ahead / variance
    fallen = math.erfc((ahead + drift * pending) / spread) / 2
    returned = math.exp(min(exponent, 700.0)) * fallen
    return min(1.0, max(0.0, 1.0 - gained - returned))
