"""Softmax attention over cached keys and values."""

import torch

from ....models.forms import Form
from ....models.mixers.attention import AttentionMixer
from ....models.program import Append, Attention, Pointwise, Tensor
from .. import arithmetic as do
from ..cache import Cache
from ..local import Local
from ..shards import cut, indices, slots_between
from ..value import Pass, Value
from ..weights import lengths_of, pad_heads


def append(at: Local, step: Append, now: Pass) -> None:
    """Write what this chip owns of the new positions: of all of them, or of the newest a window keeps."""
    for new, tensor in zip(step.new, now.running.state, strict=False):
        cache = now.state[tensor.name]
        assert isinstance(cache, Cache)
        slots, positions = slots_between(now.dims, tensor.form, at.wires.place, now.past, now.stop)
        value = at.get(new, now)
        if value.dim() == len(new.form.dims):
            value = value.expand(new.copies, *value.shape)
        device = now.tokens.device
        if len(slots) < value.shape[2]:
            value = value.index_select(2, (positions - now.past).to(device))
        cache.write(value, slots.to(device))


def attend(at: Local, step: Attention, now: Pass) -> None:
    """Queries over the positions this chip has; where others have the rest, the log-sum-exp is kept for the merge."""
    q, cache = at.get(step.q, now), now.state[step.cache.name]
    assert isinstance(cache, Cache)
    slots, keys = slots_between(now.dims, step.cache.form, at.wires.place, 0, now.stop)
    axes = step.q.form.axes_of("H")
    sinks = at.maybe_vector("sinks", "H", axes, now) if at.is_first(step.out.form.partial) else None
    bias = do.Bias(slopes=_slopes(at, axes, now), sinks=sinks, reach=step.reach)
    mixed, lse = at.kernels.attend(q, cache, len(slots), now.positions, keys.to(q.device), bias)
    at.put(step.out, mixed, now)
    keep_statistics(step.out, step.cache, lse, now)


def keep_statistics(out: Tensor, cache: Tensor, lse: torch.Tensor, now: Pass) -> None:
    """What a merge must know of this chip's part of the context."""
    if out.form.partial:
        heads = tuple(item for item in out.form.dims if item[0] in ("B", "L", "H"))
        form = Form((*heads, ("M", cache.form.axes_of("S"))))
        now.held["attention statistics"] = Value(lse[..., None].float(), form)


def _slopes(at: Local, axes: tuple[str, ...], now: Pass) -> torch.Tensor | None:
    if at.model.positions != "alibi":
        return None
    lengths = lengths_of(at.model, now.running.kind)
    heads = Form((("H", axes),))
    padded = pad_heads(do.alibi_slopes(lengths["H"]), heads, lengths, now.dims.lengths["H"], lead=0)
    return cut(padded, now.dims, heads, at.wires.place).to(now.tokens.device)


def merge(at: Local, step: Pointwise, now: Pass) -> None:
    """Weigh attention over a part of the context by its share of the whole softmax."""
    (read,), (out,) = step.reads, step.writes
    parts = now.held.pop("attention statistics").data
    share = do.merge_share(at.own_part(parts, out.form.partial), parts)[..., None]
    at.put(out, (at.get(read, now) * share).to(at.kernels.dtype), now)


def rotate(at: Local, step: Pointwise, now: Pass) -> None:
    """Rotary embedding of queries and keys, which are normed before where their block says so."""
    heads = _normed(at, step, now)
    turned = at.kernels.rotate(heads, now.positions, at.theta)
    _put_beside_values(at, step, turned, now)


def norm_without_rotation(at: Local, step: Pointwise, now: Pass) -> None:
    """Queries and keys that carry no positions, normed."""
    _put_beside_values(at, step, _normed(at, step, now), now)


def _normed(at: Local, step: Pointwise, now: Pass) -> list[torch.Tensor]:
    """Queries and keys, each head normed by itself or all heads together, or as they are."""
    mixer = now.running.block.mixer
    assert isinstance(mixer, AttentionMixer)
    heads = [_keys(at, tensor, now) for tensor in step.reads]
    if not mixer.qk_norm:
        return heads
    pairs = zip(heads, step.reads, strict=True)
    return [_normed_heads(at, x, tensor, i, now) for i, (x, tensor) in enumerate(pairs)]


def _keys(at: Local, tensor: Tensor, now: Pass) -> torch.Tensor:
    """[B, L, heads, d_head] of queries or of keys, without the values beside these."""
    x = at.get(tensor, now)
    return x[0] if tensor.copies > 1 else x


def _put_beside_values(at: Local, step: Pointwise, made: list[torch.Tensor], now: Pass) -> None:
    """Leave queries and keys, these with their values: what lay beside them, or what they were made of."""
    for read, tensor, new in zip(step.reads, step.writes, made, strict=True):
        if tensor.copies == 1:
            at.put(tensor, new, now)
            continue
        old = at.get(read, now)
        at.put(tensor, torch.stack((new, old[1] if read.copies > 1 else old)), now)


def _normed_heads(at: Local, x: torch.Tensor, tensor: Tensor, which: int, now: Pass) -> torch.Tensor:
    if "norms of q and k" in now.held:
        scales = now.held["norms of q and k"].data
        scale = scales[which] if scales.dim() > 1 else scales
        return do.rms_norm(x, scale, at.norm_eps)
    dim = "HK"[which]
    form = Form(((dim, tensor.form.axes_of(dim)), ("Q", ())))
    scale = cut(now.held[f"norm of {'qk'[which]}"].data, now.dims, form, at.wires.place)
    shared = now.held.pop(f"{tensor.name} norm statistics", None)
    sums = square_sums(at, tensor, now) if shared is None else shared.data
    width = lengths_of(at.model, now.running.kind)[dim] * x.shape[-1]
    return do.rms_norm(x.flatten(2), scale.flatten(), at.norm_eps, sums / width).view(x.shape)


def square_sums(at: Local, tensor: Tensor, now: Pass) -> torch.Tensor:
    """[B, L] sums of squares over the heads of queries or keys that this chip counts; heads on several chips once."""
    rows, dim = _keys(at, tensor, now), tensor.form.letters[2]
    axes = tensor.form.axes_of(dim)
    n_seen = len(indices(now.dims, tensor.form, dim, at.wires.place)) * at.wires.mesh.size(axes)
    return rows.float().square().sum((-2, -1)) * (now.dims.lengths[dim] / n_seen)
