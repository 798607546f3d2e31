"""What a measured kernel must at least do: flop, bytes and bytes on the wire of every row of a `kernel_frame`, each (n,).

Lower bounds: every operand is read once, attention stays on the chip, an expert that may be untouched is.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...hardware_specs.kernel_formats import COLLECTIVES, KERNEL_DTYPES
from ...models.ops import OpWork, attention_flop, attention_work, grouped_matmul_work, matmul_work, visible_keys

Vector = NDArray[np.float64]
Shape = Mapping[str, Vector]

# Matrices of an expert with and without a gate.
_GATED, _PLAIN = 3.0, 2.0
# Widths of a head of latent attention as DeepSeek-V2 and after have it, the model of all measured rows: the latent, what is
# rotated beside it, and a head's own part once it is expanded (key without rotation, value).
_LATENT, _ROTATED, _EXPANDED = 512.0, 64.0, 128.0
# Bytes of a result: kernels return 16 bits whatever they multiply in.
_OUT_BYTES = 2.0


def visible_pairs(new: Vector, past: Vector, window: Vector) -> Vector:
    """(Query, key) pairs of one head of one sequence under a causal mask and a window (0 is none).

    >>> [float(visible_pairs(*np.array(case, float))) for case in ((4, 0, 0), (4, 10, 0), (4, 0, 2), (1, 99, 8))]
    [10.0, 50.0, 7.0, 8.0]
    """
    return np.asarray(new * visible_keys(new, past, window), float)


def kernel_work(op: str, dtype: str, kv: str, shape: Shape) -> OpWork:
    """Work of rows of one op and its formats; none where the op is not known here."""
    x_bytes, w_bytes = _bytes(dtype)
    kv_bytes = KERNEL_DTYPES[kv].weights.bytes_per_element if kv in KERNEL_DTYPES else x_bytes
    known: dict[str, Callable[[], OpWork]] = {
        "matmul": lambda: matmul_work(
            shape["m"], shape["k"], shape["n"], x_bytes=x_bytes, w_bytes=w_bytes, out_bytes=_OUT_BYTES
        ),
        "prefill attention": lambda: _attention(shape, shape["new"], shape["past"], x_bytes, kv_bytes),
        "decode attention": lambda: _attention(
            shape, np.ones_like(shape["context"]), shape["context"] - 1.0, x_bytes, kv_bytes
        ),
        "moe": lambda: _experts(shape, x_bytes, w_bytes),
        "mla prefill": lambda: _latent_prefill(shape, kv_bytes),
        "mla decode": lambda: _latent_decode(shape, kv_bytes),
    }
    known |= {"mla prefill module": known["mla prefill"], "mla decode module": known["mla decode"]}
    return known[op]() if op in known else OpWork(reads={}, writes={})


def _bytes(dtype: str) -> tuple[float, float]:
    formats = KERNEL_DTYPES.get(dtype)
    if formats is None:
        return 1.0, 1.0
    return formats.activations.bytes_per_element, formats.weights.bytes_per_element


def _attention(shape: Shape, new: Vector, past: Vector, q_bytes: float, kv_bytes: float) -> OpWork:
    window = np.where(shape["window"] > 0.0, shape["window"], np.inf)
    work = attention_work(
        n_sequences=shape["batch"], new_tokens=new, past_tokens=np.minimum(past, window - 1.0), n_heads=shape["heads"],
        n_kv_heads=shape["kv_heads"], d_head=shape["d_head"], q_bytes=q_bytes, kv_bytes=kv_bytes, out_bytes=_OUT_BYTES,
    )  # fmt: skip
    pairs = shape["batch"] * shape["heads"] * visible_pairs(new, past, shape["window"])
    return replace(work, flop=attention_flop(pairs, shape["d_head"]))


def _experts(shape: Shape, x_bytes: float, w_bytes: float) -> OpWork:
    """The experts of one chip at their average share of the tokens, the most loaded chip has no less.

    Chosen alike, as many experts are touched as there are rows for; chosen by a power law it may be the fewest possible.
    """
    rows = shape["tokens"] * shape["top_k"] / shape["ep"]
    local = shape["experts"] / shape["ep"]
    fewest = np.where(shape["skew"] > 0.0, np.maximum(shape["top_k"] / shape["ep"], 1.0), rows)
    n_weights = np.where(shape["gated"] > 0.0, _GATED, _PLAIN) * shape["d_ff"] / shape["tp"]
    return grouped_matmul_work(
        rows, np.minimum(local, fewest), shape["d_model"], n_weights, x_bytes=0.0, w_bytes=w_bytes, out_bytes=0.0
    )


def _latent_prefill(shape: Shape, kv_bytes: float) -> OpWork:
    """Heads expanded from the latent: keys have the rotated part too."""
    queries = shape["batch"] * shape["heads"] * shape["new"]
    pairs = shape["batch"] * shape["heads"] * visible_pairs(shape["new"], shape["past"], np.zeros_like(shape["new"]))
    cached = shape["batch"] * (shape["new"] + shape["past"]) * (_LATENT + _ROTATED)
    return OpWork(
        flop=attention_flop(pairs, (_EXPANDED + _ROTATED + _EXPANDED) / 2.0),
        reads={"q": queries * (_EXPANDED + _ROTATED) * _OUT_BYTES, "latent": cached * kv_bytes},
        writes={"out": queries * _EXPANDED * _OUT_BYTES},
    )


def _latent_decode(shape: Shape, kv_bytes: float) -> OpWork:
    """Every head over the latent itself, which is read once."""
    queries = shape["batch"] * shape["heads"]
    return OpWork(
        flop=attention_flop(queries * shape["context"], (_LATENT + _ROTATED + _LATENT) / 2.0),
        reads={
            "q": queries * (_LATENT + _ROTATED) * _OUT_BYTES,
            "latent": shape["batch"] * shape["context"] * (_LATENT + _ROTATED) * kv_bytes,
        },
        writes={"out": queries * _LATENT * _OUT_BYTES},
    )


def wire_bytes(op: str, dtype: str, shape: Shape, *, reduces_in_network: bool) -> Vector:
    """Bytes that must leave each chip, or come into it; 0 for ops that stay on a chip.

    An all_reduce sends everything twice, once where the switch adds up. Of an exchange between experts that is a token, as
    one of its experts at least is elsewhere.
    """
    if op in COLLECTIVES:
        passes = 2.0 if op == "all_reduce" and not reduces_in_network else 1.0
        return passes * shape["bytes"] * (shape["chips"] - 1.0) / shape["chips"]
    if op == "moe all_to_all" and "tokens" in shape:
        elsewhere = (shape["chips"] - 1.0) / shape["chips"]
        return np.asarray(shape["tokens"] * shape["d_model"] * elsewhere * _bytes(dtype)[0], float)
    return np.zeros(len(next(iter(shape.values()))))


def shape_of(frame: pd.DataFrame) -> Shape:
    """Columns of numbers that every row of a frame has."""
    return {
        str(name): column.to_numpy(float)
        for name, column in frame.items()
        if column.dtype == float and name != "seconds" and not column.isna().any()
    }
