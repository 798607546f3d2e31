"""Published tables of measured kernels as measured rows: op and shape stand in the column `model`.

Rows without a latency count where a rate and a whole shape give one: a matmul's flop/s, a collective's bus bandwidth.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..hardware_specs.catalogue import get_chip
from ..hardware_specs.errors import SpecError, UnknownNameError
from ..hardware_specs.measurement import Measurement
from ..models.ops import matmul_flop
from .measured_csv import read_measured

Row = Mapping[str, str]

KERNEL_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
RATE_UNITS = {"TFLOP/s": 1e12, "GB/s": 1e9}
_DTYPES = {
    "bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "fp8": "fp8", "fp8-block": "fp8-block", "int8w/bf16a": "int8-wo",
    "int4w/bf16a": "int4-wo",
}  # fmt: skip
_FRAMEWORKS = {"tensorrt-llm": "trtllm", "trtllm custom allreduce": "trtllm", "vllm custom allreduce": "vllm"}

# How tables name a matmul's rows, columns and inner size in this order, and a collective's kind and bytes.
MATMULS = (
    r"GEMM m=(\d+) n=(\d+) k=(\d+)",
    r"GEMM best shape (\d+)x(\d+)x(\d+) \(MxNxK\)",
    r"FP8 GEMM Normal GEMMs for dense models: M,N,K=(\d+)x(\d+)x(\d+)",
)
COLLECTIVE = (
    r"collective:(?P<kind>all_reduce|all_gather|reduce_scatter|alltoall)(?:\((?:ring|NVLS)\))? bytes=(?P<bytes>\d+)"
)

# Bus bandwidth with fewer digits than this is rounded too much to be turned into a time.
_LEAST_DIGITS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredKernels:
    """Rows that were read, and how many were not, by reason."""

    rows: tuple[Measurement, ...]
    left_out: Counter[str]


def read_measured_kernels(path: Path) -> MeasuredKernels:
    """Read a table of kernels.

    Raises
    ------
    SpecError : no such file, or no table of measured cases
    """
    table = read_measured(path)
    timed = {_key(row) for row in table.rows if row["metric"] == "latency"}
    rows, left_out = [], Counter[str]()
    for row in table.rows:
        try:
            if row["metric"] != "latency" and _key(row) in timed:
                raise SpecError("says again in another unit what a latency says")
            rows.append(_measurement(row, path))
        except UnknownNameError:
            left_out["chip or format not known here"] += 1
        except SpecError as reason:
            left_out[str(reason)] += 1
    return MeasuredKernels(rows=tuple(rows), left_out=left_out)


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row.get(name, "") for name in ("source", "model", "hardware", "n_chips", "framework", "notes"))


def _measurement(row: Row, path: Path) -> Measurement:
    for pattern, read in _OPS:
        if found := re.fullmatch(pattern, row["model"]):
            quantity, shape, seconds = read(row, found)
            break
    else:
        raise SpecError("op or shape not stated in full")
    return Measurement(
        chip=get_chip(row["hardware"]).name, quantity=f"{quantity} by {_framework(row)}", unit="s", shape=shape,
        p20=seconds, p50=seconds, p80=seconds, n_repeats=1, device=row["hardware"],
        software=f"{_framework(row)} {row.get('framework_version') or 'not stated'}, kernel {_kernel(row)}",
        command=f"{row.get('source', '')}: {row.get('url_or_repo_path', '')}",
        commit=row.get("commit_version") or "not stated", date=f"row {row.get('id', '')} of {path.name}",
    )  # fmt: skip


def _matmul(row: Row, found: re.Match[str]) -> tuple[str, str, float]:
    m, n, k = (int(size) for size in found.groups())
    return f"{kernel_dtype(row)} matmul", f"m={m} n={n} k={k}", _seconds(row, float(matmul_flop(m, k * n)), "TFLOP/s")


def _collective(row: Row, found: re.Match[str]) -> tuple[str, str, float]:
    """The whole buffer, as `bytes` of these tables is; bus bandwidth is what passes a port, by the book of nccl-tests."""
    kind = found["kind"].replace("alltoall", "all_to_all")
    n_bytes, chips = int(found["bytes"]), int(row.get("n_chips") or 0)
    if chips < 2:
        raise SpecError("number of chips not stated")
    seconds = _seconds(row, bus_bytes(kind, n_bytes, chips), "GB/s")
    dtype = f"{kernel_dtype(row)} " if row.get("weights_dtype") else ""
    return f"{dtype}{kind}", f"bytes={n_bytes} chips={chips} mode={_mode(row)}", seconds


def bus_bytes(kind: str, n_bytes: float, chips: float) -> float:
    """Bytes that bus bandwidth counts, by the book of nccl-tests: what passes the port of each chip.

    >>> bus_bytes("all_reduce", 1000, 4), bus_bytes("all_gather", 1000, 4)
    (1500.0, 750.0)
    """
    return n_bytes * (chips - 1) / chips * (2 if kind == "all_reduce" else 1)


Reader = Callable[[Row, re.Match[str]], tuple[str, str, float]]

_OPS: tuple[tuple[str, Reader], ...] = (*((pattern, _matmul) for pattern in MATMULS), (COLLECTIVE, _collective))


def _seconds(row: Row, work: float, rate_unit: str) -> float:
    """The latency, or what the rate says of the work."""
    try:
        value = float(row["value"])
    except ValueError:
        raise SpecError("value is no number") from None
    if not 0.0 < value < float("inf"):
        raise SpecError("value is no positive number")
    if row["unit"] in KERNEL_UNITS and row["metric"] == "latency":
        return value * KERNEL_UNITS[row["unit"]]
    if row["unit"] != rate_unit:
        raise SpecError("no latency and no rate that gives one")
    if len(row["value"].replace(".", "").lstrip("0")) < _LEAST_DIGITS:
        raise SpecError("rate rounded too much")
    return work / (value * RATE_UNITS[rate_unit])


def kernel_dtype(row: Row) -> str:
    """The format of a kernel's operands by its name in `hardware_specs.kernel_formats`; DeepGEMM scales blocks of 8 bits."""
    text = row.get("weights_dtype", "").lower()
    if text not in _DTYPES:
        raise UnknownNameError("format of kernels", text, _DTYPES)
    return "fp8-block" if row.get("framework") == "DeepGEMM" and _DTYPES[text] == "fp8" else _DTYPES[text]


def _framework(row: Row) -> str:
    text = row.get("framework", "").lower()
    return _FRAMEWORKS.get(text, text.replace(" ", "-") or "unknown")


def _kernel(row: Row) -> str:
    """The kernel that the notes name, else what the model's brackets do (ring, NVLS)."""
    named = re.search(r"kernel=(\w+)", row.get("notes", "")) or re.search(r"\((ring|NVLS)\)", row["model"])
    return named[1] if named else "not stated"


def _mode(row: Row) -> str:
    if _framework(row) == "nccl":
        return "nccl"
    return "eager" if _kernel(row).endswith("_eager") else "graph"
