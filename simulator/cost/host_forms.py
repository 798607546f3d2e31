"""The physical form of the kernels that a host's own cores run, of which a core does one after the other.

A core has no thread blocks: nothing is cut into tiles that wait for each other, and what is done first is not hidden behind
what is done next. So traffic and arithmetic of a kernel add up, and both are told as compute.
"""

from collections.abc import Mapping

import numpy as np

from ...models.ops import attention_flop, matmul_flop
from ...models.types import Array
from .kernel_forms import ChipRates, Constants, KernelTime, Shape, Widths, log2

# Rows of a matrix that lie whole pages apart fall into the same few lines of a core's cache.
_PAGE_BYTES = 4096.0
# Bytes of one score of attention.
_SCORE_BYTES = 4.0


def _one_after_the_other(
    flop: Array, moved_bytes: Array, constants: Constants, rates: ChipRates, features: Mapping[str, Array]
) -> KernelTime:
    """Traffic, then arithmetic, each at the share of the core's rate that is reached."""
    moving_s = moved_bytes / (rates.bytes_per_s * constants["memory_efficiency"])
    return KernelTime(
        compute_s=flop / (rates.flop_per_s * constants["compute_efficiency"]) + moving_s,
        memory_s=0.0,
        comm_s=0.0,
        fixed_s=constants["launch_s"],
        features=features,
    )


def host_matmul_form(shape: Shape, constants: Constants, rates: ChipRates, widths: Widths) -> KernelTime:
    """`out[m, n] = x[m, k] @ w[k, n]`: operands are packed into the order they are multiplied in, then multiplied.

    Several `copies` of w meet the same x in one kernel.
    """
    m, k, n, copies = shape["m"], shape["k"], shape["n"], shape.get("copies", 1.0)
    moved = copies * (widths.x * m * k + widths.w * k * n + widths.out * m * n)
    features = {
        "rows": log2(m),
        "columns": log2(n),
        "inner": log2(k),
        "aliased": np.equal(np.mod(widths.w * n, _PAGE_BYTES), 0.0) * 1.0,
    }
    return _one_after_the_other(matmul_flop(m, copies * k * n), moved, constants, rates, features)


def _attention(
    shape: Shape,
    new: Array,
    keys: Array,
    constants: Constants,
    rates: ChipRates,
    widths: Widths,
    features: Mapping[str, Array],
) -> KernelTime:
    """Every query against every key, masked or not; the scores are passed over `score_passes` times."""
    pairs = shape["batch"] * shape["heads"] * new * keys
    cached = 2.0 * shape["batch"] * keys * shape["kv_heads"] * shape["d_head"] * widths.kv
    queries = (widths.x + widths.out) * shape["batch"] * new * shape["heads"] * shape["d_head"]
    moved = cached + queries + constants["score_passes"] * _SCORE_BYTES * pairs
    shared: dict[str, Array] = {
        "sharing": np.log2(shape["heads"] / shape["kv_heads"]),
        "d_head": np.log2(shape["d_head"]),
    }
    return _one_after_the_other(attention_flop(pairs, shape["d_head"]), moved, constants, rates, {**features, **shared})


def host_prefill_attention_form(shape: Shape, constants: Constants, rates: ChipRates, widths: Widths) -> KernelTime:
    """Attention of prompts."""
    new = shape["new"]
    features = {"heads": log2(shape["batch"] * shape["heads"]), "queries": log2(new)}
    return _attention(shape, new, new + shape["past"], constants, rates, widths, features)


def host_decode_attention_form(shape: Shape, constants: Constants, rates: ChipRates, widths: Widths) -> KernelTime:
    """One query a sequence over its cache."""
    keys = shape["context"]
    features = {"heads": log2(shape["batch"] * shape["kv_heads"]), "keys": log2(keys)}
    return _attention(shape, 1.0, keys, constants, rates, widths, features)


def host_pointwise_form(shape: Shape, constants: Constants, rates: ChipRates, widths: Widths) -> KernelTime:
    """Passes over the operands of a norm, an activation, a sum, a lookup.

    Few rows take as long as it takes to start, and longer in a wide model: its weights, read between two such steps, leave
    nothing of the step's own code and data in the cache. So the width of a row is told beside their number.
    """
    n_bytes, rows = shape["bytes"], shape["rows"]
    features = {"width": log2(n_bytes / rows), "rows": log2(rows)}
    return KernelTime(
        compute_s=0.0,
        memory_s=n_bytes / (rates.bytes_per_s * constants["memory_efficiency"]),
        comm_s=0.0,
        fixed_s=constants["launch_s"],
        features=features,
    )
