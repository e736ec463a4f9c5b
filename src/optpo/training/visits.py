"""What a visit of a question brings along from the last one, and what it leaves for the next."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from optpo.rollout import Rollout
from optpo.sampling.ballot import Ballot
from optpo.training.prompt_state import Probe, PromptStore
from optpo.voting import VoteTracker, remember


@dataclass(frozen=True)
class Visit:
    """One question's visit.

    Attributes:
        ballot: its vote.
        carried: the votes that earlier visits brought along, by answer.
        drift: how far the policy has moved on it since the last visit, nats a token, where known.
        probes: rollouts to measure that by at the next visit.
        audit: its vote taken on to the cap, where it was.
        greedy: the rollout of the likeliest tokens, where a part asks for it.
        earlier: of each of its rollouts, how many tokens were sampled at earlier steps; none: of none.
        scores: what a verifier gave each of its rollouts, None where it gave none; not yet asked: None.
        greedy_score: the same of the greedy rollout.
    """

    ballot: Ballot
    carried: Mapping[str, float] = field(default_factory=dict)
    drift: float | None = None
    probes: tuple[Probe, ...] = ()
    audit: Ballot | None = None
    greedy: Rollout | None = None
    earlier: tuple[int, ...] = ()
    scores: tuple[float | None, ...] | None = None
    greedy_score: float | None = None


def carried_votes(
    store: PromptStore, tracker: VoteTracker, moved: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """The votes of earlier visits that still count, by question and answer.

    `moved` holds the drift, nats a token, of each question that left probes at its last visit.
    """
    return {
        name: remember(store[name].votes, tracker.kept(drift), {}) for name, drift in moved.items()
    }


def remember_visit(store: PromptStore, tracker: VoteTracker, visit: Visit) -> bool | None:
    """Record a visit that has ended; whether the question's label changed, none if there was none.

    Votes are kept only with probes, without which nobody could say how far they still count.
    """
    ballot = visit.ballot
    name, tally = ballot.prompt_id, ballot.tally
    before = store[name]
    # The old label may be written another way this time: classes are compared, not texts.
    old = ballot.classes.classify(before.label)
    settled = ballot.decided and tally.counts == {old: tally.total}
    rest = tracker.next_rest(before.rest, nothing_to_teach=settled)
    same = ballot.decided and ballot.label_class == old
    flipped = store.visit(name, before.label if same else ballot.label)
    new = {ballot.classes.labels[vote]: count for vote, count in tally.counts.items()}
    votes = remember(visit.carried, 1.0, new) if visit.probes else {}
    store.remember(name, votes, visit.probes, rest)
    return flipped
