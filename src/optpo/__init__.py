"""Policy optimization of language models when every rollout counts.

Import what you need from its room: `optpo.voting` and `optpo.data` need no torch, `optpo.sampling` and
`optpo.training` need the extra `train`.
"""

__version__ = "0.1.0"
