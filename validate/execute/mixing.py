"""How the numbers of a recurrent mixer's projections are used: which go into the recurrence, and what gates it.

Tensors are [B, L, heads or groups, ...] of some heads, all or one chip's; `vector` gives the mixer's vectors for the same
heads, [numbers, heads] or [numbers, groups].
"""

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import silu, softplus

from ...models.blocks import RecurrentMixer
from ...models.mixers.delta import DeltaMixer
from ...models.mixers.linear import LinearMixer
from ...models.mixers.mamba import Mamba2Mixer, MambaMixer
from . import recurrences
from .arithmetic import rms_norm

Vectors = Callable[[str], torch.Tensor]
# What comes out, and the states after the last token.
Scanned = tuple[torch.Tensor, list[torch.Tensor]]


def scan(
    mixer: RecurrentMixer, reads: Sequence[torch.Tensor], states: Sequence[torch.Tensor], vector: Vectors
) -> Scanned:
    """Run a mixer's recurrence in full precision.

    Parameters
    ----------
    reads : of heads and groups (and a decay a channel), or of heads, step sizes and what is selected, or (RWKV) keys and
        values
    states : the state, and for linear attention the sums of the keys
    """
    wide = [x.float() for x in reads]
    if isinstance(mixer, MambaMixer):
        return _mamba(mixer, wide, states[0], vector)
    if isinstance(mixer, Mamba2Mixer):
        return _mamba2(mixer, wide, states[0], vector)
    if isinstance(mixer, DeltaMixer):
        return _delta(mixer, wide, states[0], vector)
    if isinstance(mixer, LinearMixer):
        q, k, v = wide[0].chunk(3, -1)
        q, k = (recurrences.features(x, mixer.d_feature) for x in (q, k))
        out, state, sums = recurrences.linear(q, k, v, states[0], states[1])
        return out, [state, sums]
    k, v = wide
    out, state = recurrences.rwkv(k, v, _by_head(vector("decay")), _by_head(vector("first")), states[0])
    return out, [state]


def _by_head(vector: torch.Tensor) -> torch.Tensor:
    """[numbers, heads] -> [heads, numbers]."""
    return vector.float().T


def _mamba(mixer: MambaMixer, reads: list[torch.Tensor], state: torch.Tensor, vector: Vectors) -> Scanned:
    heads, steps, select = reads
    x, _ = heads.chunk(2, -1)
    into, out_of = select.chunk(2, -1)
    decay = _by_head(vector("decay")).unflatten(1, (-1, mixer.d_state))
    steps = steps + _by_head(vector("bias of step"))
    out, state = recurrences.mamba(x, steps, into, out_of, decay, _by_head(vector("skip")), state)
    return out, [state]


def _mamba2(mixer: Mamba2Mixer, reads: list[torch.Tensor], state: torch.Tensor, vector: Vectors) -> Scanned:
    heads, groups = reads
    x, _, step = heads.split([mixer.d_head, mixer.d_head, 1], -1)
    into, out_of = groups.chunk(2, -1)
    bias, decay, skip = (vector(name)[0].float() for name in ("bias of step", "decay", "skip"))
    out, state = recurrences.mamba2(x, step[..., 0] + bias, into, out_of, decay, skip, state)
    return out, [state]


def _delta(mixer: DeltaMixer, reads: list[torch.Tensor], state: torch.Tensor, vector: Vectors) -> Scanned:
    """One decay a head from `reads` of heads and groups; where a third has one a channel, those."""
    heads, groups, *others = reads
    v, strength = heads[..., : mixer.d_value], heads[..., _strength_at(mixer)]
    q, k = groups.chunk(2, -1)
    decay = vector("decay")[0].float().exp()
    if others:
        log_decay = -decay[:, None] * softplus(others[0] + _by_head(vector("bias of step")))
    else:
        log_decay = (-decay * softplus(heads[..., -1] + vector("bias of step")[0].float()))[..., None]
    out, state = recurrences.delta(q, k, v, log_decay, strength.sigmoid(), state)
    return out, [state]


def _strength_at(mixer: DeltaMixer) -> int:
    """Where the write strength stands in what a head takes: behind the value, and the gate where that is there."""
    return mixer.d_value * (2 if mixer.wide_gate or not mixer.d_squeezed else 1)


def gate(
    mixer: RecurrentMixer, out: torch.Tensor, other: torch.Tensor, vector: Vectors, eps: float,
    mean_square: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """What leaves a mixer: gated by a part of `other` (what heads took from the token, or RWKV's receptance), and normed.

    Parameters
    ----------
    mean_square : [B, L] over all heads, where these are not all of them
    """
    if isinstance(mixer, MambaMixer):
        return out * silu(other.chunk(2, -1)[1])
    if isinstance(mixer, Mamba2Mixer):
        gated = _gated(mixer, out, other)
        scale = vector("norm of out").T
        if mean_square is not None:
            return rms_norm(gated.flatten(2), scale.flatten(), eps, mean_square).view(gated.shape)
        n_groups = max(out.shape[2] * mixer.n_groups // mixer.n_heads, 1)
        grouped, scale = gated.unflatten(2, (n_groups, -1)), scale.unflatten(0, (n_groups, -1))
        return rms_norm(grouped.flatten(3), scale.flatten(1), eps).view(gated.shape)
    if isinstance(mixer, DeltaMixer):
        normed = rms_norm(out, vector("norm of out"), eps)
        if mixer.d_squeezed:
            return normed * (other[..., mixer.d_value : 2 * mixer.d_value] if mixer.wide_gate else other).sigmoid()
        return normed * silu(other[..., mixer.d_value : 2 * mixer.d_value])
    return out * other.sigmoid()


def _gated(mixer: Mamba2Mixer, out: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return out * silu(other[..., mixer.d_head : 2 * mixer.d_head])


def gate_sums(mixer: RecurrentMixer, out: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """[B, L] sums of squares that the norm of Mamba-2 is made of."""
    assert isinstance(mixer, Mamba2Mixer)
    return _gated(mixer, out, other).float().square().sum((-2, -1))


def norm_selected(
    mixer: MambaMixer, low: torch.Tensor, select: torch.Tensor, vector: Vectors, eps: float
) -> list[torch.Tensor]:
    """Step size, B and C of Jamba's Mamba, each normed by itself."""
    scale = vector("norm of select")
    parts = [rms_norm(part, own, eps) for part, own in zip(select.chunk(2, -1), scale.chunk(2), strict=True)]
    return [rms_norm(low, vector("norm of step"), eps), torch.cat(parts, -1)]


def mixed_with_last(x: torch.Tensor, last: torch.Tensor, shares: torch.Tensor) -> list[torch.Tensor]:
    """Every token in part the one before it, once for each row of `shares` [n, E]; `last` [B, E] is before the first."""
    before = torch.cat([last[:, None].to(x.dtype), x[:, :-1]], 1)
    return [before + share * (x - before) for share in shares]
