"""A row of a table of kernels as a question to a predictor: which kernel of which shape ran, and what of it was measured.

Op and shape stand in the column `model`. Of the other columns these are read: hardware, n_chips, weights_dtype, framework,
framework_version, metric, unit, and of `notes` no more than ``mode=``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from ..hardware_specs.catalogue import get_chip
from ..hardware_specs.errors import SpecError
from ..hardware_specs.kernel_formats import KERNEL_DTYPES
from ..models.ops import attention_flop, matmul_flop
from ..models.reshard import CollectiveKind
from .measured_case import note_of
from .measured_kernels import COLLECTIVE, KERNEL_UNITS, MATMULS, RATE_UNITS, bus_bytes, kernel_dtype
from .metrics import Prediction

Row = Mapping[str, str]

# Bytes of a stream whose length is not told: long enough that its start does not show.
_STREAM_BYTES = 2**32
# Prompts of flash attention's own benchmark: tokens of all of them, and the width that its heads share.
_FLASH_TOKENS, _FLASH_WIDTH = 16384, 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class MatmulKernel:
    """`out[m, n] = x[m, k] @ w[k, n]`, `groups` of them in one kernel."""

    dtype: str
    m: int
    n: int
    k: int
    groups: int = 1

    @property
    def flop(self) -> float:
        """Of all groups."""
        return float(self.groups * matmul_flop(self.m, self.k * self.n))

    @property
    def moved_bytes(self) -> float:
        """Every operand once; results are written in 16 bits."""
        formats = KERNEL_DTYPES[self.dtype]
        x, w = formats.activations.bytes_per_element, formats.weights.bytes_per_element
        return self.groups * (x * self.m * self.k + w * self.k * self.n + max(x, 2.0) * self.m * self.n)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionKernel:
    """Attention of `batch` prompts; by the book of those who measure it, a causal mask leaves half of the work."""

    dtype: str
    batch: int
    tokens: int
    heads: int
    d_head: int
    causal: bool

    @property
    def flop(self) -> float:
        """Scores and mix."""
        pairs = self.batch * self.heads * self.tokens**2
        return float(attention_flop(pairs / 2 if self.causal else pairs, self.d_head))


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveKernel:
    """A collective of a whole buffer of `n_bytes`; of an all_to_all that is what one chip sends. `mode` may be unstated."""

    kind: CollectiveKind
    n_bytes: int
    n_chips: int
    mode: Literal["graph", "eager", ""] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamKernel:
    """A pass over memory, as long as it takes to reach its full rate."""

    n_bytes: int = _STREAM_BYTES


Kernel = MatmulKernel | AttentionKernel | CollectiveKernel | StreamKernel


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCase:
    """What was timed; rows that differ only in what they measured of it make equal cases."""

    hardware: str
    framework: str
    framework_version: str
    kernel: Kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSeconds:
    """The answer to a case: seconds, with both ends of their 90 % interval."""

    expected_s: float
    low_s: float
    high_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTarget:
    """What a row asks for: the time in units of `factor`, or `counted` a second in units of `factor`."""

    counted: float | None
    factor: float

    @property
    def is_rate(self) -> bool:
        """More is better."""
        return self.counted is not None

    def read(self, seconds: KernelSeconds) -> Prediction:
        """The value in the row's unit with its interval."""

        def told(x: float) -> float:
            return (x if self.counted is None else self.counted / x) / self.factor

        low, high = sorted((told(seconds.low_s), told(seconds.high_s)))
        return Prediction(predicted=told(seconds.expected_s), low=low, high=high)


def is_kernel_row(row: Row) -> bool:
    """Whether a row is about a kernel: its `model` begins with an op.

    >>> is_kernel_row({"model": "GEMM m=1 n=2 k=3"}), is_kernel_row({"model": "llama-2-70b"})
    (True, False)
    """
    return _OPS.match(row.get("model", "").strip()) is not None


_OPS = re.compile(r"(?:GEMM|FP8 GEMM|collective:|attention fwd|stream|moe_all2all:|dense MLA|sparse MLA)")


def parse_kernel_case(row: Row) -> KernelCase:
    """Read a row.

    Raises
    ------
    SpecError : why the row cannot be predicted
    """
    kernel = _kernel(row)
    return KernelCase(
        hardware=get_chip(row.get("hardware", "").strip()).name,
        framework=row.get("framework", "").strip(),
        framework_version=row.get("framework_version", "").strip(),
        kernel=kernel,
    )


def parse_kernel_target(row: Row, kernel: Kernel) -> KernelTarget:
    """Read what a row measured of a kernel.

    Raises
    ------
    SpecError : a metric that the kernel does not have, or a unit of something else
    """
    metric, unit = row.get("metric", "").strip(), row.get("unit", "").strip()
    if metric not in _METRICS:
        raise SpecError(f"metric {metric!r} is not predicted")
    counted = _METRICS[metric](kernel)
    units = KERNEL_UNITS if counted is None else {_RATES_OF[metric]: RATE_UNITS[_RATES_OF[metric]]}
    if unit not in units:
        raise SpecError(f"unit {unit!r} does not fit metric {metric!r} of a kernel; known: {', '.join(units)}")
    return KernelTarget(counted=counted, factor=units[unit])


def _flop(kernel: Kernel) -> float:
    if isinstance(kernel, MatmulKernel | AttentionKernel):
        return kernel.flop
    raise SpecError("flop a second were measured of a kernel that computes nothing")


def _moved_bytes(kernel: Kernel) -> float:
    if isinstance(kernel, MatmulKernel):
        return kernel.moved_bytes
    if isinstance(kernel, StreamKernel):
        return float(kernel.n_bytes)
    raise SpecError("a memory bandwidth was measured of a kernel that is told by other rates")


def _bus_bytes(kernel: Kernel) -> float:
    if isinstance(kernel, CollectiveKernel):
        return bus_bytes(kernel.kind, kernel.n_bytes, kernel.n_chips)
    raise SpecError("a bus bandwidth was measured of a kernel that is no collective")


_METRICS: dict[str, Callable[[Kernel], float | None]] = {
    "latency": lambda _: None,
    "throughput": _flop,
    "max_achievable_matmul_flops": _flop,
    "mem_bandwidth": _moved_bytes,
    "busbw": _bus_bytes,
}
_RATES_OF = {
    "throughput": "TFLOP/s", "max_achievable_matmul_flops": "TFLOP/s", "mem_bandwidth": "GB/s", "busbw": "GB/s",
}  # fmt: skip


def _kernel(row: Row) -> Kernel:
    text = row.get("model", "").strip()
    for pattern, read in _KERNELS:
        if found := re.fullmatch(pattern, text):
            return read(row, found)
    raise SpecError(f"{text.partition(':')[0]!r}: the name does not say a shape of a kernel that is predicted")


def _matmul(row: Row, found: re.Match[str]) -> MatmulKernel:
    m, n, k = (int(size) for size in found.groups())
    return MatmulKernel(dtype=kernel_dtype(row), m=m, n=n, k=k)


def _grouped(row: Row, found: re.Match[str]) -> MatmulKernel:
    groups, m, n, k = (int(size) for size in found.groups())
    return MatmulKernel(dtype=kernel_dtype(row), m=m, n=n, k=k, groups=groups)


def _attention(row: Row, found: re.Match[str]) -> AttentionKernel:
    """One of flash attention's own benchmark where the name gives no batch and no heads."""
    tokens, d_head = int(found["tokens"]) * (2**10 if found["kilo"] else 1), int(found["d_head"])
    return AttentionKernel(
        dtype="fp8" if "fp8" in row.get("weights_dtype", "").lower() else "bf16",
        batch=int(found["batch"] or max(_FLASH_TOKENS // tokens, 1)),
        tokens=tokens,
        heads=int(found["heads"] or _FLASH_WIDTH // d_head),
        d_head=d_head,
        causal="causal" in found["mask"] and "non-causal" not in found["mask"],
    )


_KINDS: dict[str, CollectiveKind] = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
}


def _collective(row: Row, found: re.Match[str]) -> CollectiveKernel:
    n_chips = row.get("n_chips", "").strip()
    if not n_chips.isdigit() or int(n_chips) < 2:
        raise SpecError(f"n_chips={n_chips!r} of a collective must be a whole number of at least 2")
    mode = note_of(row, "mode")
    return CollectiveKernel(
        kind=_KINDS[found["kind"]],
        n_bytes=int(found["bytes"]),
        n_chips=int(n_chips),
        mode="graph" if mode == "graph" else "eager" if mode == "eager" else "",
    )


def _stream(_row: Row, _found: re.Match[str]) -> StreamKernel:
    return StreamKernel()


_KERNELS: tuple[tuple[str, Callable[[Row, re.Match[str]], Kernel]], ...] = (
    *((pattern, _matmul) for pattern in MATMULS),
    (r"FP8 GEMM Grouped GEMMs for MoE models \(.*\): #groups,M/group,N,K=(\d+)x(\d+)x(\d+)x(\d+)", _grouped),
    (
        r"attention fwd (?:heads(?P<heads>\d+) )?hdim(?P<d_head>\d+)(?P<mask>.*?) ?seq(?:len)?=(?P<tokens>\d+)(?P<kilo>k?)"
        r"(?: B(?P<batch>\d+))?",
        _attention,
    ),
    (COLLECTIVE, _collective),
    (r"stream .+", _stream),
)
