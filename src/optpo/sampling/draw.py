"""Drawing tokens so that the draw depends on the rollout's own random stream alone.

Every token has a waiting time from the row's stream, exponential with mean 1, and the token with
the highest `score - log(time)` is drawn (the Gumbel-max rule). Of a large vocabulary few tokens can
win: those with the shortest times, which the stream gives as a list, and those with high scores.
Nothing is computed for the others, and they could not have won.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from optpo.entropy_places import entropy_places
from optpo.sampling.engine import SampleSettings

# In float32 the same row computed in another batch moves by some 1e-6 nats; a draw that is closer
# than this to going the other way is repeated on logits computed for that row alone.
FLOAT32_TOLERANCE = 1e-4

# The temperature by entropy moves with the rounding too, and with it all scores.
TEMPERED = 10

# In a vocabulary larger than this the so many shortest times come as a list.
LISTED_ABOVE = 1024
LISTED = 128

# So many waiting times are computed at once, where the rows of one position have fewer.
AHEAD = 8192

# Odd constants that spread positions and tokens over 64 bits.
POSITION = -7046029254386353131
TOKEN = 0x2545F4914F6CDD1D


@dataclass(frozen=True)
class Draw:
    """Tokens (rows,) int64, their log-probs (rows,) float32, and which draws were too close."""

    tokens: Tensor
    logps: Tensor
    close: Tensor


@dataclass(frozen=True)
class Edges:
    """The lowest scores that a truncation keeps, (rows, 1) each.

    `certainly`: what rounding cannot push out; `possibly`: what it could bring in.
    """

    exactly: Tensor
    certainly: Tensor
    possibly: Tensor


class Noise:
    """The random streams of rows, each at the position it has reached; (rows,) int64 both."""

    def __init__(self, streams: Tensor, positions: Tensor) -> None:
        self._streams = streams
        self._positions = positions
        self._ahead: list[Tensor] = []

    def move_on(self) -> None:
        """Go to the next position of every stream."""
        self._positions = self._positions + 1
        del self._ahead[:1]

    def state(self) -> Tensor:
        """What the noise of one draw a row is made from, (rows,) int64."""
        return _mix(self._streams + self._positions * POSITION)

    def log_times(self, vocabulary: int) -> Tensor:
        """Logarithms of all tokens' waiting times, (rows, vocabulary) float64."""
        if not self._ahead:
            rows, device = len(self._streams), self._streams.device
            # For few rows several positions at once cost what one does.
            count = max(1, min(32, AHEAD // (rows * vocabulary)))
            positions = self._positions + torch.arange(count, device=device)[:, None]
            state = _mix(self._streams + positions * POSITION).flatten()
            times = waiting_times(state, torch.arange(vocabulary, device=device))
            self._ahead = list(times.log_().view(count, rows, vocabulary))
        return self._ahead[0]


def draw_tokens(
    logits: Tensor,
    noise: Noise,
    settings: SampleSettings,
    tolerance: float,
    by_entropy: Tensor | None = None,
) -> Draw:
    """Draw one token a row, by times that are a function of (stream, position, token).

    `logits` (rows, vocabulary) of any float type; `noise` is that of the rows. `by_entropy` (rows, 4)
    holds the fields of each row's `EntropyTemperature`, where there are any.
    Log-probs are at the temperature and before truncation; at temperature 0, of the untempered
    distribution. A draw is `close` if logits that differ by rounding, less than `tolerance` nats,
    could have given another token: the second-best was near, or the edge of a truncation.
    """
    scores = logits.float()
    if settings.temperature not in (0, 1):
        scores = scores / settings.temperature
        # A low temperature enlarges rounding with everything else.
        tolerance = tolerance / min(settings.temperature, 1.0)
    total = scores.logsumexp(-1, keepdim=True)
    plain, plain_total = scores, total
    if by_entropy is not None:
        scores, tolerance = tempered(scores - total, by_entropy), TEMPERED * tolerance
        total = scores.logsumexp(-1, keepdim=True)
    edges = edges_of(scores, total, settings, tolerance)
    if settings.temperature == 0:
        tokens, perturbed = None, scores.double()
    elif scores.shape[-1] <= LISTED_ABOVE:
        tokens, perturbed = None, scores - noise.log_times(scores.shape[-1])
    else:
        tokens, perturbed = _contenders(scores, noise.state(), edges, tolerance)
    own = scores if tokens is None else scores.gather(-1, tokens)
    if edges is not None:
        chosen = perturbed.masked_fill(own < edges.exactly, -torch.inf).argmax(-1, keepdim=True)
        perturbed = perturbed.masked_fill(own < edges.possibly, -torch.inf)
    best, place = perturbed.max(-1, keepdim=True)
    close = (perturbed > best - tolerance).sum(-1) > 1
    if edges is None:
        chosen = place
    else:
        close |= (own.gather(-1, place) < edges.certainly)[:, 0]
    token = chosen if tokens is None else tokens.gather(-1, chosen)
    return Draw(token[:, 0], (plain.gather(-1, token) - plain_total)[:, 0], close)


def tempered(logps: Tensor, by_entropy: Tensor) -> Tensor:
    """Log-probs (rows, vocabulary) over each row's own temperature; see `EntropyTemperature`."""
    entropies = -(logps.exp() * logps).nan_to_num_(0).sum(-1)
    places = entropy_places(entropies, by_entropy[:, 1:])
    return logps / (1 + by_entropy[:, :1] * places[:, None])


def _contenders(
    scores: Tensor, state: Tensor, edges: Edges | None, tolerance: float
) -> tuple[Tensor, Tensor]:
    """The tokens that can win, and their perturbed scores, (rows, width) each; -inf for filling.

    A token that is not listed has waited until the last arrival, and waits on as if it had just
    begun: only a high score can still make it win.
    """
    rows = len(scores)
    listed, times = arrivals(state, scores.shape[-1])
    last = times[:, -1:]
    own = scores.gather(-1, listed)
    early = own - times.log()
    # The mark to reach: that of the likeliest token at the least.
    likeliest, token = scores.max(-1, keepdim=True)
    marks = likeliest - (last + waiting_times(state, token)).log_()
    kept = early if edges is None else early.masked_fill(own < edges.exactly, -torch.inf)
    marks = torch.maximum(marks, kept.amax(-1, keepdim=True))
    # The margin covers the float32 of this comparison.
    floor = (marks + last.log() - tolerance - 1e-3).float()
    if edges is not None:
        floor = torch.maximum(floor, edges.possibly)
    row, token = (scores >= floor).nonzero(as_tuple=True)
    waited = last[row, 0] + waiting_times(state[row], token[:, None])[:, 0]
    counts = torch.bincount(row, minlength=rows)
    column = LISTED + torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    width = LISTED + int(counts.max())
    tokens = listed.new_zeros(rows, width)
    perturbed = early.new_full((rows, width), -torch.inf)
    tokens[:, :LISTED], perturbed[:, :LISTED] = listed, early
    # Of a token that is here and listed too, the listed time is shorter and counts.
    tokens[row, column], perturbed[row, column] = token, scores[row, token] - waited.log_()
    return tokens, perturbed


def arrivals(state: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """The first `LISTED` tokens to arrive and when, (rows, LISTED) each; one may arrive again.

    Arrivals come at the rate of one a token (a Poisson process), each of a token drawn evenly: a
    token's first arrival is exponential with mean 1.
    """
    # Keys beyond those of the tokens.
    uniform = _uniform(state, torch.arange(2 * LISTED, device=state.device) + 2**32)
    times = uniform[:, :LISTED].log().neg_().cumsum(-1).div_(vocabulary)
    tokens = uniform[:, LISTED:].mul_(vocabulary).long().clamp_(max=vocabulary - 1)
    return tokens, times


def edges_of(
    scores: Tensor, total: Tensor, settings: SampleSettings, tolerance: float
) -> Edges | None:
    """What top-k, top-p and min-p keep; none where nothing is cut off, at temperature 0 too.

    `scores` (rows, vocabulary) less `total` (rows, 1) are log-probabilities.
    """
    if settings.top_p == 1 and settings.top_k == 0 and settings.min_p == 0:
        return None
    if settings.temperature == 0:
        return None
    vocabulary = scores.shape[-1]
    width = settings.top_k + 128
    enough = False
    # Seldom does it take more than the head of a large vocabulary.
    while not enough:
        width = min(width, vocabulary)
        ordered = scores.topk(width, dim=-1).values.double()
        probabilities = (ordered - total).exp()
        before = probabilities.cumsum(-1) - probabilities
        reached = before[:, -1].min() >= settings.top_p + tolerance
        enough = width == vocabulary or settings.top_p == 1 or bool(reached)
        width *= 8
    ordered = torch.cat([ordered, torch.full_like(total, -torch.inf)], dim=-1)
    return Edges(
        *(
            _lowest(ordered, before, settings, slack).float()
            for slack in (0.0, -tolerance, tolerance)
        )
    )


def _lowest(ordered: Tensor, before: Tensor, settings: SampleSettings, slack: float) -> Tensor:
    """The lowest score kept, (rows, 1); `ordered` falls to -inf, `before` is the mass of the likelier.

    Of equally likely tokens at an edge all stay. With a `slack` above 0 (nats) also those that
    rounding may bring inside; with one below 0 only those that rounding cannot push out.
    """
    lowest = torch.full_like(ordered[:, :1], -torch.inf)
    counts = []
    if settings.top_k > 0:
        counts.append(torch.full_like(lowest, settings.top_k, dtype=torch.int64))
    if settings.top_p < 1:
        # A token is kept while the mass of the likelier ones is below top_p.
        counts.append((before < settings.top_p + slack).sum(-1, keepdim=True).clamp(min=1))
    for kept in counts:
        # Rounding may swap neighbours in rank: a token is sure to stay if it leads the first one
        # left out, and may come in if it is near the last one kept.
        rank = (kept if slack < 0 else kept - 1).clamp(max=ordered.shape[-1] - 1)
        lowest = torch.maximum(lowest, ordered.gather(-1, rank) - slack)
    if settings.min_p > 0:
        lowest = torch.maximum(lowest, ordered[:, :1] + math.log(settings.min_p) - slack)
    return lowest


def waiting_times(state: Tensor, tokens: Tensor) -> Tensor:
    """Exponential times of mean 1, float64, a function of state (rows,) and token alone.

    `tokens` are (tokens,), the same for all rows, or (rows, tokens).
    """
    return _uniform(state, tokens).log_().neg_()


def _uniform(state: Tensor, keys: Tensor) -> Tensor:
    mixed = _mix(state[:, None] + keys * TOKEN)
    # 52 bits, so that adding a half stays exact and neither 0 nor 1 can come out.
    return _shift(mixed, 12).double().add_(0.5).mul_(2.0**-52)


def _mix(state: Tensor) -> Tensor:
    # The finaliser of SplitMix64 (Steele, Lea, Flood 2014), in wrapping 64-bit arithmetic.
    state = (state ^ _shift(state, 30)).mul_(-4658895280553007687)
    state = (state ^ _shift(state, 27)).mul_(-7723592293110705685)
    return state ^ _shift(state, 31)


def _shift(state: Tensor, bits: int) -> Tensor:
    return (state >> bits).bitwise_and_((1 << (64 - bits)) - 1)
