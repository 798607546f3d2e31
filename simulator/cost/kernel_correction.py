"""The corrections of a kernel family: what its form leaves over, by ridge regression on several grids at once.

Kernels measured one by one are noisy and some shapes are lucky, but more work that took less time would mislead a search. So
time may not shrink where a size is doubled: such pairs of shapes push the values until it does not, or hardly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from .grid import Grid, axis_of, design_matrix, roughness_matrix
from .kernel_families import Knots

Vector = NDArray[np.float64]
Columns = Mapping[str, Vector]

# Pulls on the corrections, in rows: of every value towards 0, and of neighbours towards each other. Crossings that no row
# touches follow their neighbours, and far from all rows the form.
_RIDGE_ROWS = 0.01
_ROUGHNESS_ROWS = 0.1
# The pull of a pair of shapes whose larger one is predicted to be the quicker.
_SHRINKING_ROWS = 100.0
_REWEIGHTINGS = 8
_PUSHES = 8
_LEAST_RESIDUAL = 0.02
# A knot nearer to the end of what was measured than this share of the way to the next knot gives way to it.
_NEAR = 0.3
_MOST_ITERATIONS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Shapes and the same with one size doubled: features of both, and ln(larger / smaller) of the form's seconds, (n,)."""

    small: Columns
    large: Columns
    growth_log: Vector


def knots_within(grid: Knots, features: Columns) -> dict[str, tuple[float, ...]]:
    """Knots no further out than what was measured; a feature that does not vary has none."""
    found = {}
    for name, knots in grid.items():
        least, most = float(features[name].min()), float(features[name].max())
        inner = [knot for knot in knots if least < knot < most]
        if len(inner) > 1 and inner[0] - least < _NEAR * (inner[1] - inner[0]):
            inner = inner[1:]
        if len(inner) > 1 and most - inner[-1] < _NEAR * (inner[-1] - inner[-2]):
            inner = inner[:-1]
        axis = sorted({round(knot, 4) for knot in (least, *inner, most)})
        if len(axis) > 1:
            found[name] = tuple(axis)
    return found


def fit_corrections(grids: Sequence[Knots], features: Columns, left: Vector, pairs: Pairs) -> tuple[Grid, ...]:
    """Grids whose sum comes near to `left` at `features`, reweighted towards least absolute error.

    Parameters
    ----------
    left : ln(measured / form) of each row, (n,)
    """
    from scipy.sparse import block_diag, diags, eye_array

    grids = [grid for grid in grids if grid]
    axes = [[axis_of(knots) for knots in grid.values()] for grid in grids]
    design = _designs(grids, features)
    rough = block_diag([roughness_matrix(axis) for axis in axes])
    pulls = _ROUGHNESS_ROWS * (rough.T @ rough) + _RIDGE_ROWS * eye_array(design.shape[1])
    weights, values = np.ones(len(left)), np.zeros(design.shape[1])
    for _ in range(_REWEIGHTINGS):
        normal, right = design.T @ diags(weights) @ design + pulls, design.T @ (weights * left)
        values = _solved(normal, right, values)
        weights = 1.0 / np.maximum(np.abs(design @ values - left), _LEAST_RESIDUAL)
        weights /= weights.mean()
    growth = csr_matrix(_designs(grids, pairs.large) - _designs(grids, pairs.small))
    for _ in range(_PUSHES):
        shrinks = growth @ values + pairs.growth_log < 0.0
        if not shrinks.any():
            break
        pushed = growth[np.flatnonzero(shrinks)]
        values = _solved(
            normal + _SHRINKING_ROWS * (pushed.T @ pushed),
            right - _SHRINKING_ROWS * (pushed.T @ pairs.growth_log[shrinks]),
            values,
        )
    ends = np.cumsum([0, *(int(np.prod([len(axis.knots) for axis in each])) for each in axes)])
    return tuple(
        Grid(knots=dict(grid), thousandths=tuple(round(1000.0 * float(v)) for v in values[first:last]))
        for grid, first, last in zip(grids, ends[:-1], ends[1:], strict=True)
    )


def _designs(grids: Sequence[Knots], features: Columns) -> csr_matrix:
    from scipy.sparse import hstack

    return csr_matrix(
        hstack([design_matrix([axis_of(k) for k in grid.values()], [features[n] for n in grid]) for grid in grids])
    )


def _solved(normal: Any, right: Vector, start: Vector) -> Vector:
    """Conjugate gradients, which deal with few rows a crossing and many crossings alike."""
    from scipy.sparse import diags
    from scipy.sparse.linalg import cg

    matrix = csr_matrix(normal)
    scale = diags(1.0 / matrix.diagonal())
    values, _ = cg(matrix, right, x0=start, rtol=1e-5, maxiter=_MOST_ITERATIONS, M=scale)
    return np.asarray(values, float)
