"""Rows rounded to int8 or fp8 (e4m3) with a scale each, and back.

int8 rounds half away from zero, fp8 to the nearest even; what is too large saturates.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..hardware_specs.errors import SpecError
from ..models.ops import elementwise_work
from .bench_case import BenchCase, Device, Runs
from .launch import device_target, need_formats, next_power_of_2
from .variant import TARGETS, Config, Variant, configs

_LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
_LEAST_SCALE = 1e-12


@triton.jit
def quantise_kernel(
    x, out, scales, n, IS_STATIC: tl.constexpr, INTEGER: tl.constexpr, LARGEST: tl.constexpr, BLOCK: tl.constexpr
):
    """Row r of x [n_rows, n] to out and scales [n_rows]; static scales are read instead."""
    row = tl.program_id(0).to(tl.int64)
    lanes, at = tl.arange(0, BLOCK), row * n
    if IS_STATIC:
        scale = tl.load(scales + row)
    else:
        largest = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, n, BLOCK):
            value = tl.load(x + at + start + lanes, mask=start + lanes < n, other=0.0).to(tl.float32)
            largest = tl.maximum(largest, tl.abs(value))
        scale = tl.maximum(tl.max(largest, 0) / LARGEST, 1e-12)
        tl.store(scales + row, scale)
    for start in range(0, n, BLOCK):
        here = start + lanes < n
        value = tl.load(x + at + start + lanes, mask=here, other=0.0).to(tl.float32) / scale
        value = tl.minimum(tl.maximum(value, -LARGEST), LARGEST)
        if INTEGER:
            value = tl.where(value >= 0, tl.floor(value + 0.5), tl.ceil(value - 0.5))
        tl.store(out + at + start + lanes, value.to(out.dtype.element_ty), mask=here)


def quantise(
    x: torch.Tensor, dtype: torch.dtype, *, scales: torch.Tensor | None = None, config: Config | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of x [..., n] in `dtype`, and their scales [...] fp32: given, or the largest of each row over the format's.

    Raises
    ------
    SpecError : a format that is not quantised to, fp8 where the device has none, scales that do not fit
    """
    if dtype not in _LARGEST:
        raise SpecError(f"nothing is quantised to {dtype}; known: int8, float8_e4m3fn")
    need_formats(x.device, dtype)
    if scales is not None and scales.shape != x.shape[:-1]:
        raise SpecError(f"scales {tuple(scales.shape)} must be one a row of x {tuple(x.shape)}")
    config = config or configs("quantise", device_target(x))[0]
    n, made = x.shape[-1], torch.empty(x.shape, dtype=dtype, device=x.device)
    found = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device) if scales is None else scales.contiguous()
    quantise_kernel[(x.numel() // n,)](
        x.contiguous(), made, found, n, IS_STATIC=scales is not None, INTEGER=dtype == torch.int8,
        LARGEST=_LARGEST[dtype], BLOCK=min(config.blocks["BLOCK"], next_power_of_2(n)), num_warps=config.num_warps,
    )  # fmt: skip
    return made, found


def dequantise(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """What quantised rows stand for, fp32."""
    return values.float() * scales[..., None]


def quantise_reference(
    x: torch.Tensor, dtype: torch.dtype, *, scales: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in torch."""
    largest = _LARGEST[dtype]
    found = (x.float().abs().amax(-1) / largest).clamp(min=_LEAST_SCALE) if scales is None else scales
    value = (x.float() / found[..., None]).clamp(-largest, largest)
    if dtype == torch.int8:
        value = torch.where(value >= 0, (value + 0.5).floor(), (value - 0.5).ceil())
    return value.to(dtype), found


def rereads() -> dict[str, float]:
    """Once for the largest, once to round; static scales need the second alone."""
    return {"x": 2}


def variants() -> Iterator[Variant]:
    """int8 on both targets, fp8 where the hardware converts to it."""
    for target in TARGETS:
        (config,) = configs("quantise", target)
        for name, pointer in (("int8", "*i8"), ("fp8", "*fp8e4nv")):
            if name == "fp8" and target == "sm_80":
                continue
            for static in (False, True):
                yield Variant(
                    op="quantise",
                    name=f"bf16 to {name}{' static' * static}",
                    target=target,
                    kernel=quantise_kernel,
                    types={"x": "*bf16", "out": pointer, "scales": "*fp32"},
                    constants={
                        "IS_STATIC": static,
                        "INTEGER": name == "int8",
                        "LARGEST": 127.0 if name == "int8" else 448.0,
                    }
                    | config.blocks,
                    num_warps=config.num_warps,
                )


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """Activations of a prompt and of a decode batch, to both formats."""
    dtype, floats, size = ("bf16", torch.bfloat16, 2) if device == "cuda" else ("fp32", torch.float32, 4)
    for op, narrow in (("quantise", torch.int8), ("quantise fp8", torch.float8_e4m3fn)):
        for rows, n in ((8192, 8192), (64, 8192)) if device == "cuda" else ((16, 512), (128, 1536)):

            def prepare(
                device: Device, generator: torch.Generator, rows: int = rows, n: int = n, to: torch.dtype = narrow
            ) -> Runs:
                x = torch.randn((rows, n), generator=generator, device=device).to(floats)
                return Runs(kernel=lambda: quantise(x, to), torch=lambda: quantise_reference(x, to))

            work = elementwise_work({"x": (rows * n, size)}, {"out": (rows * n, 1), "scales": (rows, 4)})
            yield BenchCase(op=op, shape={"rows": rows, "n": n}, dtype=dtype, work=work, prepare=prepare)
