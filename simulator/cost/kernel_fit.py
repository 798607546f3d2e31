"""Fit the kernel families of one chip to measured kernels.

Two steps, on two rows of three (a row's shape decides which): the constants of the physical form by least squares on
ln(predicted / measured), then the correction over a grid of the shape's features by ridge regression on what is left. The
third row of three judges.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...hardware_specs.chip import Chip
from ...hardware_specs.errors import SpecError
from ...hardware_specs.kernel_formats import COLLECTIVES, KERNEL_DTYPES
from .grid import Grid, design_matrix, roughness_matrix
from .kernel_families import FAMILIES, Family
from .kernel_forms import ChipRates, Constants, KernelTime, Op, Widths, passes_of
from .kernel_times import KernelFamily, KernelFit, chip_rates, computing_format

Vector = NDArray[np.float64]

# Rows that a family needs before anything is fitted to it, and those the constants are fitted on at most.
LEAST_ROWS = 30
_MOST_ROWS_FOR_CONSTANTS = 4000
# Residuals beyond this count less, in the constants and in the correction: a few shapes take another code path.
_SOFT_LOG = 0.05
# Pulls on the corrections, in rows: of every value towards 0, and of neighbours towards each other. Crossings that no row
# touches follow their neighbours, and far from all rows the form.
_RIDGE = 0.01
_ROUGHNESS = 0.1
# A knot nearer than this to the end of what was measured gives way to it.
_NEAR = 0.3
_REWEIGHTINGS = 4
_LEAST_RESIDUAL = 0.01
# Results are written in 16 bits at least.
_LEAST_OUT_BYTES = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRows:
    """Measured kernels of one family: its shape columns and seconds, each (n,)."""

    op: Op
    variant: str
    kv: str
    software: str
    shape: Mapping[str, Vector]
    seconds: Vector


def is_held_out(shape: Mapping[str, Vector]) -> NDArray[np.bool_]:
    """One row in three, by a hash of its shape: the same whatever else is measured."""
    names = sorted(shape)
    rows = zip(*(shape[name] for name in names), strict=True)
    texts = (" ".join(f"{name}={value:g}" for name, value in zip(names, row, strict=True)) for row in rows)
    return np.array([int(hashlib.sha256(text.encode()).hexdigest(), 16) % 3 == 0 for text in texts], bool)


def fit_family(rows: KernelRows, rates: ChipRates, widths: Widths) -> KernelFamily:
    """Constants, correction, and what the rows held out say of both.

    Raises
    ------
    SpecError : too few rows
    """
    held = is_held_out(rows.shape)
    n_fit = int(np.sum(~held))
    if n_fit < LEAST_ROWS or not held.any():
        raise SpecError(
            f"{rows.variant} {rows.op} {rows.kv}: {n_fit} rows to fit and {int(held.sum())} to judge; "
            f"at least {LEAST_ROWS} and 1 are needed"
        )
    family = FAMILIES[rows.op]

    def timed(constants: Constants, at: NDArray[np.bool_] | NDArray[np.int64]) -> KernelTime:
        return family.form({name: column[at] for name, column in rows.shape.items()}, constants, rates, widths)

    constants = _fit_constants(family, timed, rows.seconds, np.flatnonzero(~held))
    fitted, judged = timed(constants, ~held), timed(constants, held)
    left = np.log(rows.seconds[~held] / fitted.total_s)
    knots = [_knots_within(grid, _columns(timed(constants, np.arange(len(held))))) for grid in family.grids]
    grids = _fit_correction(knots, _columns(fitted), left)
    features = _columns(judged)
    residual = np.log(rows.seconds[held] / judged.total_s) - sum((grid.at(features) for grid in grids), start=0.0)
    return KernelFamily(
        op=rows.op,
        variant=rows.variant,
        kv=rows.kv,
        software=rows.software,
        n_rows=n_fit,
        n_held_out=int(held.sum()),
        median_error=round(float(np.median(np.abs(np.exp(-residual) - 1.0))), 4),
        interval_log=round(float(np.quantile(np.abs(residual), 0.9)), 4),
        constants={name: float(f"{value:.4g}") for name, value in constants.items()},
        correction=grids,
    )


def _columns(time: KernelTime) -> dict[str, Vector]:
    shape = np.shape(time.total_s)
    return {name: np.broadcast_to(np.asarray(feature, float), shape) for name, feature in time.features.items()}


def _knots_within(
    grid: Mapping[str, tuple[float, ...]], features: Mapping[str, Vector]
) -> dict[str, tuple[float, ...]]:
    """Knots no further out than what was measured; a feature that does not vary has none."""
    found = {}
    for name, knots in grid.items():
        least, most = float(features[name].min()), float(features[name].max())
        inner = [knot for knot in knots if least + _NEAR < knot < most - _NEAR]
        if most > least:
            found[name] = (round(least, 4), *(round(knot, 4) for knot in inner), round(most, 4))
    return found


def _fit_constants(
    family: Family,
    timed: Callable[[Constants, NDArray[np.int64]], KernelTime],
    seconds: Vector,
    rows: NDArray[np.int64],
) -> dict[str, float]:
    from scipy.optimize import least_squares

    some = rows[:: max(len(rows) // _MOST_ROWS_FOR_CONSTANTS, 1)]
    names = list(family.ranges)
    start, low, high = (np.array([family.ranges[name][i] for name in names]) for i in range(3))
    scale = np.where(start > 0, start, 1.0)

    def named(z: Vector) -> dict[str, float]:
        return dict(zip(names, (float(v) for v in z * scale), strict=True))

    def left(z: Vector) -> Vector:
        return np.asarray(np.log(timed(named(z), some).total_s / seconds[some]), float)

    found = least_squares(
        left,
        start / scale,
        bounds=(low / scale, high / scale),
        loss="soft_l1",
        f_scale=_SOFT_LOG,
        diff_step=np.full(len(names), 1e-3),
    )
    return named(found.x)


def _fit_correction(
    grids: Sequence[Mapping[str, tuple[float, ...]]], features: Mapping[str, Vector], left: Vector
) -> tuple[Grid, ...]:
    """Ridge regression of the residuals on all grids at once, reweighted towards least absolute error."""
    from scipy.sparse import block_diag, csr_matrix, diags, eye_array, hstack
    from scipy.sparse.linalg import cg

    grids = [grid for grid in grids if grid]
    axes = [[np.array(knots) for knots in grid.values()] for grid in grids]
    design = csr_matrix(hstack([design_matrix(a, [features[n] for n in g]) for g, a in zip(grids, axes, strict=True)]))
    rough = block_diag([roughness_matrix(a) for a in axes])
    penalty = _ROUGHNESS * (rough.T @ rough) + _RIDGE * eye_array(design.shape[1])
    weights = np.ones(len(left))
    values = np.zeros(design.shape[1])
    for _ in range(_REWEIGHTINGS):
        weighted = diags(weights) @ design
        normal = csr_matrix(weighted.T @ design + penalty)
        diagonal = normal.diagonal()
        values, _ = cg(normal, design.T @ (weights * left), x0=values, rtol=1e-6, maxiter=3000, M=diags(1.0 / diagonal))
        weights = 1.0 / np.maximum(np.abs(design @ values - left), _LEAST_RESIDUAL)
        weights /= weights.mean()
    ends = np.cumsum([0, *(int(np.prod([len(axis) for axis in a])) for a in axes)])
    return tuple(
        Grid(knots=dict(grid), thousandths=tuple(round(1000.0 * float(v)) for v in values[first:last]))
        for grid, first, last in zip(grids, ends[:-1], ends[1:], strict=True)
    )


# columns of `hardware_specs.kernel_rows.kernel_frame` that make the shape of each op
_SHAPES: dict[Op, tuple[str, ...]] = {
    "matmul": ("m", "n", "k"),
    "prefill attention": ("batch", "new", "past", "heads", "kv_heads", "d_head", "window"),
    "decode attention": ("batch", "context", "heads", "kv_heads", "d_head", "window"),
    "collective": ("bytes", "chips"),
    "moe": ("tokens", "d_model", "d_ff", "top_k", "experts", "tp", "ep", "skew", "gated"),
}
_FAMILY_OF: dict[str, Op] = {**{name: name for name in _SHAPES}, **dict.fromkeys(COLLECTIVES, "collective")}
# columns that tell families of one op and number format apart
_KINDS: dict[Op, str | None] = {
    "matmul": None,
    "prefill attention": "kv",
    "decode attention": "kv",
    "collective": "mode",
    "moe": None,
}


def fit_kernels(
    chip: Chip,
    frame: pd.DataFrame,
    *,
    stack: str,
    source: str,
    command: str,
    refused: Mapping[str, int],
    advance: Callable[[str], None] = lambda _: None,
) -> KernelFit:
    """Fit every family that a frame of measured kernels has enough rows of.

    Parameters
    ----------
    frame : of one chip and one software stack, as `hardware_specs.kernel_rows.kernel_frame` makes it
    stack : the software whose kernels these are
    refused : rows left out as impossible, by reason
    advance : called with the name of each family before it is fitted
    """
    families = []
    for rows in family_rows(frame):
        if len(rows.seconds) < 2 * LEAST_ROWS:
            continue
        advance(f"{rows.variant} {rows.op} {rows.kv}".strip())
        families.append(fit_family(rows, chip_rates(chip, computing_format(rows.variant)), widths_of(rows)))
    if not families:
        raise SpecError(f"{chip.name} under {stack}: no family of kernels has {2 * LEAST_ROWS} measured rows")
    return KernelFit(
        chip=chip.name,
        stack=stack,
        source=source,
        command=command,
        form="least squares on ln(predicted / measured), then ridge regression of the rest on a grid of the shape",
        refused=dict(refused),
        families=tuple(families),
    )


def family_rows(frame: pd.DataFrame) -> list[KernelRows]:
    """A frame's rows by family, in a fixed order; ops that have no form are left out.

    A collective takes as long whatever the format of the bytes that it moves, so all formats are one family.
    """
    found = []
    moved = frame["op"].isin(COLLECTIVES)
    named = frame.assign(dtype=frame["dtype"].where(~moved, ""))
    for (op, dtype), part in sorted(named.groupby(["op", "dtype"]), key=lambda item: str(item[0])):
        name = _FAMILY_OF.get(str(op))
        if name is None:
            continue
        kind = _KINDS[name]
        kinds = [("", part)] if kind is None else sorted(part.groupby(kind), key=lambda item: str(item[0]))
        for value, rows in kinds:
            found.append(_family_rows(name, str(op), str(dtype), str(value), rows))
    return found


def _family_rows(name: Op, op: str, dtype: str, kind: str, rows: pd.DataFrame) -> KernelRows:
    shape = {column: rows[column].to_numpy(float) for column in _SHAPES[name] if column in rows}
    if name == "collective":
        shape["passes"] = np.full(len(rows), passes_of(op))
    first = rows.iloc[0]
    return KernelRows(
        op=name,
        variant=op if name == "collective" else dtype,
        kv=kind,
        software=f"{first['framework']} {first['version']}",
        shape=shape,
        seconds=rows["seconds"].to_numpy(float),
    )


def widths_of(rows: KernelRows) -> Widths:
    """Bytes of an element of each operand, by the names of the family's formats."""
    formats = KERNEL_DTYPES.get(rows.variant, KERNEL_DTYPES["bf16"])
    out = max(formats.activations.bytes_per_element, _LEAST_OUT_BYTES)
    kv = KERNEL_DTYPES[rows.kv].weights.bytes_per_element if rows.kv in KERNEL_DTYPES else out
    return Widths(x=formats.activations.bytes_per_element, w=formats.weights.bytes_per_element, kv=kv, out=out)
