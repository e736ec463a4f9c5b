"""Drawing tokens so that the draw depends on the rollout's own random stream alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from optpo.sampling.engine import SampleSettings

# In float32 the same row computed in another batch moves by some 1e-6 nats; a draw that is closer
# than this to going the other way is repeated on logits computed for that row alone.
FLOAT32_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Draw:
    """Tokens (rows,) int64, their log-probs (rows,) float32, and which draws were too close."""

    tokens: Tensor
    logps: Tensor
    close: Tensor


def draw_tokens(
    logits: Tensor, streams: Tensor, positions: Tensor, settings: SampleSettings, tolerance: float
) -> Draw:
    """Draw one token a row by the Gumbel-max rule on noise hashed from (stream, position, token).

    `logits` (rows, vocabulary) of any float type; `streams`, `positions` (rows,) int64.
    Log-probs are at the temperature and before truncation; at temperature 0, of the untempered
    distribution. A draw is `close` if logits that differ by rounding, less than `tolerance` nats,
    could have given another token: the second-best was near, or the edge of a truncation.
    """
    scores = logits.double()
    if settings.temperature > 0:
        scores = scores / settings.temperature
        # A low temperature enlarges rounding with everything else.
        tolerance = tolerance / min(settings.temperature, 1.0)
        perturbed = scores + gumbel_noise(streams, positions, scores.shape[-1])
    else:
        perturbed = scores
    log_probabilities = torch.log_softmax(scores, dim=-1)
    truncates = settings.top_p < 1 or settings.top_k > 0 or settings.min_p > 0
    if truncates and settings.temperature > 0:
        exactly, certainly, possibly = (
            allowed(log_probabilities, settings, slack) for slack in (0.0, -tolerance, tolerance)
        )
        tokens = perturbed.masked_fill(~exactly, -torch.inf).argmax(dim=-1)
        perturbed = perturbed.masked_fill(~possibly, -torch.inf)
    else:
        certainly = torch.ones_like(perturbed, dtype=torch.bool)
        tokens = perturbed.argmax(dim=-1)
    best = perturbed.topk(min(2, perturbed.shape[-1]), dim=-1)
    gap = best.values[:, 0] - best.values[:, -1]
    close = (gap < tolerance) | ~certainly.gather(-1, best.indices[:, :1])[:, 0]
    logps = log_probabilities.gather(-1, tokens[:, None])[:, 0].float()
    return Draw(tokens, logps, close)


def allowed(log_probabilities: Tensor, settings: SampleSettings, slack: float) -> Tensor:
    """Tokens that survive top-k, top-p and min-p, (rows, vocabulary) bool.

    Of equally likely tokens at an edge all stay. With a `slack` above 0 (nats) also those that
    rounding may bring inside; with one below 0 only those that rounding cannot push out.
    """
    keep = torch.ones_like(log_probabilities, dtype=torch.bool)
    ordered = log_probabilities.sort(dim=-1, descending=True).values
    if settings.top_k > 0:
        kept = torch.full_like(ordered[:, :1], settings.top_k, dtype=torch.int64)
        keep &= _likeliest(log_probabilities, ordered, kept, slack)
    if settings.top_p < 1:
        # A token is kept while the mass of the likelier ones is below top_p.
        mass_before = ordered.exp().cumsum(-1) - ordered.exp()
        kept = (mass_before < settings.top_p + slack).sum(-1, keepdim=True).clamp(min=1)
        keep &= _likeliest(log_probabilities, ordered, kept, slack)
    if settings.min_p > 0:
        keep &= log_probabilities >= ordered[:, :1] + math.log(settings.min_p) - slack
    return keep


def _likeliest(log_probabilities: Tensor, ordered: Tensor, kept: Tensor, slack: float) -> Tensor:
    """The `kept` (rows, 1) likeliest tokens of each row, give or take `slack`."""
    # Rounding may swap neighbours in rank: a token is sure to stay if it leads the first one left
    # out, and may come in if it is near the last one kept.
    ends = torch.cat([ordered, torch.full_like(ordered[:, :1], -torch.inf)], dim=-1)
    rank = (kept if slack < 0 else kept - 1).clamp(max=ordered.shape[-1])
    return log_probabilities >= ends.gather(-1, rank) - slack


def gumbel_noise(streams: Tensor, positions: Tensor, vocabulary: int) -> Tensor:
    """Standard Gumbel noise (rows, vocabulary) float64, a pure function of its arguments."""
    token = torch.arange(vocabulary, device=streams.device)
    state = _mix(
        _mix(streams + positions * -7046029254386353131)[:, None] + token * 0x2545F4914F6CDD1D
    )
    # 52 bits, so that adding a half stays exact and neither 0 nor 1 can come out.
    uniform = (_shift(state, 12).double() + 0.5) * 2.0**-52
    return -torch.log(-torch.log(uniform))


def _mix(state: Tensor) -> Tensor:
    # The finaliser of SplitMix64 (Steele, Lea, Flood 2014), in wrapping 64-bit arithmetic.
    state = (state ^ _shift(state, 30)) * -4658895280553007687
    state = (state ^ _shift(state, 27)) * -7723592293110705685
    return state ^ _shift(state, 31)


def _shift(state: Tensor, bits: int) -> Tensor:
    return (state >> bits) & ((1 << (64 - bits)) - 1)
