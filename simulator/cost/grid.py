"""A table of corrections over a few features, linear between its knots and constant beyond them."""

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator
from scipy.sparse import csr_matrix, eye_array, kron, vstack

from ...hardware_specs.errors import SpecError
from ...models.types import Array

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
    def axes(self) -> tuple["Axis", ...]:
        """The knots of each feature."""
        return tuple(axis_of(axis) for axis in self.knots.values())

    @cached_property
    def table(self) -> NDArray[np.float64]:
        """Values by the place along each feature."""
        return np.reshape(np.array(self.thousandths) / 1000.0, [len(axis) for axis in self.knots.values()])

    def at(self, features: Mapping[str, Array], found: "Found | None" = None) -> Array:
        """The value at each candidate's features, (...) each.

        Features that all candidates share are dealt with first, and leave a smaller table.

        Parameters
        ----------
        found : places of these features along axes, which grids that are asked one after the other share
        """
        table: NDArray[np.float64] = self.table
        places: list[Place] = []
        found = {} if found is None else found
        for axis, name in zip(self.axes, self.knots, strict=True):
            if (name, id(axis)) not in found:
                found[name, id(axis)] = axis.find(features[name])
            place, share = found[name, id(axis)]
            if np.ndim(share) == 0:
                lower, upper = table.take(place, axis=len(places)), table.take(place + 1, axis=len(places))
                table = np.asarray(lower + share * (upper - lower))
            else:
                places.append((place, share))
        return _interpolated(table, places) if places else float(table)


class Axis:
    """Knots of one feature, and where points lie between them: found in a list of equal cells, each of one knot at most."""

    def __init__(self, knots: tuple[float, ...]) -> None:
        self.knots = np.array(knots)
        self._least, self._most = knots[0], knots[-1]
        steps = np.diff(self.knots)
        self._per_step = 1.0 / steps
        n_cells = int((self._most - self._least) / steps.min()) + 2
        self._per_cell = n_cells / (self._most - self._least)
        edges = self._least + np.arange(n_cells + 1) / self._per_cell
        self._cells = np.clip(np.searchsorted(self.knots, edges, side="right") - 1, 0, len(knots) - 2)
        # no point is beyond the last knot but one
        self._next = np.append(self.knots[1:-1], np.inf)

    def find(self, x: Array) -> "Place":
        """The knot below each point, and the share of the way to the next."""
        if np.ndim(x) == 0:
            inside = min(max(float(x), self._least), self._most)
            place = min(int(np.searchsorted(self.knots, inside, side="right")) - 1, len(self.knots) - 2)
            return place, (inside - float(self.knots[place])) * float(self._per_step[place])
        near: NDArray[np.float64] = np.clip(x, self._least, self._most)
        cell = ((near - self._least) * self._per_cell).astype(np.intp)
        places = self._cells.take(cell)
        places += near >= self._next.take(places)
        return places, (near - self.knots.take(places)) * self._per_step.take(places)


axis_of = cache(Axis)
Place = tuple[Any, Array]
Found = dict[tuple[str, int], Place]


def _interpolated(table: NDArray[np.float64], places: Sequence[Place]) -> Array:
    """Linear between the corners around each point: the first feature splits the table in two, each half the next."""
    index: Any = 0
    for size, (place, _) in zip(table.shape, places, strict=True):
        index = index * size + place
    strides = [int(np.prod(table.shape[axis + 1 :])) for axis in range(table.ndim)]
    flat, shares = table.ravel(), [share for _, share in places]

    def between(axis: int, first: int) -> Array:
        if axis == len(shares):
            corner: NDArray[np.float64] = flat[first:].take(index)
            return corner
        lower = between(axis + 1, first)
        return lower + shares[axis] * (between(axis + 1, first + strides[axis]) - lower)

    return between(0, 0)


def design_matrix(axes: Sequence[Axis], features: Sequence[NDArray[np.float64]]) -> csr_matrix:
    """Rows of weights by which `Grid.at` mixes its values: one row a point, one column a crossing."""
    n, width = len(features[0]), int(np.prod([len(axis.knots) for axis in axes]))
    around: list[tuple[Any, Array]] = [(np.zeros(n, np.intp), np.ones(n))]
    for axis, feature in zip(axes, features, strict=True):
        place, share = axis.find(feature)
        lower = [(index * len(axis.knots) + place, weight * (1.0 - share)) for index, weight in around]
        around = lower + [(index * len(axis.knots) + place + 1, weight * share) for index, weight in around]
    rows = np.tile(np.arange(n), len(around))
    columns, weights = (np.concatenate(parts) for parts in zip(*around, strict=True))
    return csr_matrix((weights, (rows, columns)), shape=(n, width))


def roughness_matrix(axes: Sequence[Axis]) -> csr_matrix:
    """Rows whose squares add up to how unlike neighbouring crossings are; none across a jump."""
    sizes, rows = [len(axis.knots) for axis in axes], []
    for place, axis in enumerate(axes):
        steps = np.diff(axis.knots) > _JUMP
        difference = csr_matrix(np.diff(np.eye(len(axis.knots)), axis=0)[steps])
        before, after = int(np.prod(sizes[:place])), int(np.prod(sizes[place + 1 :]))
        rows.append(kron(kron(eye_array(before), difference), eye_array(after)))
    return csr_matrix(vstack(rows))
