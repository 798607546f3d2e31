"""Measured kernels that cannot be: refused by a named reason, and counted.

A row is refused if its chip would have had to pass its own dense peak, its memory's rate or its links' rate, or if what was
timed is the launch from the host and not the kernel.
"""

from collections import Counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...hardware_specs.chip import Chip, Torus
from ...hardware_specs.kernel_formats import KERNEL_DTYPES, TEXT_KEYS
from ...hardware_specs.kernel_rows import shape_keys
from ...models.types import Array
from .kernel_work import Shape, Vector, kernel_work, shape_of, wire_bytes

Mask = NDArray[np.bool_]

NOT_POSITIVE = "time or size is no positive number"
ABOVE_PEAK = "above the dense peak"
ABOVE_MEMORY = "above the memory rate"
ABOVE_LINKS = "above the rate of the links"
UNTRUSTED = "in a table that passes the memory rate"
LAUNCH_FLOOR = "launch floor"
DUPLICATE = "duplicated key (the median is kept)"

# Clocks are sampled and figures rounded: a row this much above a claimed rate stands.
_MARGIN = 1.02
# Cache of a chip whose own is not known: none of today's has more. A benchmark that repeats a kernel on the same operands
# finds so much of them there.
_MOST_CACHE_BYTES = 256e6
# Sizes that may be 0.
_MAY_BE_ZERO = ("past", "window", "skew", "gated", "sms")
# A row is bound by memory if that takes this share of its time at least. If so many of a table's rows that are pass the rate,
# what was timed is not what the shapes say, and no row of the table is any better.
_BOUND_SHARE = 0.5
_MOST_ABOVE = 0.1

# A captured graph starts a kernel in under this time; a table of matmuls whose quickest takes longer was launched eagerly,
# if rows within `_FLOOR_WIDTH` of it differ by more than `_FLOOR_WORK` in what they should take.
_GRAPH_LAUNCH_S = 20e-6
_FLOOR_WIDTH = 1.05
_FLOOR_WORK = 10.0
# Rows of such a table that the chip could do in this share of the quickest time show how long launches take; what is no
# longer than this quantile of them is a launch.
_FREE_SHARE = 0.1
_FLOOR_QUANTILE = 0.95


def sane(chip: Chip, frame: pd.DataFrame) -> tuple[pd.DataFrame, Counter[str]]:
    """Rows that may be true, duplicates merged to their median; and how many were refused, by reason.

    Parameters
    ----------
    frame : of one chip, as `hardware_specs.kernel_rows.kernel_frame` makes it

    Notes
    -----
    Work is a lower bound and caches are given their whole size, so a row that passes may still be wrong.
    """
    refused: Counter[str] = Counter()
    kept = []
    for op, rows in frame.reset_index(drop=True).groupby("op", sort=False):
        rows = rows.dropna(axis="columns", how="all")
        why = refusals(chip, str(op), rows)
        refused.update(why[why != ""].tolist())
        merged = _merged(rows[why == ""])
        refused[DUPLICATE] += int((why == "").sum()) - len(merged)
        kept.append(merged)
    return (pd.concat(kept, ignore_index=True) if kept else frame), +refused


def refusals(chip: Chip, op: str, rows: pd.DataFrame) -> "pd.Series[str]":
    """Why each row of one op is refused, "" where it is not."""
    numbers = [key for key in shape_keys(rows) if key not in TEXT_KEYS]
    positive = np.isfinite(rows["seconds"]) & (rows["seconds"] > 0.0)
    for key in numbers:
        # a size that no row of a software names is none of its kernels'
        lacking = rows[key].isna().groupby(rows["framework"]).transform("all")
        good = np.isfinite(rows[key]) & ((rows[key] > 0.0) | ((rows[key] == 0.0) & (key in _MAY_BE_ZERO)))
        positive &= good | lacking
    why = pd.Series(NOT_POSITIVE, index=rows.index)
    tables = ["dtype", "framework", "kernel", *(["kv"] if "kv" in rows else [])]
    found = [
        _impossible(chip, op, str(named[0]), str(named[3]) if len(named) > 3 else "", part)
        for named, part in rows[positive].groupby(tables, sort=False, dropna=False)
    ]
    whole: pd.Series[str] = pd.concat([why[~positive], *found]).reindex(rows.index)
    return whole


def _impossible(chip: Chip, op: str, dtype: str, kv: str, rows: pd.DataFrame) -> "pd.Series[str]":
    """Why each row of one table, all of the same formats, is refused: the first reason there is, else ""."""
    shape, seconds = shape_of(rows), rows["seconds"].to_numpy(float)
    compute_s, memory_s = (
        np.broadcast_to(s, seconds.shape)
        for s in _least_seconds(chip, op, dtype, kv, shape, cache_bytes=_cache_bytes(chip))
    )
    above_memory, bound = memory_s > _MARGIN * seconds, memory_s > _BOUND_SHARE * seconds
    untrusted = np.full(seconds.shape, above_memory.sum() > _MOST_ABOVE * bound.sum())
    reasons = {
        ABOVE_PEAK: compute_s > _MARGIN * seconds,
        ABOVE_MEMORY: above_memory,
        ABOVE_LINKS: _least_wire_s(chip, op, dtype, shape) > _MARGIN * seconds,
        UNTRUSTED: untrusted,
    }
    if op == "matmul":
        cold_s = _least_seconds(chip, op, dtype, kv, shape, cache_bytes=0.0)
        reasons[LAUNCH_FLOOR] = _launches(seconds, np.maximum(*cold_s))
    return pd.Series(np.select(list(reasons.values()), list(reasons), default=""), index=rows.index, dtype=str)


def _cache_bytes(chip: Chip) -> float:
    return chip.l2_bytes.value if chip.l2_bytes is not None else _MOST_CACHE_BYTES


def _least_seconds(
    chip: Chip, op: str, dtype: str, kv: str, shape: Shape, *, cache_bytes: float
) -> tuple[Array, Array]:
    """Seconds of the flop at the peak, and at the memory's rate of the bytes that no cache of that size holds.

    Attention may run in the format of what it reads from memory, whatever its queries come in.
    """
    work = kernel_work(op, dtype, kv, shape)
    peaks = [chip.peak_flop_per_s(KERNEL_DTYPES[name].activations) for name in (dtype, kv) if name in KERNEL_DTYPES]
    uncached = np.maximum(np.asarray(work.moved_bytes) - cache_bytes, 0.0)
    return np.asarray(work.flop) / max(peaks, default=np.inf), uncached / chip.hbm_bytes_per_s.value


def _least_wire_s(chip: Chip, op: str, dtype: str, shape: Shape) -> Array:
    """Seconds on the links of one chip, in a group of several nodes with its network port beside them."""
    links = chip.scale_up
    inside = 2.0 * links.n_dims * links.link_bytes_per_s.value if isinstance(links, Torus) else links.bytes_per_s.value
    across = chip.scale_out_bytes_per_s.value if chip.scale_out_bytes_per_s is not None else np.inf
    domain = links.max_chips if isinstance(links, Torus) else links.domain_chips
    rate = inside + np.where(shape["chips"] > domain, across, 0.0) if "chips" in shape else inside
    return wire_bytes(op, dtype, shape, reduces_in_network=links.kind == "switch") / rate


def _launches(seconds: Vector, least_s: Vector) -> Mask:
    """Which matmuls of a table took as long as launching them from the host: one that was timed without a captured graph.

    Parameters
    ----------
    least_s : what each would take at the peak and the memory's rate
    """
    quickest = float(seconds.min())
    floor = least_s[seconds <= _FLOOR_WIDTH * quickest]
    if quickest < _GRAPH_LAUNCH_S or floor.max() <= _FLOOR_WORK * floor.min():
        return np.zeros(len(seconds), bool)
    free = seconds[least_s < _FREE_SHARE * quickest]
    slowest = float(np.quantile(free, _FLOOR_QUANTILE)) if len(free) else 0.0
    return seconds <= max(slowest, _FLOOR_WIDTH * quickest)


def _merged(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one key made one, with the median of their times."""
    key = [str(column) for column in rows.columns if column not in ("seconds", "device")]
    again = rows.duplicated(key, keep=False)
    if not bool(again.any()):
        return rows
    median = rows[again].groupby(key, sort=False, dropna=False)["seconds"].transform("median")
    return rows.assign(seconds=rows["seconds"].where(~again, median)).drop_duplicates(key)
