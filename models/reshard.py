"""From one form to another: the table that derives every collective from declared forms.

===================================== =============================================
axes leave their dimensions           one all_gather over all of them together
a partial sum becomes sharded         reduce_scatter
a partial sum becomes replicated      all_reduce
an axis moves to another dimension    all_to_all
an axis joins a replicated dimension  local slice, free
===================================== =============================================

Which indices a chip holds of a dimension depends on the set of axes it is cut over, not on their order: see `models.indices`.
"""

from dataclasses import dataclass
from typing import Literal

from ..hardware_specs.errors import SpecError
from .forms import Form

CollectiveKind = Literal["all_gather", "reduce_scatter", "all_reduce", "all_to_all", "slice"]


@dataclass(frozen=True, slots=True)
class Move:
    """One collective (or free slice) that takes a tensor from one form to the next."""

    kind: CollectiveKind
    axes: tuple[str, ...]
    before: Form
    after: Form


def reshard(start: Form, goal: Form) -> tuple[Move, ...]:
    """Derive the moves from `start` to `goal`, each seeing what the one before left.

    Slices come first: a chip keeps the indices that the members of its groups will need in the end, which is free and
    makes the rest smaller. Then sums, then exchanges, then gathers.

    Raises
    ------
    SpecError : the forms have other dimensions, or `goal` has a partial sum that `start` has not

    Examples
    --------
    >>> from shardwise.models.forms import parse_form
    >>> [f"{m.kind}({''.join(m.axes)})" for m in reshard(parse_form("BLE_xyz"), parse_form("BLE_x"))]
    ['all_gather(yz)']
    >>> [f"{m.kind}({''.join(m.axes)})" for m in reshard(parse_form("BLF_zy{x}"), parse_form("BLF_zyx"))]
    ['reduce_scatter(x)']
    >>> [f"{m.kind}({''.join(m.axes)})" for m in reshard(parse_form("BLH_zyxQ"), parse_form("B_xyzLHQ"))]
    ['all_to_all(xyz)']
    """
    if start.letters != goal.letters:
        raise SpecError(f"cannot reshard {start} to {goal}: the dimensions differ")
    if not set(goal.partial) <= set(start.partial):
        raise SpecError(f"cannot reshard {start} to {goal}: nothing makes a partial sum")
    moves: list[Move] = []
    form = start
    for kind, axes in _plan(start, goal):
        after = _apply(form, goal, axes)
        moves.append(Move(kind, axes, form, after))
        form = after
    return tuple(moves)


def _plan(start: Form, goal: Form) -> list[tuple[CollectiveKind, tuple[str, ...]]]:
    """Which axes take which kind of move, in the order the moves are made."""
    held = start.axes
    summed = tuple(axis for axis in start.partial if axis not in goal.partial)
    moved = tuple(a for a in held if goal.dim_of(a) not in (None, start.dim_of(a)))
    gathered = tuple(a for a in held if goal.dim_of(a) is None)
    kinds: list[tuple[CollectiveKind, tuple[str, ...]]] = [
        ("slice", tuple(a for a in goal.axes if a not in held and a not in start.partial)),
        ("reduce_scatter", tuple(a for a in summed if goal.dim_of(a) is not None)),
        ("all_reduce", tuple(a for a in summed if goal.dim_of(a) is None)),
        ("all_to_all", moved),
        ("all_gather", gathered),
    ]
    return [(kind, tuple(sorted(axes))) for kind, axes in kinds if axes]


def _apply(form: Form, goal: Form, axes: tuple[str, ...]) -> Form:
    """The form after one move: `axes` lie where `goal` has them (nowhere, if gathered), the others stay."""
    dims = []
    for dim, held in form.dims:
        stays = [axis for axis in held if axis not in axes]
        joins = [axis for axis in goal.axes_of(dim) if axis in axes and axis not in stays]
        order = [*stays, *joins]
        wanted = [axis for axis in goal.axes_of(dim) if axis in order]
        dims.append((dim, tuple(wanted) if len(wanted) == len(order) else tuple(order)))
    return Form(tuple(dims), tuple(axis for axis in form.partial if axis not in axes))
