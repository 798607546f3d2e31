"""What the steps compute, in plain torch: the arithmetic the sharded program and the unsharded model have in common."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import gelu, relu, silu

from ...models.description import Model
from ...models.feed_forward import Ffn
from ...models.mixers.attention import Reach

NORM_EPS = 1e-5
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": lambda x: gelu(x, approximate="tanh"),
    "relu": relu,
    "silu": silu,
    "relu2": lambda x: relu(x).square(),
}


def activate(ffn: Ffn, x: torch.Tensor) -> torch.Tensor:
    """The activation function; of gated parts [2, ..., F] -> [..., F]."""
    function = _ACTIVATIONS[ffn.activation]
    return function(x[0]) * x[1] if ffn.gated else function(x)


def statistics(model: Model, x: torch.Tensor) -> torch.Tensor:
    """What a norm must know of a row: its sum of squares, for layernorm also its sum. [..., n] -> [..., 1 or 2] fp32."""
    wide = x.float()
    squares = wide.square().sum(-1, keepdim=True)
    return torch.cat([squares, wide.sum(-1, keepdim=True)], -1) if model.norm == "layernorm" else squares


def norm(model: Model, x: torch.Tensor, known: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Norm of a part of d_model, `known` being the statistics of all of it and `weight` the part's scale and shift."""
    wide = x.float()
    variance = known[..., :1] / model.d_model
    if model.norm == "layernorm":
        mean = known[..., 1:] / model.d_model
        wide, variance = wide - mean, variance - mean.square()
    scaled = wide * torch.rsqrt(variance + eps)
    if model.norm_scale:
        scaled = scaled * weight[0].float()
    return (scaled + weight[-1].float() if model.norm_bias else scaled).to(x.dtype)


def rms_norm(x: torch.Tensor, scale: torch.Tensor, eps: float, mean_square: torch.Tensor | None = None) -> torch.Tensor:
    """RMS norm over the last dimension, or with a mean square [...] that is known."""
    wide = x.float()
    known = wide.square().mean(-1) if mean_square is None else mean_square
    return (wide * torch.rsqrt(known[..., None] + eps) * scale.float()).to(x.dtype)


def rotate(x: torch.Tensor, positions: torch.Tensor, theta: float) -> torch.Tensor:
    """Rotary embedding of [B, L, heads, d_head] at `positions` [L], the halves of a head turned against each other."""
    half = x.shape[-1] // 2
    turns = positions[:, None] * theta ** (-torch.arange(half, device=x.device) / half)
    cos, sin = turns.cos()[:, None, :], turns.sin()[:, None, :]
    first, second = x.float().split(half, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


def rotate_first(x: torch.Tensor, n: int, positions: torch.Tensor, theta: float) -> torch.Tensor:
    """Rotary embedding of the first `n` numbers of heads [B, L, heads, d_head], or of one head [B, L, d_head]."""
    heads = x if x.dim() > _ONE_HEAD else x[:, :, None]
    turned = torch.cat([rotate(heads[..., :n], positions, theta), heads[..., n:]], -1)
    return turned.view(x.shape)


# Dimensions of what is one head: sequences, tokens, numbers
_ONE_HEAD = 3


def alibi_slopes(n_heads: int) -> torch.Tensor:
    """Slope of each head.

    References
    ----------
    [Press2022] section 3; heads between powers of two take every other slope of the next.
    """
    whole = 2 ** (n_heads.bit_length() - 1)
    slopes = [2 ** (-8 * (i + 1) / whole) for i in range(whole)]
    slopes += [2 ** (-4 * (2 * i + 1) / whole) for i in range(n_heads - whole)]
    return torch.tensor(slopes)


def visible(reach: Reach | None, q_positions: torch.Tensor, k_positions: torch.Tensor) -> torch.Tensor:
    """[L, S] which keys a query meets: none after itself, and of those before what its reach lets through.

    A window is the last `size` keys, the query's own among them; a chunk those since the last multiple of `size`; a sparse
    reach the last `size` keys and of all others every (1 / `share`)-th.

    >>> from shardwise.models.mixers.attention import Reach
    >>> visible(Reach(pattern="window", size=2), torch.arange(3), torch.arange(3)).int().tolist()
    [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    q, k = q_positions[:, None], k_positions[None, :]
    if reach is None:
        return k <= q
    if reach.pattern == "chunk":
        return (k <= q) & (k >= q // reach.size * reach.size)
    near = k > q - reach.size
    if reach.pattern == "sparse" and reach.share:
        near |= k % round(1 / reach.share) == 0
    return (k <= q) & near


@dataclass(frozen=True, slots=True, kw_only=True)
class Bias:
    """What bends the scores of softmax attention.

    Parameters
    ----------
    slopes : [H] of ALiBi
    sinks : [H] a logit that takes its share of the softmax and gives nothing
    reach : which keys a query meets
    """

    slopes: torch.Tensor | None = None
    sinks: torch.Tensor | None = None
    reach: Reach | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the whole context is met and softmax is over it alone."""
        return self.sinks is None and self.reach is None


NO_BIAS = Bias()


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    q_positions: torch.Tensor,
    k_positions: torch.Tensor,
    bias: Bias = NO_BIAS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention over keys at any positions, and its log-sum-exp; rows that see no key give 0 and -inf.

    Parameters
    ----------
    q : [B, L, H, Q]
    k, v : [B, S, K, Q] and [B, S, K, Y], H a multiple of K

    Returns
    -------
    out [B, L, H, Y], lse [B, L, H] fp32
    """
    n_heads, d_head = q.shape[2:]
    groups = k.shape[2]
    grouped = q.unflatten(2, (groups, n_heads // groups))
    scores = torch.einsum("blkgq,bskq->bkgls", grouped, k).float() * d_head**-0.5
    if bias.slopes is not None:
        distance = (k_positions[None, :] - q_positions[:, None]).float()
        scores = scores + bias.slopes.view(groups, -1, 1, 1) * distance
    scores = scores.masked_fill(~visible(bias.reach, q_positions, k_positions), -torch.inf)
    lse = scores.logsumexp(-1)
    if bias.sinks is not None:
        lse = torch.logaddexp(lse, bias.sinks.float().view(groups, -1, 1).expand_as(lse))
    shares = (scores - lse.masked_fill(lse == -torch.inf, 0.0)[..., None]).exp()
    out = torch.einsum("bkgls,bskq->blkgq", shares.to(v.dtype), v)
    return out.flatten(2, 3), lse.flatten(1, 2).transpose(1, 2)


def attend_latent(
    q: tuple[torch.Tensor, torch.Tensor],
    latents: torch.Tensor,
    rotated_keys: torch.Tensor,
    allowed: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of every head to the one latent a token, in the latent: out and log-sum-exp as of `attend`.

    Parameters
    ----------
    q : [B, L, H, O] brought into the latent, and [B, L, H, J] rotated
    latents, rotated_keys : [B, S, O], [B, S, J]
    allowed : [L, S] or [B, L, S]

    Returns
    -------
    out [B, L, H, O], lse [B, L, H] fp32
    """
    scores = torch.einsum("blho,bso->bhls", q[0], latents) + torch.einsum("blhj,bsj->bhls", q[1], rotated_keys)
    seen = allowed if allowed.dim() == scores.dim() - 2 else allowed[:, None]
    scores = (scores.float() * scale).masked_fill(~seen, -torch.inf)
    lse = scores.logsumexp(-1)
    shares = (scores - lse.masked_fill(lse == -torch.inf, 0.0)[..., None]).exp()
    return torch.einsum("bhls,bso->blho", shares.to(latents.dtype), latents), lse.transpose(1, 2)


def index_scores(q: torch.Tensor, share: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """How much an indexer would have each query read each key, [B, L, S] fp32.

    Parameters
    ----------
    q, share : [B, L, A, U], [B, L, A]
    keys : [B, S, U]

    References
    ----------
    [DeepSeek2025] equation 1.
    """
    met = relu(torch.einsum("blau,bsu->blas", q, keys).float())
    return torch.einsum("bla,blas->bls", share.float(), met)


def least_of_best(scores: torch.Tensor, n: int) -> torch.Tensor:
    """The n-th largest score of each row, [..., 1]; -inf where there are fewer."""
    if scores.shape[-1] < n:
        return torch.full_like(scores[..., :1], -torch.inf)
    return scores.topk(n, -1).values[..., -1:]


def merge_share(lse: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    """What a part with log-sum-exp `lse` [...] counts in the whole, whose parts are [..., n]."""
    return (lse - parts.logsumexp(-1)).exp()
