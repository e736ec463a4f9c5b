"""Prompts computed once: which are computed together, and what the padding costs."""

from hypothesis import given
from hypothesis import strategies as st

from optpo.sampling.prompt_cache import PASS_TOKENS, of_like_length

lengths = st.lists(st.integers(1, 3000), min_size=1, max_size=40)


@given(lengths)
def test_prompts_of_like_length_are_computed_together(lengths):
    """Every prompt is in one pass; a pass is as small as was asked, or one prompt, and no row of it
    is padded by more than 8 tokens or a quarter."""
    prompts = [tuple(range(length)) for length in lengths]
    passes = list(of_like_length(prompts))
    assert sorted(len(one) for together in passes for one in together) == sorted(lengths)
    for together in passes:
        longest, shortest = len(together[-1]), len(together[0])
        assert longest * len(together) <= PASS_TOKENS or len(together) == 1
        assert longest - shortest <= max(8, shortest // 4)


def test_prompts_of_one_length_share_a_pass():
    """Passes are not cut finer than they need be: alike prompts go together up to the limit."""
    passes = list(of_like_length([(n, 1, 2) for n in range(50)]))
    assert [len(together) for together in passes] == [50]
    passes = list(of_like_length([(n, *range(1000)) for n in range(7)]))
    assert [len(together) for together in passes] == [4, 3]
