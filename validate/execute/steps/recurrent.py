"""Mixers with a state: convolve, update and read it, gate."""

import torch

from ....models.blocks import RECURRENT, RecurrentMixer
from ....models.forms import Form
from ....models.mixers.mamba import MambaMixer
from ....models.program import Pointwise, Scan, Tensor
from .. import mixing
from ..cache import State
from ..local import Local
from ..recurrences import convolve as convolved
from ..shards import cut
from ..value import Pass


def _mixer(now: Pass) -> RecurrentMixer:
    mixer = now.running.block.mixer
    assert isinstance(mixer, RECURRENT)
    return mixer


def _state(now: Pass, name: str) -> State:
    found = now.state[name]
    assert isinstance(found, State)
    return found


def _vectors(at: Local, axes: tuple[str, ...], now: Pass) -> mixing.Vectors:
    """The mixer's vectors for the heads that `axes` leave to this chip."""

    def vector(name: str) -> torch.Tensor:
        held = now.held[name]
        return at.vector(name, "H", axes, now) if held.form.letters == ("H",) else held.data

    return vector


def mix(at: Local, step: Pointwise, now: Pass) -> None:
    """Every token with the one before it; the last one is kept."""
    (read,) = step.reads
    x, last = at.get(read, now), _state(now, f"last of {step.name}")
    whole = now.held[step.name].data.view(len(step.writes), -1)
    shares = cut(whole, now.dims, Form((("E", read.form.axes_of("E")),)), at.wires.place)
    for tensor, value in zip(step.writes, mixing.mixed_with_last(x, last.read(), shares), strict=True):
        at.put(tensor, value, now)
    last.write(x[:, -1])


def convolve(at: Local, step: Pointwise, now: Pass) -> None:
    """The channels of heads and of groups that a convolution is over; the others stay."""
    shape = _mixer(now).recurrence(at.model.d_model)
    widths = (("", shape.convolved_per_head), (" of groups", shape.convolved_per_group))
    for tensor, (suffix, n) in zip(step.writes, widths, strict=False):
        x, dim = at.get(tensor, now), tensor.form.letters[2]
        axes, tail = tensor.form.axes_of(dim), _state(now, f"convolution state{suffix}")
        # [taps, heads, channels] from [channels x taps, heads]
        weight = at.vector(f"convolution{suffix}", dim, axes, now).unflatten(0, (n, shape.d_conv)).permute(1, 2, 0)
        bias = at.maybe_vector(f"bias of convolution{suffix}", dim, axes, now)
        before = tail.read().unflatten(-1, (shape.d_conv - 1, n)).transpose(1, 2)
        made, kept = convolved(x[..., :n], before, weight, None if bias is None else bias.T)
        tail.write(kept.transpose(1, 2).flatten(2))
        at.put(tensor, torch.cat([made, x[..., n:]], -1), now)


def channels(at: Local, step: Pointwise, now: Pass) -> None:
    """The convolved half of what Mamba's heads took from the token."""
    at.put(step.writes[0], at.get(step.reads[0], now).chunk(2, -1)[0], now)


def norm_selected(at: Local, step: Pointwise, now: Pass) -> None:
    """Step size, B and C, each by itself."""
    mixer = _mixer(now)
    assert isinstance(mixer, MambaMixer)
    low, select = (at.get(tensor, now) for tensor in step.reads)
    made = mixing.norm_selected(mixer, low, select, _vectors(at, (), now), at.norm_eps)
    for tensor, value in zip(step.writes, made, strict=True):
        at.put(tensor, value, now)


def scan(at: Local, step: Scan, now: Pass) -> None:
    """Every token updates the state and reads it."""
    states = [_state(now, tensor.name) for tensor in step.state if tensor.role == "state"]
    reads = [at.get(tensor, now) for tensor in step.reads]
    vectors = _vectors(at, step.out.form.axes_of("H"), now)
    out, after = mixing.scan(_mixer(now), reads, [state.read() for state in states], vectors)
    for state, value in zip(states, after, strict=True):
        state.write(value)
    at.put(step.out, out.to(at.kernels.dtype), now)


def gate(at: Local, step: Pointwise, now: Pass) -> None:
    """What the mixer gives, gated and normed."""
    out, other = (at.get(tensor, now) for tensor in step.reads)
    mixer, sums = _mixer(now), now.held.pop(f"{step.name} statistics", None)
    width = mixer.recurrence(at.model.d_model).d_inner
    mean_square = None if sums is None else sums.data / width
    vectors = _vectors(at, step.writes[0].form.axes_of("H"), now)
    at.put(step.writes[0], mixing.gate(mixer, out, other, vectors, at.norm_eps, mean_square), now)


def gate_sums(at: Local, reads: tuple[Tensor, ...], now: Pass) -> torch.Tensor:
    """[B, L] this chip's part of the sums that the gate's norm is over."""
    out, other = (at.get(tensor, now) for tensor in reads)
    return mixing.gate_sums(_mixer(now), out, other)
