"""Fit the kernel families of one chip to measured kernels.

Two steps, on two rows of three (a row's shape decides which): the constants of the physical form by least squares on
ln(predicted / measured), then the corrections of what is left (see `kernel_correction`). The third row of three judges.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...hardware_specs.chip import Chip
from ...hardware_specs.cpu_host import VENDOR as HOST
from ...hardware_specs.errors import SpecError
from ...hardware_specs.kernel_formats import COLLECTIVES, KERNEL_DTYPES
from .kernel_correction import Pairs, fit_corrections, knots_within
from .kernel_families import FAMILIES, HOST_FAMILIES, Family
from .kernel_forms import ChipRates, Constants, KernelTime, Op, Widths, passes_of
from .kernel_times import KernelFamily, KernelFit, chip_rates, computing_format

Vector = NDArray[np.float64]

# Rows that a family needs before anything is fitted to it, and those the constants are fitted on at most.
LEAST_ROWS = 30
_MOST_ROWS_FOR_CONSTANTS = 4000
# Residuals beyond this count less in the constants: a few shapes take another code path.
_SOFT_LOG = 0.05
# A matmul that takes longer to start was launched from the host one by one. Where `sanity` has refused the quickest of such a
# table the others say nothing of small matmuls, and the family is left to another stack.
_MOST_LAUNCH_S = 5e-5
# Attention that was measured of wider heads only is a kernel that the stack keeps for those.
_USUAL_D_HEAD = 128.0
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


def fit_family(
    rows: KernelRows, rates: ChipRates, widths: Widths, family: Family, *, on_host: bool = False
) -> KernelFamily:
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

    fit = {name: column[~held] for name, column in rows.shape.items()}
    judge = {name: column[held] for name, column in rows.shape.items()}

    def form(constants: Constants, shape: Mapping[str, Vector]) -> KernelTime:
        return family.form(shape, constants, rates, widths)

    constants = _fit_constants(family, form, fit, rows.seconds[~held])
    timed = partial(form, constants)
    measured = _columns(timed(rows.shape))
    knots = [knots_within(grid, measured) for grid in family.grids]
    fitted, judged = timed(fit), timed(judge)
    left = np.log(rows.seconds[~held] / fitted.total_s)
    grids = fit_corrections(knots, _columns(fitted), left, _doubled(family, timed, rows.shape))
    features = _columns(judged)
    residual = np.log(rows.seconds[held] / judged.total_s) - sum((grid.at(features) for grid in grids), start=0.0)
    return KernelFamily(
        op=rows.op,
        variant=rows.variant,
        kv=rows.kv,
        on_host=on_host,
        software=rows.software,
        n_rows=n_fit,
        n_held_out=int(held.sum()),
        median_error=round(float(np.median(np.abs(np.exp(-residual) - 1.0))), 4),
        interval_log=round(float(np.quantile(np.abs(residual), 0.9)), 4),
        constants=constants,
        correction=grids,
    )


def _columns(time: KernelTime) -> dict[str, Vector]:
    shape = np.shape(time.total_s)
    return {name: np.broadcast_to(np.asarray(feature, float), shape) for name, feature in time.features.items()}


def _doubled(family: Family, timed: Callable[[Mapping[str, Vector]], KernelTime], shape: Mapping[str, Vector]) -> Pairs:
    """Shapes, and others of the same sizes mixed, beside the same with each growing size doubled."""
    places = np.random.default_rng(0)
    mixed = {name: places.permutation(column) if name in family.grows else column for name, column in shape.items()}
    shape = {name: np.concatenate([column, mixed[name]]) for name, column in shape.items()}
    larger = [{**shape, name: 2.0 * shape[name]} for name in family.grows]
    first = timed(shape)
    times = [timed(each) for each in larger]
    small, large = _columns(first), [_columns(each) for each in times]
    return Pairs(
        small={name: np.tile(column, len(larger)) for name, column in small.items()},
        large={name: np.concatenate([each[name] for each in large]) for name in small},
        growth_log=np.concatenate([np.log(each.total_s / first.total_s) for each in times]),
    )


def _fit_constants(
    family: Family,
    form: Callable[[Constants, Mapping[str, Vector]], KernelTime],
    shape: Mapping[str, Vector],
    seconds: Vector,
) -> dict[str, float]:
    from scipy.optimize import least_squares

    every = max(len(seconds) // _MOST_ROWS_FOR_CONSTANTS, 1)
    some = {name: column[::every] for name, column in shape.items()}
    names = list(family.ranges)
    start, low, high = (np.array([family.ranges[name][i] for name in names]) for i in range(3))
    scale = np.where(start > 0, start, 1.0)

    def named(z: Vector) -> dict[str, float]:
        return dict(zip(names, (float(f"{v:.4g}") for v in z * scale), strict=True))

    def left(z: Vector) -> Vector:
        exact = dict(zip(names, (float(v) for v in z * scale), strict=True))
        return np.asarray(np.log(form(exact, some).total_s / seconds[::every]), float)

    found = least_squares(
        left,
        start / scale,
        bounds=(low / scale, high / scale),
        loss="soft_l1",
        f_scale=_SOFT_LOG,
        diff_step=np.full(len(names), 1e-3),
    )
    return named(found.x)


# columns of `hardware_specs.kernel_rows.kernel_frame` that make the shape of each op
_SHAPES: dict[Op, tuple[str, ...]] = {
    "matmul": ("m", "n", "k", "copies"),
    "prefill attention": ("batch", "new", "past", "heads", "kv_heads", "d_head", "window"),
    "decode attention": ("batch", "context", "heads", "kv_heads", "d_head", "window"),
    "collective": ("bytes", "chips"),
    "moe": ("tokens", "d_model", "d_ff", "top_k", "experts", "tp", "ep", "skew", "gated"),
    "pointwise": ("bytes", "rows"),
}
_FAMILY_OF: dict[str, Op] = {**{name: name for name in _SHAPES}, **dict.fromkeys(COLLECTIVES, "collective")}
# columns that tell families of one op and number format apart
_KINDS: dict[Op, str | None] = {
    "matmul": None,
    "prefill attention": "kv",
    "decode attention": "kv",
    "collective": "mode",
    "moe": None,
    "pointwise": "mode",
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
        on_host = chip.vendor == HOST
        family = (HOST_FAMILIES if on_host else FAMILIES)[rows.op]
        if "d_head" in rows.shape and not (rows.shape["d_head"] <= _USUAL_D_HEAD).any():
            continue
        rates = chip_rates(chip, computing_format(rows.variant))
        made = fit_family(rows, rates, widths_of(rows), family, on_host=on_host)
        if rows.op != "matmul" or made.constants["launch_s"] <= _MOST_LAUNCH_S:
            families.append(made)
    if not families:
        raise SpecError(f"{chip.name} under {stack}: no family of kernels has {2 * LEAST_ROWS} measured rows")
    return KernelFit(
        chip=chip.name,
        stack=stack,
        source=source,
        command=command,
        form="least squares on ln(predicted / measured), then ridge regression of the rest on grids of the shape",
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
    shape = {
        column: rows[column].to_numpy(float)
        for column in _SHAPES[name]
        if column in rows and rows[column].notna().all()
    }
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
