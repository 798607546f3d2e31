"""Matmul over quantised weights: int8 and int4 widened on the way to the tensor core, int8 and fp8 multiplied as they are.

Weights are symmetric: int8 and fp8 have a scale a column, int4 a scale for each group of rows of a column. Two int4 of
neighbouring rows share a byte, the even row in its low half, each stored plus 8.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ..hardware_specs.errors import SpecError
from ..models.ops import matmul_work
from .bench_case import BenchCase, Device, Runs
from .launch import cdiv, device_target, need_formats, next_power_of_2
from .variant import TARGETS, Config, Target, Variant, configs

_INT8_MAX, _INT4_MAX, _FP8_MAX = 127.0, 7.0, 448.0
# half a group of rows is the depth of one product on a tensor core
_LEAST_GROUP = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedWeight:
    """A weight [K, N] in few bits.

    Parameters
    ----------
    values : [K, N] int8 or float8_e4m3fn, or [K / 2, N] uint8 of two int4 each
    scales : [N] fp32, or [K / group, N] fp32 of int4
    group : rows of a column that share a scale; 0 is all of them
    """

    values: torch.Tensor
    scales: torch.Tensor
    group: int = 0


def quantise_weight(w: torch.Tensor, kind: str, *, group: int = 64) -> QuantisedWeight:
    """Round a weight [K, N] to ``int8``, ``fp8`` or, in groups of rows, ``int4``.

    Raises
    ------
    SpecError : an unknown kind, or rows that do not divide into groups
    """
    wide = w.float()
    if kind == "int8":
        scales = (wide.abs().amax(0) / _INT8_MAX).clamp(min=1e-12)
        return QuantisedWeight(values=(wide / scales).round().to(torch.int8), scales=scales)
    if kind == "fp8":
        scales = (wide.abs().amax(0) / _FP8_MAX).clamp(min=1e-12)
        return QuantisedWeight(values=(wide / scales).to(torch.float8_e4m3fn), scales=scales)
    if kind != "int4":
        raise SpecError(f"no quantised weight {kind!r}; known: int8, int4, fp8")
    if group < _LEAST_GROUP or group & (group - 1):
        raise SpecError(f"a group of {group} rows must be a power of two, at least {_LEAST_GROUP}")
    if len(w) % group:
        raise SpecError(f"{len(w)} rows do not divide into groups of {group}")
    grouped = wide.unflatten(0, (-1, group))
    scales = (grouped.abs().amax(1) / _INT4_MAX).clamp(min=1e-12)
    nibbles = ((grouped / scales[:, None]).round() + 8).to(torch.uint8).flatten(0, 1)
    return QuantisedWeight(values=nibbles[0::2] | (nibbles[1::2] << 4), scales=scales, group=group)


def dequantise_weight(w: QuantisedWeight) -> torch.Tensor:
    """What a quantised weight stands for, [K, N] fp32."""
    if not w.group:
        return w.values.float() * w.scales
    nibbles = torch.stack((w.values & 15, w.values >> 4), 1).flatten(0, 1).float() - 8.0
    return nibbles * w.scales.repeat_interleave(w.group, 0)


@triton.jit
def quantised_matmul_kernel(
    x, w, x_scales, w_scales, out, M, N, K, stride_xm, stride_wk, stride_om, stride_sk,
    WIDENED: tl.constexpr, PACKED: tl.constexpr, GROUP: tl.constexpr, INTEGER: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Out [M, N]; WIDENED weights take x's format first, PACKED ones hold two rows a byte, else both multiply as they are."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = rows < M, columns < N
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.int32 if INTEGER else tl.float32)
    if PACKED:
        # one group at a time: even rows with the low halves, odd rows with the high ones
        halves = tl.arange(0, GROUP // 2)
        for group in range(0, K // GROUP):
            first = group * GROUP + 2 * halves
            x_at = x + rows[:, None] * stride_xm + first[None, :]
            even = tl.load(x_at, mask=in_m[:, None], other=0.0)  # [BLOCK_M, GROUP / 2]
            odd = tl.load(x_at + 1, mask=in_m[:, None], other=0.0)
            w_at = w + (group * (GROUP // 2) + halves)[:, None].to(tl.int64) * stride_wk + columns[None, :]
            pair = tl.load(w_at, mask=in_n[None, :], other=0)  # [GROUP / 2, BLOCK_N]
            low, high = (pair & 15).to(tl.float32) - 8.0, (pair >> 4).to(tl.float32) - 8.0
            part = tl.dot(even, low.to(x.dtype.element_ty), input_precision="ieee")
            part = tl.dot(odd, high.to(x.dtype.element_ty), part, input_precision="ieee")
            scale = tl.load(w_scales + group * stride_sk + columns, mask=in_n, other=0.0)
            sums += part * scale[None, :]
    else:
        depth = tl.arange(0, BLOCK_K)
        x_at = x + rows[:, None] * stride_xm + depth[None, :]
        w_at = w + depth[:, None].to(tl.int64) * stride_wk + columns[None, :]
        for k in range(0, K, BLOCK_K):
            in_k = depth < K - k
            part = tl.load(x_at, mask=in_m[:, None] & in_k[None, :], other=0.0)
            weight = tl.load(w_at, mask=in_k[:, None] & in_n[None, :], other=0.0)
            if WIDENED:
                weight = weight.to(tl.float32).to(part.dtype)
            if INTEGER:
                sums = tl.dot(part, weight, sums, out_dtype=tl.int32)
            else:
                sums = tl.dot(part, weight, sums, input_precision="ieee")
            x_at += BLOCK_K
            w_at += BLOCK_K * stride_wk
    result = sums.to(tl.float32)
    if not PACKED:
        result *= tl.load(w_scales + columns, mask=in_n, other=0.0)[None, :]
    if not (WIDENED or PACKED):
        result *= tl.load(x_scales + rows, mask=in_m, other=0.0)[:, None]
    inside = in_m[:, None] & in_n[None, :]
    tl.store(out + rows[:, None] * stride_om + columns[None, :], result.to(out.dtype.element_ty), mask=inside)


def quantised_matmul(
    x: torch.Tensor,
    w: QuantisedWeight,
    *,
    x_scales: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    config: Config | None = None,
) -> torch.Tensor:
    """`x @ dequantised w`, [M, N].

    Parameters
    ----------
    x : [M, K] in a float format over int8 or int4 weights, or in the weights' own format (int8, fp8) with `x_scales` [M]

    Raises
    ------
    SpecError : shapes or formats that do not fit, fp8 on a device without it
    """
    target = device_target(x)
    _check(x, w, x_scales)
    (m, k), n = x.shape, w.values.shape[1]
    known = configs("quantised_matmul", target)
    config = config or (known[1] if next_power_of_2(m) <= known[1].blocks["BLOCK_M"] else known[0])
    blocks = config.blocks
    out = torch.empty((m, n), dtype=out_dtype or (x.dtype if x_scales is None else torch.bfloat16), device=x.device)
    quantised_matmul_kernel[(cdiv(m, blocks["BLOCK_M"]), cdiv(n, blocks["BLOCK_N"]))](
        x.contiguous(), w.values.contiguous(), x_scales, w.scales.contiguous(), out, m, n, k, k, n, n, n,
        WIDENED=x_scales is None and not w.group, PACKED=bool(w.group), GROUP=w.group or 2,
        INTEGER=x.dtype == torch.int8, **blocks, num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip
    return out


def _check(x: torch.Tensor, w: QuantisedWeight, x_scales: torch.Tensor | None) -> None:
    rows = w.values.shape[0] * (2 if w.group else 1)
    if x.dim() != 2 or x.shape[1] != rows:
        raise SpecError(f"x {tuple(x.shape)} does not multiply a weight of {rows} rows")
    own = x.dtype in (torch.int8, torch.float8_e4m3fn)
    if own != (x_scales is not None) or (own and x.dtype != w.values.dtype):
        raise SpecError(
            f"x of {x.dtype} over {w.values.dtype}: int8 and fp8 need x_scales and weights alike, floats neither"
        )
    need_formats(x.device, x.dtype, w.values.dtype)


def quantised_matmul_reference(
    x: torch.Tensor, w: QuantisedWeight, *, x_scales: torch.Tensor | None = None
) -> torch.Tensor:
    """The same in torch, in double precision."""
    wide = x.double() if x_scales is None else x.double() * x_scales.double()[:, None]
    return wide @ dequantise_weight(w).double()


def rereads(m: int, n: int, config: Config) -> dict[str, float]:
    """How often each operand is loaded, as in an ordinary matmul; scales with the weights."""
    down, across = cdiv(m, config.blocks["BLOCK_M"]), cdiv(n, config.blocks["BLOCK_N"])
    return {"x": across, "w": down, "w_scales": down, "x_scales": across}


def variants() -> Iterator[Variant]:
    """Every kind of weight, for prompts and for decode."""
    for target in TARGETS:
        for config in configs("quantised_matmul", target):
            yield _variant(target, config, "w8a16", "*bf16", "*i8", WIDENED=True)
            yield _variant(target, config, "w4a16", "*bf16", "*u8", PACKED=True)
            yield _variant(target, config, "w8a8", "*i8", "*i8", INTEGER=True)
            if target == "sm_90":
                yield _variant(target, config, "fp8", "*fp8e4nv", "*fp8e4nv")


def _variant(target: Target, config: Config, name: str, x: str, w: str, **on: bool) -> Variant:
    flags = {"WIDENED": False, "PACKED": False, "INTEGER": False, "GROUP": 64 if "PACKED" in on else 2} | on
    size = "x".join(str(config.blocks[f"BLOCK_{dim}"]) for dim in "MNK")
    return Variant(
        op="quantised_matmul",
        name=f"{name} {size}",
        target=target,
        kernel=quantised_matmul_kernel,
        types={"x": x, "w": w, "x_scales": "*fp32", "w_scales": "*fp32", "out": "*bf16"},
        constants=flags | config.blocks,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        tensor_core=True,
        wgmma=config.blocks["BLOCK_M"] >= 64,
    )


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """Decode and prompt rows over every kind of weight, beside torch's own: bf16, int8 by int8, fp8; on a CPU fp32."""
    gpu, cpu = ((32, 8192, 8192), (4096, 8192, 8192)), ((1, 512, 512), (16, 512, 512))
    for kind in ("int8", "int4", "w8a8", "fp8"):
        for m, k, n in gpu if device == "cuda" else cpu:
            yield _bench_case(device, kind, m, k, n)


def _bench_case(device: Device, kind: str, m: int, k: int, n: int) -> BenchCase:
    dtype, floats, size = ("bf16", torch.bfloat16, 2) if device == "cuda" else ("fp32", torch.float32, 4)
    narrow = kind in ("w8a8", "fp8")

    def prepare(device: Device, generator: torch.Generator) -> Runs:
        x, w = (torch.randn(shape, generator=generator, device=device) for shape in ((m, k), (k, n)))
        held = quantise_weight(w, "int8" if kind == "w8a8" else kind)
        x_scales = x.abs().amax(1) / 100.0 if narrow else None
        mine = x.to(floats) if x_scales is None else (x / x_scales[:, None]).round().to(held.values.dtype)
        if narrow and device == "cuda":
            theirs = _torch_narrow(mine, held, x_scales)
        else:
            x, w = x.to(floats), w.to(floats)
            theirs = lambda: x @ w  # noqa: E731
        return Runs(kernel=lambda: quantised_matmul(mine, held, x_scales=x_scales), torch=theirs)

    w_bytes = 0.5 if kind == "int4" else 1.0
    work = matmul_work(m, k, n, x_bytes=1 if narrow else size, w_bytes=w_bytes, out_bytes=size)
    shape = {"m": m, "k": k, "n": n}
    return BenchCase(op=f"quantised_matmul {kind}", shape=shape, dtype=dtype, work=work, prepare=prepare)


def _torch_narrow(x: torch.Tensor, w: QuantisedWeight, x_scales: torch.Tensor) -> Callable[[], object]:
    """Torch's product of int8, or of fp8 with the scales of rows and columns; both want columns side by side."""
    values = w.values.T.contiguous().T
    if x.dtype == torch.int8:
        return lambda: torch._int_mm(x, values)
    return lambda: torch._scaled_mm(x, values, x_scales[:, None], w.scales[None, :], out_dtype=torch.bfloat16)
