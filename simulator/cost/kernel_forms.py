"""The physical form of each kernel family: what its shape alone says of its time on a chip.

A form gives compute, memory and fixed seconds of a kernel and the features its correction is tabulated over. The constants
it takes are few, each with a name and a unit; what they leave over is the correction.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np

from ...models.ops import attention_flop, matmul_flop, touched_experts, visible_keys
from ...models.sizes import ceil_div
from ...models.types import Array

Op = Literal["matmul", "prefill attention", "decode attention", "collective", "moe", "pointwise"]
Shape = Mapping[str, Array]
Constants = Mapping[str, float]

# Tiles a matmul is cut into and parts its sum may be split into, as libraries of kernels have them; the quickest is taken.
MATMUL_TILES = ((128, 128), (64, 64))
SPLITS = (1, 4)
# Rows and columns of the tile by which waves and padding are told as features.
_TILE = 128
_PADDED_ROWS = 256
# Queries of one thread block of flash attention.
_QUERY_TILE = 128
# Kernels load this many elements at once, or half, a quarter ... where a width is no multiple of it.
_ALIGNED = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipRates:
    """What a chip claims, as forms need it.

    Parameters
    ----------
    flop_per_s : (...) dense peak of the kernel's format
    bytes_per_s : (...) HBM bandwidth
    link_bytes_per_s : (...) of one chip inside its domain, one direction
    n_units : streaming multiprocessors
    """

    flop_per_s: Array
    bytes_per_s: Array
    link_bytes_per_s: Array
    n_units: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """Bytes of one element of what a kernel reads and writes."""

    x: float = 2.0
    w: float = 2.0
    kv: float = 2.0
    out: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTime:
    """Seconds by what they are spent on, each (...), and the features of the correction."""

    compute_s: Array
    memory_s: Array
    comm_s: Array
    fixed_s: Array
    features: Mapping[str, Array]

    @property
    def total_s(self) -> Array:
        """Compute and memory traffic overlap; the rest does not."""
        return np.maximum(self.compute_s, self.memory_s) + self.comm_s + self.fixed_s


Form = Callable[[Shape, Constants, ChipRates, Widths], KernelTime]


def log2(x: Array) -> Array:
    """Logarithm of a count, of at least one thing."""
    return np.log2(np.maximum(x, 1.0))


def _on_one_chip(
    compute_s: Array, moved_bytes: Array, constants: Constants, rates: ChipRates, features: Mapping[str, Array]
) -> KernelTime:
    """A kernel that sends nothing: compute and traffic, each at the share of the chip's rate that is reached."""
    return KernelTime(
        compute_s=compute_s / constants["compute_efficiency"],
        memory_s=moved_bytes / (rates.bytes_per_s * constants["memory_efficiency"]),
        comm_s=0.0,
        fixed_s=constants["launch_s"],
        features=features,
    )


def matmul_form(shape: Shape, constants: Constants, rates: ChipRates, widths: Widths) -> KernelTime:
    """`out[m, n] = x[m, k] @ w[k, n]`: whole tiles in whole waves over the multiprocessors, the sum split where that is quicker.

    A split sum is written and added up once more, at `split_s`.
    """
    m, k, n = shape["m"], shape["k"], shape["n"]
    ways: list[Array] = []
    for rows, columns in MATMUL_TILES:
        n_tiles = ceil_div(m, rows) * ceil_div(n, columns)
        tile_s = matmul_flop(rows, k * columns) / (rates.flop_per_s / rates.n_units)
        for parts in SPLITS:
            waves = ceil_div(n_tiles * parts, rates.n_units)
            ways.append(waves * tile_s / parts + (constants["split_s"] if parts > 1 else 0.0))
    waves = ceil_div(m, _TILE) * ceil_div(n, _TILE) / rates.n_units
    moved = widths.x * m * k + widths.w * k * n + widths.out * m * n
    features = {
        "rows": log2(m),
        "columns": log2(n),
        "inner": log2(k),
        "waves": np.log2(waves),
        "tail": waves / np.ceil(waves),
        "padding": np.log2(ceil_div(m, _PADDED_ROWS) * _PADDED_ROWS / np.maximum(m, _PADDED_ROWS)),
    }
    return _on_one_chip(reduce(np.minimum, ways), moved, constants, rates, features)


def _attention_bytes(shape: Shape, queries: Array, keys: Array, widths: Widths) -> Array:
    cached = 2.0 * shape["batch"] * keys * shape["kv_heads"] * shape["d_head"] * widths.kv
    return cached + (widths.x + widths.out) * shape["batch"] * queries * shape["heads"] * shape["d_head"]


def _reach(shape: Shape, keys: Array) -> Array:
    """Keys a query can see: all, or those of its window (0 is none)."""
    window = shape["window"]
    return np.where(np.greater(window, 0), np.minimum(keys, window), keys)


def _attention_features(shape: Shape) -> dict[str, Array]:
    return {
        "sharing": np.log2(shape["heads"] / shape["kv_heads"]),
        "d_head": np.log2(shape["d_head"]),
        "windowed": np.greater(shape["window"], 0) * 1.0,
    }


def prefill_attention_form(shape: Shape, constants: Constants, rates: ChipRates, widths: Widths) -> KernelTime:
    """Causal attention of prompts: blocks of queries in waves over the multiprocessors.

    A causal block computes up to `diagonal_share` of a tile of keys more than it needs.
    """
    new, past = shape["new"], shape["past"]
    keys = visible_keys(new, past, shape["window"])
    blocks = shape["batch"] * shape["heads"] * ceil_div(new, _QUERY_TILE)
    seen = keys + constants["diagonal_share"] * _QUERY_TILE
    block_s = attention_flop(_QUERY_TILE * seen, shape["d_head"]) / (rates.flop_per_s / rates.n_units)
    compute = np.maximum(blocks / rates.n_units, 1.0) * block_s
    moved = _attention_bytes(shape, new, new + past, widths)
    features = {
        **_attention_features(shape),
        "heads": log2(shape["batch"] * shape["heads"]),
        "queries": log2(new),
        "kv_heads": log2(shape["kv_heads"]),
        "masked": log2((new + past) / _reach(shape, new + past)),
    }
    return _on_one_chip(compute, moved, constants, rates, features)


def decode_attention_form(shape: Shape, constants: Constants, rates: ChipRates, widths: Widths) -> KernelTime:
    """One query a sequence over its cache: the cache is read once, its heads' queries share it."""
    keys = _reach(shape, shape["context"])
    pairs = shape["batch"] * shape["heads"] * keys
    compute = attention_flop(pairs, shape["d_head"]) / rates.flop_per_s
    moved = _attention_bytes(shape, 1.0, keys, widths)
    features = {
        **_attention_features(shape),
        "heads": log2(shape["batch"] * shape["kv_heads"]),
        "keys": log2(keys),
        "bytes": log2(moved),
        "masked": log2(shape["context"] / keys),
    }
    return _on_one_chip(compute, moved, constants, rates, features)


def passes_of(kind: str) -> float:
    """How often a collective moves its buffer: an all_reduce is a reduce_scatter and an all_gather."""
    return 2.0 if kind == "all_reduce" else 1.0


def collective_form(shape: Shape, constants: Constants, rates: ChipRates, widths: Widths) -> KernelTime:
    """Bytes of the whole buffer, of which each chip sends (K - 1)/K, over its links."""
    n_bytes, k = shape["bytes"], shape["chips"]
    sent = shape["passes"] * n_bytes * (k - 1.0) / k
    return KernelTime(
        compute_s=0.0,
        memory_s=0.0,
        comm_s=sent / (rates.link_bytes_per_s * constants["link_efficiency"]),
        fixed_s=constants["launch_s"] + constants["hop_s"] * (k - 1.0),
        features={"bytes": log2(n_bytes), "chips": log2(k)},
    )


def moe_form(shape: Shape, constants: Constants, rates: ChipRates, widths: Widths) -> KernelTime:
    """The experts of one chip: weights of those that are touched, rows padded to whole tiles of `row_tile`."""
    d_ff, experts = shape["d_ff"] / shape["tp"], shape["experts"] / shape["ep"]
    touched = touched_experts(experts, shape["tokens"], shape["top_k"] / shape["experts"])
    rows = shape["tokens"] * shape["top_k"] / shape["ep"]
    weights = (2.0 + shape["gated"]) * shape["d_model"] * d_ff
    padded = rows + touched * constants["row_tile"]
    moved = touched * weights * widths.w + rows * shape["d_model"] * (widths.x + widths.out)
    features = {
        "tokens": log2(shape["tokens"]),
        "rows": np.log2(rows / experts),
        "experts": log2(experts),
        "d_ff": log2(d_ff),
        "d_model": log2(shape["d_model"]),
        "top_k": log2(shape["top_k"]),
        "ep": log2(shape["ep"]),
        "alignment": np.log2(np.gcd(np.asarray(d_ff, np.int64), _ALIGNED)),
        "gated": shape["gated"],
        "skew": shape["skew"],
    }
    return _on_one_chip(matmul_flop(padded, weights) / rates.flop_per_s, moved, constants, rates, features)


def pointwise_form(shape: Shape, constants: Constants, rates: ChipRates, widths: Widths) -> KernelTime:
    """A norm, an activation, a sum, a lookup: passes over its operands."""
    return KernelTime(
        compute_s=0.0,
        memory_s=shape["bytes"] / (rates.bytes_per_s * constants["memory_efficiency"]),
        comm_s=0.0,
        fixed_s=constants["launch_s"],
        features={"bytes": log2(shape["bytes"]), "rows": log2(shape["rows"])},
    )
