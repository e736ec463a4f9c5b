"""Batches that are nothing but votes."""

from optpo.batch import pack
from optpo.rollout import Rollout


def batch_of(votes, labels=None, lengths=None):
    """A group a list of votes; labels are -1 (undecided) and rollouts of one token by default."""
    lengths = iter(lengths or [1] * sum(map(len, votes)))
    groups = []
    for number, some in enumerate(votes):
        group = []
        for index, vote in enumerate(some):
            tokens = (3,) * next(lengths)
            logps = (-1.0,) * len(tokens)
            group.append(Rollout(f"q{number}", index, 0, (1,), tokens, logps, "stop", vote=vote))
        groups.append(group)
    return pack(groups, labels or [-1] * len(votes))
