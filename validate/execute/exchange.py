"""A program's collectives on real tensors: local tensors in, local tensors in their new forms out."""

from collections.abc import Sequence

import torch

from ...models.forms import AXES, Form
from ...models.program import Collective
from .comm import Wires
from .formats import widened
from .kernels import Kernels
from .shards import Dimensions, joined_pieces, pieces, recut


def exchange(step: Collective, values: Sequence[torch.Tensor], dims: Dimensions, wires: Wires) -> list[torch.Tensor]:
    """Run one collective; tensors that move alike travel as one message."""
    pairs = [(tensor.form, after) for tensor, after in zip(step.tensors, step.after, strict=True)]
    if wires.mesh.size(step.axes) == 1:
        return list(values)
    if step.kind == "all_reduce":
        flat = wires.all_reduce(step.axes, torch.cat([value.flatten() for value in values]))
        parts = flat.split([value.numel() for value in values])
        return [part.view_as(value) for part, value in zip(parts, values, strict=True)]
    if step.kind == "all_gather":
        flat = wires.all_gather(step.axes, torch.cat([value.flatten() for value in values]))
        parts = flat.split([value.numel() for value in values], 1)
        stacked = [part.unflatten(1, value.shape) for part, value in zip(parts, values, strict=True)]
        return [_joined(part, step.axes, dims, wires, *pair) for part, pair in zip(stacked, pairs, strict=True)]
    cut = [pieces(value, step.axes, dims, *pair) for value, pair in zip(values, pairs, strict=True)]
    flat = torch.cat([part.flatten(1) for part in cut], 1)
    sizes = [part[0].numel() for part in cut]
    if step.kind == "reduce_scatter":
        mine = wires.reduce_scatter(step.axes, flat).split(sizes)
        return [part.view(piece.shape[1:]) for part, piece in zip(mine, cut, strict=True)]
    got = wires.all_to_all(step.axes, flat).split(sizes, 1)
    return [
        _joined(part.reshape(piece.shape), step.axes, dims, wires, *pair)
        for part, piece, pair in zip(got, cut, pairs, strict=True)
    ]


def _joined(
    stacked: torch.Tensor, axes: tuple[str, ...], dims: Dimensions, wires: Wires, before: Form, after: Form
) -> torch.Tensor:
    return joined_pieces(stacked, axes, dims, dict(wires.mesh.axes), before, after)


def looped_matmul(
    kernels: Kernels,
    wires: Wires,
    dims: Dimensions,
    x: torch.Tensor,
    x_form: Form,
    shard: torch.Tensor,
    held: Form,
    used: Form,
    out_form: Form,
    batched: str | None = None,
) -> torch.Tensor:
    """The einsum of `x` with a weight that is gathered in rounds: each multiplies one shard while the next comes in.

    Parameters
    ----------
    shard : this chip's part of the weight, in form `held`; the einsum wants `used`
    batched : a dimension each of whose indices has a weight of its own

    References
    ----------
    [Pope2022] section 3.5; [Wang2023] : looped CollectiveEinsum.
    """
    axes = tuple(axis for axis in AXES if axis in held.axes and axis not in used.axes)
    n, me = wires.mesh.size(axes), wires.mesh.index(wires.place, axes)
    shared = [dim for dim in held.letters if dim in x_form.letters]
    kept = [dim for dim in held.letters if dim not in shared or dim == batched]
    across = tuple(axis for axis in axes if any(axis in held.axes_of(dim) for dim in kept))
    x_part, out_part = _cut_like(x_form, held, axes, shared), _cut_like(out_form, held, axes, kept)
    columns: dict[tuple[int, ...], torch.Tensor] = {}
    shard = shard.contiguous()
    for round_ in range(n):
        place = _place_in_group((me + round_) % n, axes, wires)
        coming = wires.shift(axes, shard) if round_ < n - 1 else None
        part = recut(x, dims, x_form, x_part, place)
        multiply = kernels.matmul if batched is None else batched_matmul
        product = multiply(part, x_part, shard, held, out_part)
        key = tuple(place[axis] for axis in across)
        columns[key] = columns[key] + product if key in columns else product
        if coming is not None:
            shard, requests = coming
            for request in requests:
                request.wait()
    if not across:
        return columns[()]
    stacked = torch.stack([columns[key] for key in sorted(columns)])
    return joined_pieces(stacked, across, dims, dict(wires.mesh.axes), out_part, out_form)


def batched_matmul(x: torch.Tensor, x_form: Form, w: torch.Tensor, w_form: Form, out_form: Form) -> torch.Tensor:
    """The einsum of forms in which an index they share has a weight of its own."""
    names = (",".join("".join(form.letters) for form in (x_form, w_form)), "".join(out_form.letters))
    return torch.einsum("->".join(names), x, widened(w, x.dtype))


def _cut_like(form: Form, held: Form, axes: tuple[str, ...], dims: list[str]) -> Form:
    """`form` with `dims` cut over the axes of a round as the weight's shard is; they name no other dimension then."""
    parts = []
    for dim, have in form.dims:
        kept = tuple(axis for axis in have if axis not in axes)
        parts.append((dim, (*kept, *(a for a in held.axes_of(dim) if a in axes)) if dim in dims else kept))
    return Form(tuple(parts), tuple(axis for axis in form.partial if axis not in axes))


def _place_in_group(number: int, axes: tuple[str, ...], wires: Wires) -> dict[str, int]:
    """Coordinates of the chip that stands at `number` in this chip's group along `axes`."""
    place = dict(wires.place)
    for axis in reversed(axes):
        number, place[axis] = divmod(number, wires.mesh.axes[axis])
    return place
