"""Ragged batches for the tests of this room."""

from dataclasses import replace

import torch

from optpo.batch import pack
from optpo.rollout import Rollout


def batch_of(sizes, lengths=None, *, tokens=None, logps=None, unfinished=(), longest=0, **values):
    """Groups of `sizes`; completion `lengths` or `tokens`, one list a rollout, end to end,
    of which one may have `longest` tokens.

    `values` are those of tokens by name, or of questions where there is one a group and the name
    begins with question_.
    """
    count = sum(sizes)
    lengths = (
        [len(some) for some in tokens] if tokens else lengths or [1 + n % 4 for n in range(count)]
    )
    tokens = tokens or [[3] * length for length in lengths]
    rollouts = [
        Rollout(
            f"q{group}", index, 0, (1,) * (1 + group), tuple(tokens[n]), (-1.0,) * lengths[n],
            "length" if n in unfinished else "stop",
        )
        for n, (group, index) in enumerate(
            (group, index) for group, size in enumerate(sizes) for index in range(size)
        )
    ]  # fmt: skip
    begins = [sum(sizes[:group]) for group in range(len(sizes))]
    groups = [rollouts[begin : begin + size] for begin, size in zip(begins, sizes, strict=True)]
    batch = pack(groups, [0] * len(sizes))
    of_questions = {
        name.removeprefix("question_").replace("_", " "): value
        for name, value in values.items()
        if name.startswith("question_")
    }
    of_tokens = {n: value for n, value in values.items() if not n.startswith("question_")}
    return replace(
        batch,
        logps=batch.logps if logps is None else logps,
        longest=longest,
        question_values=of_questions,
        token_values=of_tokens,
    )


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)
