"""How a tensor lies over the chips, in the paper's notation.

``BLE_xyz`` is a tensor with dimensions B, L, E whose E is cut over the mesh axes x, y and z; ``BLF_zy{x}`` is one
whose F is cut over z (major) and y (minor) and whose values are still to be summed over x.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..hardware_specs.errors import SpecError

AXES = ("x", "y", "z")
_DIM = re.compile(r"([A-Z])(?:_([a-z]+))?")
_FORM = re.compile(r"(?P<dims>(?:[A-Z](?:_[a-z]+)?)+)(?:\{(?P<partial>[a-z]+)\})?")


@dataclass(frozen=True, slots=True)
class Form:
    """Dimensions in order, the axes each is cut over (major first), and the axes still to be summed over.

    References
    ----------
    [Pope2022] section 3.1 (partitioning notation).
    """

    dims: tuple[tuple[str, tuple[str, ...]], ...]
    partial: tuple[str, ...] = ()
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a form that uses a dimension or an axis twice."""
        object.__setattr__(self, "_hash", hash((self.dims, self.partial)))
        axes = [*self.axes, *self.partial]
        if len(set(axes)) != len(axes):
            raise SpecError(f"form {self} uses a mesh axis twice")
        if len({dim for dim, _ in self.dims}) != len(self.dims):
            raise SpecError(f"form {self} uses a dimension twice")

    def __hash__(self) -> int:
        """Made once: forms are the keys by which sizes are remembered."""
        return self._hash

    @property
    def axes(self) -> tuple[str, ...]:
        """Every axis some dimension is cut over."""
        return tuple(axis for _, axes in self.dims for axis in axes)

    @property
    def letters(self) -> tuple[str, ...]:
        """The dimensions, without their axes."""
        return tuple(dim for dim, _ in self.dims)

    def axes_of(self, dim: str) -> tuple[str, ...]:
        """The axes `dim` is cut over."""
        return dict(self.dims)[dim]

    def dim_of(self, axis: str) -> str | None:
        """The dimension cut over `axis`, if any."""
        return next((dim for dim, axes in self.dims if axis in axes), None)

    def __str__(self) -> str:
        """The notation the form was read from."""
        dims = "".join(dim + (f"_{''.join(axes)}" if axes else "") for dim, axes in self.dims)
        return dims + (f"{{{''.join(self.partial)}}}" if self.partial else "")


def parse_form(text: str) -> Form:
    """Read a form.

    >>> str(parse_form("BLF_zy{x}")), parse_form("E_xF_zy").axes_of("F")
    ('BLF_zy{x}', ('z', 'y'))
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise SpecError(f"{text!r} is no tensor form; write e.g. 'BLF_zy{{x}}'")
    dims = tuple((dim, tuple(axes)) for dim, axes in _DIM.findall(match["dims"]))
    return Form(dims, tuple(match["partial"] or ""))


def without_axes(form: Form, dim: str, keep: Iterable[str]) -> Form:
    """`form` with `dim` cut over those of its axes alone that are in `keep`."""
    kept = tuple(keep)
    dims = tuple((d, tuple(a for a in axes if d != dim or a in kept)) for d, axes in form.dims)
    return Form(dims, form.partial)
