"""Norms, activation functions, sums and gates; and what chips must tell each other for a norm."""

from collections.abc import Sequence

import torch

from ....models.forms import Form
from ....models.mixers.latent import LatentMixer
from ....models.program import Pointwise, Step, Tensor
from .. import arithmetic as do
from ..executable import norm_rows
from ..local import Local
from ..shards import cut
from ..value import Pass
from . import attention, ends, experts, latent, recurrent


def pointwise(at: Local, step: Pointwise, now: Pass) -> None:
    """Run one step by what it is."""
    named = _BY_NAME.get(step.name) or _BY_OP[step.op]
    named(at, step, now)


def know(at: Local, wanted: Tensor, now: Pass, later: Sequence[Step]) -> None:
    """Make the statistics of what is normed next; attention and indexers have left their own."""
    if wanted.name in now.held:
        return
    steps = [step for step in later if isinstance(step, Pointwise)]
    if wanted.name == "scan gate statistics":
        gate = next(step for step in steps if step.name == "scan gate")
        value = recurrent.gate_sums(at, gate.reads, now)
    elif wanted.name in ("q norm statistics", "kv norm statistics"):
        value = attention.square_sums(at, next(t for t in steps[0].reads if wanted.name.startswith(f"{t.name} ")), now)
    else:
        read = next(step for step in steps if step.op == "norm").reads[0]
        value = do.statistics(at.model, at.get(read, now))
    at.put(wanted, value, now)


def _norm(at: Local, step: Pointwise, now: Pass) -> None:
    (read,), (out,) = step.reads, step.writes
    x = at.get(read, now)
    shared = now.held.pop(f"{step.name} statistics", None)
    n = 2 if at.model.norm == "layernorm" else 1
    known = None if shared is None else shared.data.unflatten(-1, (-1, n)).sum(-2)
    form = Form((("E", read.form.axes_of("E")),))
    weight = cut(_norm_weight(at, step.name, now), now.dims, form, at.wires.place)
    at.put(out, at.kernels.norm(at.model, x, known, weight), now)


def _norm_weight(at: Local, name: str, now: Pass) -> torch.Tensor:
    """Scale and shift of a norm, where it has them: [0 to 2, E]."""
    width, n_each = at.model.d_model, at.model.norm_scale + at.model.norm_bias
    if now.block is None:
        return now.held[name].data.view(n_each, width)
    rows = norm_rows(now.block)
    return now.held["norms"].data.view(len(rows), n_each, width)[rows[name]]


def _activate(at: Local, step: Pointwise, now: Pass) -> None:
    (read,), (out,) = step.reads, step.writes
    ffn = now.running.block.ffn
    assert ffn is not None
    at.put(out, at.kernels.activate(ffn, at.get(read, now)), now)


def _activate_shared(at: Local, step: Pointwise, now: Pass) -> None:
    _activate(at, step, now)
    if "shared gate" in now.held:
        (out,) = step.writes
        at.put(out, experts.gate_shared(at, out, now), now)


def _add(at: Local, step: Pointwise, now: Pass) -> None:
    values = [at.get(tensor, now) for tensor in step.reads]
    at.put(step.writes[0], sum(values[1:], start=values[0]), now)


def _gate(at: Local, step: Pointwise, now: Pass) -> None:
    """One tensor scaled by the sigmoid of another."""
    x, other = (at.get(tensor, now) for tensor in step.reads)
    share = other.sigmoid()
    at.put(step.writes[0], x * (share if share.dim() == x.dim() else share[..., None]), now)


def _rotate(at: Local, step: Pointwise, now: Pass) -> None:
    run = latent.rotate if isinstance(now.running.block.mixer, LatentMixer) else attention.rotate
    run(at, step, now)


_BY_OP = {
    "embed": ends.embed,
    "norm": _norm,
    "rotate": _rotate,
    "merge": attention.merge,
    "activate": _activate,
    "add": _add,
    "sample": ends.sample,
    "gate": _gate,
    "convolve": recurrent.convolve,
    "route": experts.route,
    "mix": recurrent.mix,
}
_BY_NAME = {
    "latent norms": latent.norm_latents,
    "norms of q and k": attention.norm_without_rotation,
    "inner norms": recurrent.norm_selected,
    "channels": recurrent.channels,
    "scan gate": recurrent.gate,
    "shared activation": _activate_shared,
}
