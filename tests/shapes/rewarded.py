"""Batches of rollouts that differ in length, and carry values of their questions."""

from dataclasses import replace

from tests.rewards.batches import batch_of


def with_lengths(lengths, question_values=None, *, longest=0):
    """A group a list of completion lengths in tokens, of which one may have `longest`."""
    flat = [length for group in lengths for length in group]
    batch = batch_of([[0] * len(group) for group in lengths], lengths=flat)
    return replace(batch, question_values=question_values or {}, longest=longest)
