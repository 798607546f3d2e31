"""Recurrent mixers, each run over all tokens so far from an empty state: nothing is carried from pass to pass."""

import torch
from torch.nn.functional import conv1d, silu

from ....models.blocks import RecurrentMixer
from ....models.mixers.linear import LinearMixer
from ....models.mixers.mamba import MambaMixer
from ....models.mixers.recurrent import Recurrence
from ....models.mixers.rwkv import RwkvMixer
from .. import mixing
from ..vectors import named_vectors
from .reading import Reading, Weights


def recurrent(at: Reading, mixer: RecurrentMixer, x: torch.Tensor, w: Weights) -> torch.Tensor:
    """[B, S, E] what the mixer makes of all tokens [B, S, E]."""
    shape = mixer.recurrence(at.model.d_model)
    vectors = named_vectors(shape, w["vectors"]) if "vectors" in w else {}
    run = _rwkv if isinstance(mixer, RwkvMixer) else _mamba if isinstance(mixer, MambaMixer) else _grouped
    mixed = run(at, mixer, shape, x, w, vectors)
    return torch.einsum("bshq,hqe->bse", mixed, w["w_o"]) + vectors.get("bias of o", 0.0)


def _empty(shape: Recurrence, n: int) -> torch.Tensor:
    return torch.zeros(n, shape.n_heads, shape.d_state, shape.d_value)


def _grouped(
    at: Reading, mixer: RecurrentMixer, shape: Recurrence, x: torch.Tensor, w: Weights, vectors: Weights
) -> torch.Tensor:
    """Mamba-2, gated delta and linear attention: numbers a head, and where there are groups numbers a group."""
    reads = [_projected(x, w["w_heads"], vectors.get("bias of heads"))]
    if shape.n_groups:
        reads.append(_projected(x, w["w_groups"], vectors.get("bias of groups")))
    if shape.d_conv > 1:
        widths = (("", shape.convolved_per_head), (" of groups", shape.convolved_per_group))
        reads = [_convolved(y, n, suffix, vectors) for y, (suffix, n) in zip(reads, widths, strict=False)]
    state = _empty(shape, len(x))
    states = [state, state[..., 0]] if isinstance(mixer, LinearMixer) else [state]
    gate = reads[0]
    if "w_widen_decay" in w:
        reads.append(_through(x, w["w_squeeze_decay"], w["w_widen_decay"]))
    if "w_widen_gate" in w:
        gate = _through(x, w["w_squeeze_gate"], w["w_widen_gate"])
    out, _ = mixing.scan(mixer, reads, states, vectors.__getitem__)
    if isinstance(mixer, LinearMixer):
        return out.to(x.dtype)
    return mixing.gate(mixer, out.to(x.dtype), gate, vectors.__getitem__, at.eps)


def _through(x: torch.Tensor, narrow: torch.Tensor, wide: torch.Tensor) -> torch.Tensor:
    """A number a channel through a few numbers a token."""
    return torch.einsum("bse,et,thq->bshq", x, narrow, wide)


def _projected(x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    made = torch.einsum("bse,ehi->bshi", x, w)
    return made if bias is None else made + bias.T


def _convolved(x: torch.Tensor, n: int, suffix: str, vectors: Weights) -> torch.Tensor:
    """The first `n` channels of every head convolved over the tokens, then silu; the others as they are."""
    taken = x[..., :n].flatten(2).transpose(1, 2)
    weight = vectors[f"convolution{suffix}"]
    # [channels x taps, heads] -> [heads x channels, 1, taps]
    kernel = weight.unflatten(0, (n, -1)).permute(2, 0, 1).flatten(0, 1)[:, None]
    bias = vectors.get(f"bias of convolution{suffix}")
    n_taps = kernel.shape[-1]
    made = conv1d(taken, kernel, None if bias is None else bias.T.flatten(), padding=n_taps - 1, groups=len(kernel))
    made = silu(made[..., : x.shape[1]]).transpose(1, 2).unflatten(2, (x.shape[2], n))
    return torch.cat([made, x[..., n:]], -1)


def _mamba(
    at: Reading, mixer: RecurrentMixer, shape: Recurrence, x: torch.Tensor, w: Weights, vectors: Weights
) -> torch.Tensor:
    """Mamba: step sizes, B and C come from the convolved channels."""
    assert isinstance(mixer, MambaMixer)
    heads = _convolved(_projected(x, w["w_heads"], vectors.get("bias of heads")), shape.convolved_per_head, "", vectors)
    channels = heads.chunk(2, -1)[0]
    low, select = (torch.einsum("bshq,hqt->bst", channels, w[name]) for name in ("w_step_low", "w_select"))
    if mixer.inner_norms:
        low, select = mixing.norm_selected(mixer, low, select, vectors.__getitem__, at.eps)
    steps = torch.einsum("bst,thq->bshq", low, w["w_step"])
    out, _ = mixing.scan(mixer, [heads, steps, select], [_empty(shape, len(x))], vectors.__getitem__)
    return mixing.gate(mixer, out.to(x.dtype), heads, vectors.__getitem__, at.eps)


def _rwkv(
    at: Reading, mixer: RecurrentMixer, shape: Recurrence, x: torch.Tensor, w: Weights, vectors: Weights
) -> torch.Tensor:
    """RWKV's time mixing."""
    shares = vectors["token mixing"].view(3, -1)
    mixed = mixing.mixed_with_last(x, torch.zeros_like(x[:, 0]), shares)
    r, k, v = (torch.einsum("bse,ehq->bshq", y, w[name]) for y, name in zip(mixed, ("w_r", "w_k", "w_v"), strict=True))
    out, _ = mixing.scan(mixer, [k, v], [_empty(shape, len(x))], vectors.__getitem__)
    return mixing.gate(mixer, out.to(x.dtype), r, vectors.__getitem__, at.eps)
