"""Matrix products: with biases that are added once, scales of narrow weights, and weights that are gathered in rounds."""

import torch

from ....models.forms import Form
from ....models.program import Matmul, Tensor
from ..exchange import batched_matmul, looped_matmul
from ..formats import scale_name
from ..local import Local
from ..shards import recut
from ..value import Pass, Value

_BIASES = {
    "w_q": "bias of q", "w_kv": "bias of kv", "w_gate": "bias of gate", "w_o": "bias of o",
    "w_in": "bias of w_in", "w_out": "bias of w_out", "unembedding": "bias of logits",
    "w_heads": "bias of heads", "w_groups": "bias of groups",
}  # fmt: skip


def matmul(at: Local, step: Matmul, now: Pass) -> None:
    """One product a weight; outs of one name are added up."""
    xs = step.x * len(step.weights) if len(step.x) == 1 else step.x
    made: dict[str, torch.Tensor] = {}
    for x, weight, out in zip(xs, step.weights, step.outs, strict=True):
        value = _product(at, x, weight, out, now, step.batched)
        scale = now.held.get(scale_name(weight.name))
        if scale is not None:
            value = (value * _along_out(at, scale, weight, out, now)).to(at.kernels.dtype)
        bias = now.held.get(_BIASES.get(weight.name, ""))
        if bias is not None and at.is_first(out.form.partial):
            value = value + _along_out(at, bias, weight, out, now)
        made[out.name] = made[out.name] + value if out.name in made else value
    for out in step.outs:
        at.put(out, made[out.name], now)


def _product(at: Local, x: Tensor, weight: Tensor, out: Tensor, now: Pass, batched: str | None) -> torch.Tensor:
    held = now.held[weight.name]
    if set(held.form.axes) - set(weight.form.axes):
        return looped_matmul(
            at.kernels,
            at.wires,
            now.dims,
            at.get(x, now),
            x.form,
            held.data,
            held.form,
            weight.form,
            out.form,
            batched,
        )
    if batched is None:
        return at.kernels.matmul(at.get(x, now), x.form, at.get(weight, now), weight.form, out.form)
    return batched_matmul(at.get(x, now), x.form, at.get(weight, now), weight.form, out.form)


def _along_out(at: Local, vector: Value, weight: Tensor, out: Tensor, now: Pass) -> torch.Tensor:
    """[copies, 1, 1, ...] of a bias or a scale, for this chip's part of `out`."""
    form = Form(tuple(item for item in out.form.dims if item[0] in vector.form.letters))
    part = recut(vector.data, now.dims, vector.form, form, at.wires.place)
    if weight.copies == 1:
        return part
    return part.view(weight.copies, *(1 for _ in range(len(out.form.dims) - len(form.dims))), *part.shape[1:])
