"""Which indices of a dimension a chip holds.

Every dimension is read as digits, one for each mesh axis in an order of its own, and a rest: ``F = (z, y, x, rest)``. A
form that cuts F over some axes gives a chip the indices whose digits for these axes are its own coordinates. So the map
hangs on the set of axes alone: gathers, scatters and exchanges only make digits whole or cut them, and nothing has ever
to be put in another order. Positions of the cache (S) are dealt out like cards, lowest digits first, so that every
chip has its share of them however many there are.
"""

from dataclasses import dataclass

from ..hardware_specs.errors import SpecError
from .forms import AXES, Form
from .layouts import Layout

# Where the axes that cut a dimension are listed minor first, F and all that is cut like it
_LIKE_F = "FHKSVGZ"


def axis_order(layout: Layout, dim: str) -> tuple[str, ...]:
    """The axes of a dimension's digits, highest first: those it is cut over everywhere lead, so that padding stays last.

    >>> from shardwise.models.layouts import get_layout
    >>> axis_order(get_layout("wg-x"), "F"), axis_order(get_layout("wg-x"), "E")
    (('z', 'y', 'x'), ('x', 'y', 'z'))
    """
    lead = layout.stored.axes_of("F") if dim in _LIKE_F else ()
    return (*lead, *(axis for axis in AXES if axis not in lead))


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One digit: `size` values, over parts of `inner` indices of the `whole`, the last part padded.

    A dimension shorter than its digit (`repeats` > 1) is held by several chips: value v stands for index v // repeats.
    """

    axis: str
    size: int
    whole: int
    inner: int
    repeats: int = 1


def levels(dim: str, length: int, order: tuple[str, ...], mesh: dict[str, int]) -> tuple[Level, ...]:
    """The digits of a dimension of `length` indices, highest first; axes of size 1 have none.

    Only K/V heads are repeated; anything else that is too short is padded.

    >>> [(level.inner, level.repeats) for level in levels("K", 8, ("z", "y"), {"z": 4, "y": 4})]
    [(2, 1), (1, 2)]

    Raises
    ------
    SpecError : K/V heads that neither divide an axis nor are divided by it
    """
    found = []
    for axis in order:
        size = mesh[axis]
        if size == 1:
            continue
        repeats = size // length if dim == "K" and length < size else 1
        if dim == "K" and (size % length if length < size else length % size):
            raise SpecError(f"{length} K/V heads do not lie evenly over {axis}={size}; cut the heads over other axes")
        inner = -(-length // size)
        found.append(Level(axis=axis, size=size, whole=length, inner=inner, repeats=repeats))
        length = inner
    return tuple(found)


def local_length(form: Form, dim: str, length: int, digits: tuple[Level, ...]) -> int:
    """Indices of a dimension that one chip holds in `form`, padding included."""
    cut = form.axes_of(dim)
    deepest = max((i for i, level in enumerate(digits, 1) if level.axis in cut), default=0)
    whole = [level.size for level in digits[:deepest] if level.axis not in cut]
    found = digits[deepest - 1].inner if deepest else length
    for size in whole:
        found *= size
    return found
