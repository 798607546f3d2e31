"""The kernel families: the form of each, the ranges of its constants, and the knots that its corrections have."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from .host_forms import (
    host_decode_attention_form,
    host_matmul_form,
    host_pointwise_form,
    host_prefill_attention_form,
)
from .kernel_forms import (
    Form,
    Op,
    collective_form,
    decode_attention_form,
    matmul_form,
    moe_form,
    pointwise_form,
    prefill_attention_form,
)

Knots = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How a family is fitted.

    Parameters
    ----------
    ranges : of each constant: start, least, most
    grids : the corrections, which add up: knots of some features each
    grows : sizes of the shape of which more never takes less time
    """

    form: Form
    ranges: Mapping[str, tuple[float, float, float]]
    grids: tuple[Knots, ...]
    grows: tuple[str, ...]


def _steps(first: float, last: float, step: float = 1.0) -> tuple[float, ...]:
    return tuple(float(x) for x in np.arange(first, last + step / 2.0, step))


_ROOFLINE = {
    "compute_efficiency": (0.7, 0.02, 1.0),
    "memory_efficiency": (0.8, 0.2, 1.0),
    "launch_s": (5e-6, 5e-7, 3e-4),
}

# Rows at which libraries of matmuls take another kernel: on both sides there is a knot, as time may jump between.
_KERNEL_ROWS = (64, 128, 256, 512, 1024)
_JUMPS = tuple(float(np.log2(rows + more)) for rows in _KERNEL_ROWS for more in (0, 1))
_MATMUL: tuple[Knots, ...] = (
    {
        "rows": tuple(sorted((0.0, *_steps(3, 5), *_JUMPS, 6.6, 7.5, *_steps(11, 15)))),
        "columns": (*_steps(5, 14), 16.0),
        "inner": (*_steps(5, 14), 16.0),
    },
    {"waves": _steps(-7, 9), "tail": _steps(0, 1, 0.125)},
    {"padding": (0.0, 0.02, 0.25, 0.5, 1.0), "rows": _steps(8, 15), "columns": (5.0, 8.0, 10.0, 12.0, 14.0, 16.0)},
)

_SHARING = (0.0, 1.0, 2.0, 3.0, 5.0, 6.0)
_D_HEAD = (6.0, 7.0, 7.585, 8.0, 9.0)
_QUERIES, _FEW_QUERIES = (0.0, *_steps(4, 14)), (0.0, *_steps(4, 14, 2))
_PREFILL: tuple[Knots, ...] = (
    {"heads": _steps(0, 14), "queries": _QUERIES, "sharing": _SHARING},
    {"queries": _QUERIES, "sharing": _SHARING, "d_head": _D_HEAD, "windowed": (0.0, 1.0)},
    {"heads": _steps(0, 14, 2), "queries": _FEW_QUERIES, "d_head": _D_HEAD, "windowed": (0.0, 1.0)},
    {"masked": _steps(0, 7), "d_head": _D_HEAD, "sharing": (0.0, 2.0, 3.0, 6.0)},
    {"kv_heads": _steps(0, 6), "queries": _QUERIES},
)

_KEYS, _FEW_KEYS = (1.0, 4.0, *_steps(5, 17)), (1.0, 4.0, *_steps(6, 17, 2))
_DECODE: tuple[Knots, ...] = (
    {"heads": _steps(0, 14), "keys": _KEYS, "sharing": _SHARING},
    {"heads": _steps(0, 14, 2), "keys": _FEW_KEYS, "d_head": _D_HEAD},
    {"sharing": _SHARING, "keys": _FEW_KEYS, "d_head": _D_HEAD},
    {"bytes": _steps(8, 40, 0.5), "d_head": _D_HEAD, "sharing": _SHARING},
    {"windowed": (0.0, 1.0), "masked": _steps(0, 10, 2), "d_head": _D_HEAD},
)

# Rows of an expert, down to a fraction where most experts have none.
_ROWS, _FEW_ROWS = (-8.0, -6.0, *_steps(-4, 12)), (-8.0, -4.0, -2.0, *_steps(0, 12, 2))
_SKEW = (0.0, 1.01, 1.2)
_MOE: tuple[Knots, ...] = (
    {"rows": _ROWS, "experts": _steps(0, 10, 2), "skew": _SKEW},
    # libraries tune their kernels by the experts and widths of one chip
    {
        "experts": _steps(0, 10),
        "d_ff": _steps(4, 14),
        "rows": (-8.0, -2.0, *_steps(0, 12, 2)),
        "d_model": _steps(10, 13),
    },
    {"alignment": _steps(3, 8), "rows": _FEW_ROWS, "gated": (0.0, 1.0)},
    {"rows": _FEW_ROWS, "ep": _steps(0, 8), "skew": _SKEW},
    {"tokens": _steps(0, 14), "top_k": _steps(0, 5), "skew": _SKEW},
)

FAMILIES: dict[Op, Family] = {
    "matmul": Family(
        form=matmul_form,
        ranges={**_ROOFLINE, "split_s": (1e-6, 0.0, 2e-5)},
        grids=_MATMUL,
        grows=("m", "n", "k"),
    ),
    "prefill attention": Family(
        form=prefill_attention_form,
        ranges={**_ROOFLINE, "diagonal_share": (0.5, 0.0, 4.0)},
        grids=_PREFILL,
        grows=("batch", "new"),
    ),
    "decode attention": Family(form=decode_attention_form, ranges=_ROOFLINE, grids=_DECODE, grows=("batch", "context")),
    "collective": Family(
        form=collective_form,
        ranges={"link_efficiency": (0.8, 0.05, 1.0), "launch_s": (5e-6, 5e-7, 3e-4), "hop_s": (1e-6, 0.0, 2e-5)},
        grids=({"bytes": _steps(7, 30), "chips": (1.0, 2.0, 3.0)},),
        grows=("bytes",),
    ),
    "moe": Family(form=moe_form, ranges={**_ROOFLINE, "row_tile": (16.0, 0.0, 128.0)}, grids=_MOE, grows=("tokens",)),
    "pointwise": Family(
        form=pointwise_form,
        ranges={"memory_efficiency": (0.3, 0.01, 1.0), "launch_s": (2e-5, 5e-7, 1e-3)},
        grids=({"bytes": _steps(8, 34, 2), "rows": _steps(0, 16, 2)},),
        grows=("bytes",),
    ),
}

# On a host's cores few rows are all there is, matmuls of the smallest numbers of rows are kernels of their own, and little
# is measured. What runs there is a program's own steps: starting one takes longer, and it passes over its data more often.
_HOST_ROOFLINE = {
    "compute_efficiency": (0.7, 0.02, 1.0),
    "memory_efficiency": (0.5, 0.01, 1.0),
    "launch_s": (2e-5, 5e-7, 1e-3),
}
_HOST_ROWS = tuple(round(float(np.log2(rows)), 4) for rows in (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 48, 96, 256))
_HOST_ATTENTION = {**_HOST_ROOFLINE, "score_passes": (4.0, 0.0, 100.0)}
HOST_FAMILIES: dict[Op, Family] = FAMILIES | {
    "matmul": replace(
        FAMILIES["matmul"],
        form=host_matmul_form,
        ranges=_HOST_ROOFLINE,
        grids=(
            {"rows": _HOST_ROWS, "columns": _steps(7, 15), "inner": _steps(7, 15)},
            {"aliased": (0.0, 1.0), "rows": (*_steps(0, 4), 8.0)},
        ),
    ),
    "prefill attention": replace(
        FAMILIES["prefill attention"],
        form=host_prefill_attention_form,
        ranges=_HOST_ATTENTION,
        grids=({"heads": _steps(0, 10, 2), "queries": _steps(3, 10)}, {"sharing": _SHARING, "d_head": (5.0, 6.0, 7.0)}),
    ),
    "decode attention": replace(
        FAMILIES["decode attention"],
        form=host_decode_attention_form,
        ranges=_HOST_ATTENTION,
        grids=({"heads": _steps(0, 10), "keys": _steps(3, 12)}, {"sharing": _SHARING, "d_head": (5.0, 6.0, 7.0)}),
    ),
    "pointwise": replace(
        FAMILIES["pointwise"],
        form=host_pointwise_form,
        grids=({"width": _steps(6, 18), "rows": _steps(0, 10, 2)},),
    ),
    "collective": replace(
        FAMILIES["collective"],
        ranges={"link_efficiency": (0.2, 0.005, 1.0), "launch_s": (3e-4, 5e-7, 5e-3), "hop_s": (1e-6, 0.0, 2e-5)},
    ),
}
