"""A table of corrections over a few features, linear between its knots and constant beyond them."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator
from scipy.sparse import csr_matrix, eye_array, kron, vstack

from ...hardware_specs.errors import SpecError
from ...models.sizes import Array

Axes = Sequence[NDArray[np.float64]]

# Knots nearer than this are the two sides of a jump.
_JUMP = 0.1


class Grid(BaseModel):
    """Values at the crossings of the knots of each feature, the last feature running fastest.

    Parameters
    ----------
    knots : of each feature, by its name
    thousandths : values, in integers to keep files small

    Examples
    --------
    >>> grid = Grid(knots={"a": (0.0, 1.0), "b": (0.0, 2.0)}, thousandths=(0, 2000, 1000, 3000))
    >>> float(grid.at({"a": 0.5, "b": 1.0}))
    1.5
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    knots: dict[str, tuple[float, ...]]
    thousandths: tuple[int, ...]

    @model_validator(mode="after")
    def _is_full(self) -> "Grid":
        n_crossings = int(np.prod([len(axis) for axis in self.knots.values()]))
        if len(self.thousandths) != n_crossings:
            raise SpecError(f"a grid of {n_crossings} crossings has {len(self.thousandths)} values")
        if any(len(axis) < 2 or list(axis) != sorted(set(axis)) for axis in self.knots.values()):
            raise SpecError("the knots of a grid must be at least two along each feature, and grow")
        return self

    @cached_property
    def axes(self) -> tuple[NDArray[np.float64], ...]:
        """Knots of each feature as an array."""
        return tuple(np.array(axis) for axis in self.knots.values())

    @cached_property
    def table(self) -> NDArray[np.float64]:
        """Values by the place along each feature."""
        return np.reshape(np.array(self.thousandths) / 1000.0, [len(axis) for axis in self.axes])

    def at(self, features: Mapping[str, Array]) -> Array:
        """The value at each candidate's features, (...) each.

        Features that all candidates share are dealt with first, and leave a smaller table.
        """
        table = self.table
        axes: list[NDArray[np.float64]] = []
        columns: list[NDArray[np.float64]] = []
        for axis, name in zip(self.axes, self.knots, strict=True):
            feature = np.asarray(features[name])
            if feature.ndim == 0:
                place, share = _between(axis, feature)
                lower, upper = table.take(place, axis=len(axes)), table.take(place + 1, axis=len(axes))
                table = lower + float(share) * (upper - lower)
            else:
                axes.append(axis)
                columns.append(feature)
        return _interpolated(table.ravel(), axes, columns) if axes else float(table)

    def outside(self, features: Mapping[str, Array]) -> Array:
        """Whether any feature lies beyond the knots, (...)."""
        beyond: Array = np.zeros((), bool)
        for axis, name in zip(self.axes, self.knots, strict=True):
            x = features[name]
            beyond = beyond | np.less(x, axis[0] - 1e-9) | np.greater(x, axis[-1] + 1e-9)
        return beyond


def _between(axis: NDArray[np.float64], x: Array) -> tuple[NDArray[np.int64], Array]:
    """The knot below each point and the share of the way to the next."""
    x = np.clip(x, axis[0], axis[-1])
    i = np.clip(np.searchsorted(axis, x, side="right") - 1, 0, len(axis) - 2)
    return i, (x - axis[i]) / (axis[i + 1] - axis[i])


def _interpolated(table: NDArray[np.float64], axes: Axes, columns: Sequence[Array]) -> Array:
    total: Array = 0.0
    for index, weight in corners(axes, columns):
        total = total + table[index] * weight
    return total


def corners(axes: Axes, features: Sequence[Array]) -> list[tuple[NDArray[np.int64], Array]]:
    """The crossings around each point, as places in a flat table, and their weights, which add up to 1."""
    found: list[tuple[NDArray[np.int64], Array]] = [(np.zeros((), np.int64), 1.0)]
    for axis, feature in zip(axes, features, strict=True):
        i, share = _between(axis, feature)
        lower = [(index * len(axis) + i, weight * (1.0 - share)) for index, weight in found]
        found = lower + [(index * len(axis) + i + 1, weight * share) for index, weight in found]
    return found


def design_matrix(axes: Axes, features: Sequence[NDArray[np.float64]]) -> csr_matrix:
    """Rows of weights by which `Grid.at` mixes its values: one row a point, one column a crossing."""
    n, width = len(features[0]), int(np.prod([len(axis) for axis in axes]))
    around = corners(axes, features)
    rows = np.tile(np.arange(n), len(around))
    columns = np.concatenate([np.broadcast_to(index, (n,)) for index, _ in around])
    weights = np.concatenate([np.broadcast_to(np.asarray(weight, float), (n,)) for _, weight in around])
    return csr_matrix((weights, (rows, columns)), shape=(n, width))


def roughness_matrix(axes: Axes) -> csr_matrix:
    """Rows whose squares add up to how unlike neighbouring crossings are; none across a jump."""
    sizes, rows = [len(axis) for axis in axes], []
    for place, axis in enumerate(axes):
        steps = np.diff(axis) > _JUMP
        difference = csr_matrix(np.diff(np.eye(len(axis)), axis=0)[steps])
        before, after = int(np.prod(sizes[:place])), int(np.prod(sizes[place + 1 :]))
        rows.append(kron(kron(eye_array(before), difference), eye_array(after)))
    return csr_matrix(vstack(rows))
