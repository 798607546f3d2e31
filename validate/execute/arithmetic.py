"""What the steps compute, in plain torch: the arithmetic the sharded program and the unsharded model have in common."""

import torch
from torch.nn.functional import gelu, relu, silu

from ...models.description import Model

NORM_EPS = 1e-5
_ACTIVATIONS = {"gelu": lambda x: gelu(x, approximate="tanh"), "relu": relu, "silu": silu}


def activate(model: Model, x: torch.Tensor) -> torch.Tensor:
    """The activation function; of gated models [2, ..., F] -> [..., F]."""
    function = _ACTIVATIONS[model.activation]
    return function(x[0]) * x[1] if model.gated else function(x)


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
    scaled = wide * torch.rsqrt(variance + eps) * weight[0].float()
    return (scaled + weight[1].float() if model.norm_bias else scaled).to(x.dtype)


def norm_heads(x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    """RMS norm of each head, [..., d_head]."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * scale.float()).to(x.dtype)


def rotate(x: torch.Tensor, positions: torch.Tensor, theta: float) -> torch.Tensor:
    """Rotary embedding of [B, L, heads, d_head] at `positions` [L], the halves of a head turned against each other."""
    half = x.shape[-1] // 2
    turns = positions[:, None] * theta ** (-torch.arange(half, device=x.device) / half)
    cos, sin = turns.cos()[:, None, :], turns.sin()[:, None, :]
    first, second = x.float().split(half, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


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


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    q_positions: torch.Tensor,
    k_positions: torch.Tensor,
    slopes: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention over keys at any positions, and its log-sum-exp; rows that see no key give 0 and -inf.

    Parameters
    ----------
    q : [B, L, H, Q]
    k, v : [B, S, K, Q], H a multiple of K
    slopes : [H] of ALiBi

    Returns
    -------
    out [B, L, H, Q], lse [B, L, H] fp32
    """
    n_heads, d_head = q.shape[2:]
    groups = k.shape[2]
    grouped = q.unflatten(2, (groups, n_heads // groups))
    scores = torch.einsum("blkgq,bskq->bkgls", grouped, k).float() * d_head**-0.5
    if slopes is not None:
        distance = (k_positions[None, :] - q_positions[:, None]).float()
        scores = scores + slopes.view(groups, -1, 1, 1) * distance
    scores = scores.masked_fill(k_positions[None, :] > q_positions[:, None], -torch.inf)
    lse = scores.logsumexp(-1)
    shares = (scores - lse.masked_fill(lse == -torch.inf, 0.0)[..., None]).exp()
    out = torch.einsum("bkgls,bskq->blkgq", shares.to(v.dtype), v)
    return out.flatten(2, 3), lse.flatten(1, 2).transpose(1, 2)


def merge_share(lse: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
    """What a part with log-sum-exp `lse` [...] counts in the whole, whose parts are [..., n]."""
    return (lse - parts.logsumexp(-1)).exp()
