"""What kernel rows are called, and the same rows as a table of columns.

A quantity is ``{dtype} {op} by {framework}``, a shape is ``key=value`` words. `kernel_frame` and `measurements_of` are each
other's inverse.

=====================  =========================================================================================
op                     shape
=====================  =========================================================================================
matmul                 m n k; copies, where several weights [k, n] meet the same x in one kernel
prefill attention      batch new past heads kv_heads d_head window kv
decode attention       batch context heads kv_heads d_head window kv; `context` counts the token that is decoded
all_reduce ...         bytes chips mode: the whole buffer, gathered or to be reduced; of all_to_all what one chip sends
moe                    tokens d_model d_ff top_k experts tp ep skew gated: all tokens, experts and widths, not one chip's
mla prefill            batch new past heads kv
mla decode             batch context heads kv
mla ... module         the same and gemm: with the projections around it, in that format
moe all_to_all         tokens d_model top_k experts chips nodes sms phase via: tokens of one chip
=====================  =========================================================================================

`window` 0 is none; `skew` is the exponent of the power law that experts are chosen by, 0 if they get as many rows each.
"""

from collections.abc import Iterable

import pandas as pd

from .kernel_formats import KERNEL_DTYPES, TEXT_KEYS
from .measurement import Measurement

_ABOUT = ("chip", "op", "dtype", "framework", "version", "kernel", "device", "seconds")

# The bench of kernels names sizes as its kernels do; (its op) -> (op, its keys as they are called here).
_BENCHED = {
    "decode_attention": (
        "decode attention",
        {"b": "batch", "s": "context", "h": "heads", "k": "kv_heads", "d": "d_head"},
    ),
    "prefill_attention": (
        "prefill attention",
        {"b": "batch", "l": "new", "h": "heads", "k": "kv_heads", "d": "d_head"},
    ),
}
_BENCHED_WITHOUT = {"decode attention": {"window": "0"}, "prefill attention": {"past": "0", "window": "0"}}


def shape_keys(frame: pd.DataFrame) -> list[str]:
    """Columns that are words of the shape, in their order."""
    return [str(column) for column in frame.columns if column not in _ABOUT]


def kernel_frame(rows: Iterable[Measurement]) -> pd.DataFrame:
    """Timed rows as columns: a float one for each key of a shape (text for `TEXT_KEYS`), and `seconds`, the median.

    Rows in other units than seconds are no timed kernels and left out.

    Examples
    --------
    >>> row = dict(chip="h100-sxm", quantity="bf16 matmul by vllm", unit="s", shape="m=1 n=32 k=64", device="NVIDIA H100")
    >>> row |= dict(p20=1e-6, p50=2e-6, p80=3e-6, n_repeats=3, software="vllm 0.24.0, kernel cublas", command="")
    >>> frame = kernel_frame([Measurement(**row, commit="", date="2026-01-01")])
    >>> frame.loc[0, ["op", "dtype", "framework", "version", "kernel"]].tolist()
    ['matmul', 'bf16', 'vllm', '0.24.0', 'cublas']
    >>> frame[["m", "n", "k", "seconds"]].to_numpy().tolist()
    [[1.0, 32.0, 64.0, 2e-06]]
    """
    timed = [row for row in rows if row.unit == "s"]
    named = {row.quantity: _named(row.quantity) for row in timed}
    shapes, records = {row.shape: dict(word.split("=", 1) for word in row.shape.split()) for row in timed}, []
    for row in timed:
        op, dtype, framework = named[row.quantity]
        shape = shapes[row.shape]
        if op in _BENCHED:
            op, keys = _BENCHED[op]
            shape = {keys[key]: value for key, value in shape.items()} | _BENCHED_WITHOUT[op] | {"kv": dtype}
        software, _, kernel = row.software.partition(", kernel ")
        records.append(
            (row.chip, op, dtype, framework, software.removeprefix(f"{framework} "), kernel, row.device, row.p50, shape)
        )
    frame = pd.DataFrame([record[:-1] for record in records], columns=list(_ABOUT))
    words = pd.DataFrame([record[-1] for record in records], index=frame.index)
    for key in words.columns:
        frame[key] = words[key].fillna("") if key in TEXT_KEYS else pd.to_numeric(words[key]).astype(float)
    return frame


def _named(quantity: str) -> tuple[str, str, str]:
    """The op, the number format ("" where none is named) and whose kernel it is."""
    what, _, framework = quantity.partition(" by ")
    dtype, _, op = what.partition(" ")
    return (op, dtype, framework) if dtype in KERNEL_DTYPES else (what, "", framework)


def measurements_of(frame: pd.DataFrame, *, command: str, commit: str, date: str) -> tuple[Measurement, ...]:
    """Columns as rows of one measured value each; the inverse of `kernel_frame`.

    The rows are not validated one by one, which takes most of the time: `seconds` must be positive.
    """
    if not bool((frame["seconds"] > 0.0).all()):
        raise AssertionError("a measured time that is not positive")
    quantity = (frame["dtype"] + " ").where(frame["dtype"] != "", "") + frame["op"] + " by " + frame["framework"]
    software = frame["framework"] + " " + frame["version"] + ", kernel " + frame["kernel"]
    columns = (frame["chip"], quantity, _shapes(frame), frame["seconds"].astype(float), frame["device"], software)
    return tuple(
        Measurement.model_construct(
            chip=chip, quantity=what, unit="s", shape=shape, p20=seconds, p50=seconds, p80=seconds, n_repeats=1,
            device=device, software=made, command=command, commit=commit, date=date,
        )
        for chip, what, shape, seconds, device, made in zip(*(column.tolist() for column in columns), strict=True)
    )  # fmt: skip


def _shapes(frame: pd.DataFrame) -> "pd.Series[str]":
    """The words of every row; a key that a row lacks is left out."""
    words = []
    for key in shape_keys(frame):
        column = frame[key]
        texts = {value: f"{key}={_text(value)}" for value in column.dropna().unique() if value != ""}
        words.append(column.map(texts).fillna("").tolist())
    shapes = [" ".join(filter(None, row)) for row in zip(*words, strict=True)]
    return pd.Series(shapes, index=frame.index, dtype=str)


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
