"""A table of corrections over a few features, linear between its knots and constant beyond them."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator
from scipy.sparse import csr_matrix

from ...hardware_specs.errors import SpecError
from ...models.sizes import Array


class Grid(BaseModel):
    """Values at the crossings of `knots`, the last feature running fastest.

    >>> Grid(knots=((0.0, 1.0), (0.0, 2.0)), values=(0.0, 2.0, 1.0, 3.0)).at(0.5, 1.0)
    1.5
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    knots: tuple[tuple[float, ...], ...]
    values: tuple[float, ...]

    @model_validator(mode="after")
    def _is_full(self) -> "Grid":
        n_crossings = int(np.prod([len(axis) for axis in self.knots]))
        if len(self.values) != n_crossings:
            raise SpecError(f"a grid of {n_crossings} crossings has {len(self.values)} values")
        if any(len(axis) < 2 or list(axis) != sorted(set(axis)) for axis in self.knots):
            raise SpecError("the knots of a grid must be at least two along each feature, and grow")
        return self

    @cached_property
    def _axes(self) -> tuple[NDArray[np.float64], ...]:
        return tuple(np.array(axis) for axis in self.knots)

    @cached_property
    def _table(self) -> NDArray[np.float64]:
        return np.array(self.values)

    def at(self, *features: Array) -> Array:
        """The value at each candidate's features, (...) each."""
        total: Array = 0.0
        for index, weight in corners(self._axes, features):
            total = total + self._table[index] * weight
        return total

    def outside(self, *features: Array) -> Array:
        """Whether any feature lies beyond the knots, (...)."""
        beyond: Array = np.zeros((), bool)
        for axis, x in zip(self._axes, features, strict=True):
            beyond = beyond | np.less(x, axis[0] - 1e-9) | np.greater(x, axis[-1] + 1e-9)
        return beyond


def corners(axes: Sequence[NDArray[np.float64]], features: Sequence[Array]) -> list[tuple[NDArray[np.int64], Array]]:
    """The crossings around each point, as places in a flat table, and their weights, which add up to 1."""
    found: list[tuple[NDArray[np.int64], Array]] = [(np.zeros((), np.int64), 1.0)]
    for axis, feature in zip(axes, features, strict=True):
        x = np.clip(feature, axis[0], axis[-1])
        i = np.minimum(np.searchsorted(axis, x, side="right") - 1, len(axis) - 2)
        share = (x - axis[i]) / (axis[i + 1] - axis[i])
        lower = [(index * len(axis) + i, weight * (1.0 - share)) for index, weight in found]
        found = lower + [(index * len(axis) + i + 1, weight * share) for index, weight in found]
    return found


def design_matrix(axes: Sequence[NDArray[np.float64]], features: Sequence[NDArray[np.float64]]) -> csr_matrix:
    """Rows of weights by which `Grid.at` mixes its values: one row a point, one column a crossing."""
    n, width = len(features[0]), int(np.prod([len(axis) for axis in axes]))
    around = corners(axes, features)
    rows = np.tile(np.arange(n), len(around))
    columns = np.concatenate([np.broadcast_to(index, (n,)) for index, _ in around])
    weights = np.concatenate([np.broadcast_to(np.asarray(weight, float), (n,)) for _, weight in around])
    return csr_matrix((weights, (rows, columns)), shape=(n, width))
