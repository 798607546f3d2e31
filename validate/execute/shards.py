"""Local tensors: from the whole to a chip's part, and between the digits that `models.indices` reads a dimension as."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import torch
from torch.nn.functional import pad

from ...models.forms import Form
from ...models.indices import Level, axis_order, levels, local_length
from ...models.layouts import Layout

# Indices are no data of the run: who watches or traces it is not to see them made.
_unseen = torch._C._DisableTorchDispatch

# Positions are dealt out one by one: their digits are the lowest, not the highest.
_DEALT = "S"


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Lengths and digits of every dimension of one program on one mesh."""

    lengths: Mapping[str, int]
    digits: Mapping[str, tuple[Level, ...]]
    # every layer of every pass asks for the same few
    _known: dict[tuple[object, ...], torch.Tensor] = field(default_factory=dict, repr=False, compare=False)

    def local(self, form: Form, dim: str) -> int:
        """Indices of `dim` on one chip."""
        return local_length(form, dim, self.lengths[dim], self.digits[dim])

    def shape(self, form: Form) -> tuple[int, ...]:
        """Shape of one copy of a local tensor."""
        return tuple(self.local(form, dim) for dim in form.letters)

    def cut_axes(self, form: Form, dim: str) -> tuple[str, ...]:
        """Axes longer than 1 that `dim` is cut over, highest digit first."""
        return tuple(level.axis for level in self.digits[dim] if level.axis in form.axes_of(dim))


def make_dimensions(
    layout: Layout,
    lengths: Mapping[str, int],
    mesh: Mapping[str, int],
    counted: Mapping[str, tuple[str, ...]] | None = None,
) -> Dimensions:
    """Read every dimension as digits.

    Parameters
    ----------
    counted : dimensions that number what chips along some axes each have, which have digits for these axes alone
    """
    orders = {dim: axis_order(layout, dim) for dim in lengths} | dict(counted or {})
    return Dimensions(dict(lengths), {dim: levels(dim, n, orders[dim], dict(mesh)) for dim, n in lengths.items()})


def cut(whole: torch.Tensor, dims: Dimensions, form: Form, place: Mapping[str, int]) -> torch.Tensor:
    """A chip's part of a tensor; dimensions the form does not name lead (copies)."""
    return recut(whole, dims, Form(tuple((dim, ()) for dim in form.letters)), form, place)


def indices(dims: Dimensions, form: Form, dim: str, place: Mapping[str, int]) -> torch.Tensor:
    """Which indices of `dim` a chip holds, in the order it holds them; -1 where it holds padding. Always on the CPU."""
    asked = ("indices", dim, form.axes_of(dim), *place.values())
    if asked not in dims._known:
        with _unseen():
            numbered = torch.arange(1, dims.lengths[dim] + 1)
            dims._known[asked] = cut(numbered, dims, Form(((dim, form.axes_of(dim)),)), place) - 1
    return dims._known[asked]


def slots_between(
    dims: Dimensions, form: Form, place: Mapping[str, int], start: int, stop: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a chip keeps positions `start` to `stop` of a cache of this form, and which of them it keeps.

    Where there are more positions than slots, a position lies in the slot of its rest, and the newest is kept.
    """
    with _unseen():
        held, n_slots = indices(dims, form, _DEALT, place), dims.lengths[_DEALT]
        newest = stop - 1 - (stop - 1 - held) % n_slots
        slots = ((held >= 0) & (newest >= start)).nonzero().flatten()
        return slots, newest[slots]


def rows_of(dims: Dimensions, form: Form, dim: str, place: Mapping[str, int]) -> torch.Tensor:
    """For every index of `dim`, the row a chip holds it in; -1 where it does not."""
    asked = ("rows", dim, form.axes_of(dim), *place.values())
    if asked not in dims._known:
        with _unseen():
            held = indices(dims, form, dim, place)
            rows = torch.full((dims.lengths[dim],), -1)
            rows[held[held >= 0]] = torch.arange(len(held))[held >= 0]
            dims._known[asked] = rows
    return dims._known[asked]


def recut(value: torch.Tensor, dims: Dimensions, before: Form, after: Form, place: Mapping[str, int]) -> torch.Tensor:
    """Keep of a local tensor what the axes that joined since `before` leave to this chip."""
    if before.dims == after.dims:
        return value
    lead = value.dim() - len(before.dims)
    for i, dim in enumerate(before.letters):
        joined = [axis for axis in dims.cut_axes(after, dim) if axis not in dims.cut_axes(before, dim)]
        if not joined:
            continue
        at = lead + i
        open_, names = explode(value, at, dims, dim, before, _depth(dims, dim, before, after))
        for axis in joined:
            where = at + names.index(axis)
            open_ = open_.select(where, place[axis])
            names.remove(axis)
        value = implode(open_, at, dims, dim, after, names)
    return value


def _depth(dims: Dimensions, dim: str, *forms: Form) -> int:
    """Digits that are told apart: down to the last one cut in any of `forms`."""
    cut_anywhere = {axis for form in forms for axis in form.axes_of(dim)}
    return max((i for i, level in enumerate(dims.digits[dim], 1) if level.axis in cut_anywhere), default=0)


def explode(
    value: torch.Tensor, at: int, dims: Dimensions, dim: str, form: Form, depth: int
) -> tuple[torch.Tensor, list[str]]:
    """Open dimension `at` into its digits down to `depth` and the rest, padding with zeros; the digits by their axes.

    Digits cut in `form` are this chip's own and not there.
    """
    digits = dims.digits[dim][:depth]
    held = _depth(dims, dim, form)
    names = [level.axis for level in digits if level.axis not in form.axes_of(dim)]
    open_now = [level.size for level in digits[:held] if level.axis in names]
    rest = value.shape[at] // prod(open_now)
    value = value.reshape(*value.shape[:at], *open_now, rest, *value.shape[at + 1 :])
    where = at + len(open_now)
    for level in digits[held:]:
        if level.repeats > 1:
            value = value.repeat_interleave(level.repeats, where)
        else:
            value = _padded(value, where, level.size * level.inner)
        if dim == _DEALT:
            value = value.unflatten(where, (level.inner, level.size)).transpose(where, where + 1)
        else:
            value = value.unflatten(where, (level.size, level.inner))
        where += 1
    return value, names


def implode(value: torch.Tensor, at: int, dims: Dimensions, dim: str, form: Form, names: list[str]) -> torch.Tensor:
    """Close the open digits `names` of dimension `at` again, as they lie in `form`: padding below its last cut goes."""
    held = _depth(dims, dim, form)
    by_axis = {level.axis: (i, level) for i, level in enumerate(dims.digits[dim], 1)}
    names = list(names)
    while names and by_axis[names[-1]][0] > held:
        level = by_axis[names.pop()][1]
        where = at + len(names)
        if dim == _DEALT:
            value = value.transpose(where, where + 1)
        value = value.flatten(where, where + 1)
        if level.repeats > 1:
            value = value[(slice(None),) * where + (slice(None, None, level.repeats),)]
        else:
            value = value.narrow(where, 0, level.whole)
    return value.flatten(at, at + len(names)) if names else value


def pieces(value: torch.Tensor, axes: tuple[str, ...], dims: Dimensions, before: Form, after: Form) -> torch.Tensor:
    """What each chip of a group along `axes` gets of a local tensor whose dimensions these axes join: [group, ...]."""
    lead = value.dim() - len(before.dims)
    fronts: list[str] = []
    for i, dim in enumerate(before.letters):
        joined = [axis for axis in dims.cut_axes(after, dim) if axis in axes and axis not in dims.cut_axes(before, dim)]
        if not joined:
            continue
        at = len(fronts) + lead + i
        value, names = explode(value, at, dims, dim, before, _depth(dims, dim, before, after))
        for axis in joined:
            value = value.movedim(at + names.index(axis), 0)
            names.remove(axis)
            fronts.insert(0, axis)
            at += 1
        value = implode(value, at, dims, dim, after, names)
    order = [fronts.index(axis) for axis in axes if axis in fronts]
    value = value.permute(*order, *range(len(fronts), value.dim()))
    return value.flatten(0, len(fronts) - 1) if fronts else value.unsqueeze(0)


def joined_pieces(
    stacked: torch.Tensor, axes: tuple[str, ...], dims: Dimensions, mesh: Mapping[str, int], before: Form, after: Form
) -> torch.Tensor:
    """One local tensor from what each chip of a group along `axes` sent, [group, ...]: the axes leave their dimensions."""
    value = stacked.unflatten(0, [mesh[axis] for axis in axes])
    groups = list(axes)
    lead = stacked.dim() - 1 - len(before.dims)
    for i, dim in enumerate(before.letters):
        left = [axis for axis in dims.cut_axes(before, dim) if axis in groups and axis not in dims.cut_axes(after, dim)]
        if not left:
            continue
        at = len(groups) + lead + i
        value, names = explode(value, at, dims, dim, before, _depth(dims, dim, before, after))
        order = [level.axis for level in dims.digits[dim]]
        for axis in left:
            place = sum(order.index(name) < order.index(axis) for name in names)
            value = value.movedim(groups.index(axis), at - 1 + place)
            groups.remove(axis)
            names.insert(place, axis)
            at -= 1
        value = implode(value, at, dims, dim, after, names)
    return _without(value, groups)


def _without(value: torch.Tensor, groups: list[str]) -> torch.Tensor:
    """Drop axes of one chip, which no dimension has a digit for."""
    assert all(value.shape[i] == 1 for i in range(len(groups))), groups
    return value.reshape(value.shape[len(groups) :])


def _padded(value: torch.Tensor, at: int, length: int) -> torch.Tensor:
    missing = length - value.shape[at]
    return pad(value, (0, 0) * (value.dim() - 1 - at) + (0, missing)) if missing else value
