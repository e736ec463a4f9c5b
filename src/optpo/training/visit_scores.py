"""What a verifier gives the rollouts of visits."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from optpo.data import Scorer
from optpo.training.visits import Visit


def score_visits(
    scorer: Scorer | None, visits: Sequence[Visit], goes_on: Collection[tuple[str, int]] = ()
) -> list[Visit]:
    """The visits with scores, all asked for at once; those that have them stay as they are.

    Rollouts named in `goes_on`, by question and index, are not at their end and get none. Without a
    scorer nothing does.
    """
    new = [visit for visit in visits if visit.scores is None]
    if scorer is None or not new:
        return list(visits)
    ended = [
        rollout
        for visit in new
        for rollout in visit.ballot.rollouts
        if (rollout.prompt_id, rollout.index) not in goes_on
    ]
    greedy = [visit.greedy for visit in new if visit.greedy is not None]
    given = iter(scorer.score(ended))
    of_greedy = iter(scorer.score(greedy) if greedy else ())
    return [
        visit
        if visit.scores is not None
        else replace(
            visit,
            scores=tuple(
                None if (rollout.prompt_id, rollout.index) in goes_on else next(given)
                for rollout in visit.ballot.rollouts
            ),
            greedy_score=None if visit.greedy is None else next(of_greedy),
        )
        for visit in visits
    ]
