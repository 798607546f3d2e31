"""What every candidate is priced at: workloads and speeds, each figure along a dimension of its own.

A matmul of decode knows no context and no link: along those dimensions it is priced once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...simulator.cost.machine import Speed
from ...simulator.types import Workloads
from .points import FIGURES, Column, Points

_NAMES = ("input_tokens", "output_tokens", *FIGURES)
# Combinations that no point asks for are priced too, up to so many for each that one does.
_MOST_SPARE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The dimensions behind the candidates.

    Parameters
    ----------
    values : of each name, (n,) rising; or, where names go together, of every combination
    is_product : each name has a dimension of its own, else one dimension holds the combinations
    """

    values: dict[str, Column]
    is_product: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each dimension."""
        if not self.is_product:
            return (len(self.values[_NAMES[0]]),)
        return tuple(len(self.values[name]) for name in _NAMES)

    @property
    def size(self) -> int:
        """Settings that every candidate is priced at."""
        return math.prod(self.shape)

    def _column(self, name: str) -> Column:
        if not self.is_product:
            return self.values[name][None, :]
        lengths = [1] * (len(_NAMES) + 1)
        lengths[1 + _NAMES.index(name)] = -1
        return self.values[name].reshape(lengths)

    @property
    def works(self) -> Workloads:
        """Workloads, with a first dimension of 1 for the candidates."""
        return Workloads(input_tokens=self._column("input_tokens"), output_tokens=self._column("output_tokens"))

    @property
    def speed(self) -> Speed | None:
        """Rates over those claimed; None where they are the claimed ones."""
        if all(np.all(self.values[name] == 1.0) for name in FIGURES):
            return None
        return Speed(**{name: self._column(name) for name in FIGURES})

    def place(self, points: Points) -> NDArray[np.int64]:
        """The setting of each point, as a place in the dimensions laid out flat."""
        if self.is_product:
            each = [np.searchsorted(self.values[name], getattr(points, name)) for name in _NAMES]
            return np.asarray(np.ravel_multi_index(tuple(each), self.shape), np.int64)
        known = {tuple(row): i for i, row in enumerate(zip(*(self.values[name] for name in _NAMES), strict=True))}
        rows = zip(*(getattr(points, name) for name in _NAMES), strict=True)
        return np.array([known[tuple(row)] for row in rows], np.int64)


def make_tail(held: Sequence[Points]) -> Tail:
    """The settings that some points ask for, together."""
    distinct = {id(points): points for points in held}.values()
    columns = {name: np.concatenate([getattr(points, name) for points in distinct]) for name in _NAMES}
    values = {name: np.unique(column) for name, column in columns.items()}
    combinations = np.unique(np.column_stack([columns[name] for name in _NAMES]), axis=0)
    product = Tail(values=values, is_product=True)
    if product.size <= _MOST_SPARE * len(combinations):
        return product
    return Tail(values=dict(zip(_NAMES, combinations.T, strict=True)), is_product=False)
