"""RMS norm and layer norm of rows, with the residual added on the way in, whole or for a part of d_model.

One program a row: one pass gathers the statistics, a second one scales. Where d_model is cut over chips, the first pass
is a kernel of its own, and what it finds is added up between the chips.
"""

from collections.abc import Iterator
from typing import Literal

import torch
import triton
import triton.language as tl

from ..hardware_specs.errors import SpecError
from ..models.ops import elementwise_work
from .bench_case import BenchCase, Device, Runs
from .launch import device_target, next_power_of_2
from .variant import TARGETS, Config, Variant, configs

Kind = Literal["rmsnorm", "layernorm"]
EPS = 1e-5


@triton.jit
def norm_kernel(
    x, residual, weight, known, out, summed, n_columns, n_whole, eps,
    LAYERNORM: tl.constexpr, HAS_SHIFT: tl.constexpr, HAS_RESIDUAL: tl.constexpr, IS_KNOWN: tl.constexpr,
    STATISTICS_ONLY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Row r of x [n_rows, n_columns], scaled by weight [1 or 2, n_columns]; `known` is [n_rows, 1 or 2] fp32."""
    row = tl.program_id(0).to(tl.int64)
    at, lanes = row * n_columns, tl.arange(0, BLOCK)
    squares, sums = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    n_known = 2 if LAYERNORM else 1
    if IS_KNOWN:
        square = tl.load(known + row * n_known)
        total = tl.load(known + row * n_known + 1) if LAYERNORM else 0.0
    else:
        for start in range(0, n_columns, BLOCK):
            columns = start + lanes
            here = columns < n_columns
            value = tl.load(x + at + columns, mask=here, other=0.0).to(tl.float32)
            if HAS_RESIDUAL:
                value += tl.load(residual + at + columns, mask=here, other=0.0).to(tl.float32)
                tl.store(summed + at + columns, value.to(summed.dtype.element_ty), mask=here)
            squares += value * value
            sums += value
        square, total = tl.sum(squares, 0), tl.sum(sums, 0)
    if STATISTICS_ONLY:
        tl.store(out + row * n_known, square)
        if LAYERNORM:
            tl.store(out + row * n_known + 1, total)
    else:
        mean = total / n_whole if LAYERNORM else 0.0
        factor = tl.rsqrt(square / n_whole - mean * mean + eps)
        for start in range(0, n_columns, BLOCK):
            columns = start + lanes
            here = columns < n_columns
            value = tl.load(x + at + columns, mask=here, other=0.0).to(tl.float32)
            if HAS_RESIDUAL:
                value += tl.load(residual + at + columns, mask=here, other=0.0).to(tl.float32)
            value = (value - mean) * factor * tl.load(weight + columns, mask=here, other=0.0).to(tl.float32)
            if HAS_SHIFT:
                value += tl.load(weight + n_columns + columns, mask=here, other=0.0).to(tl.float32)
            tl.store(out + at + columns, value.to(out.dtype.element_ty), mask=here)


def norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    kind: Kind,
    residual: torch.Tensor | None = None,
    known: torch.Tensor | None = None,
    n_whole: int | None = None,
    config: Config | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Norm of `x + residual` over the last dimension, and that sum.

    Parameters
    ----------
    x, residual : [..., n]
    weight : [1, n] scale, or [2, n] with the shift
    known : [..., 1 or 2] fp32, statistics of all `n_whole` columns where x is a part of them

    Raises
    ------
    SpecError : shapes that do not fit
    """
    n = x.shape[-1]
    if weight.dim() != 2 or weight.shape[0] not in (1, 2) or weight.shape[1] != n:
        raise SpecError(f"the weight {tuple(weight.shape)} must be [1 or 2, {n}]")
    if residual is not None and (residual.shape != x.shape or known is not None):
        raise SpecError(f"a residual {tuple(residual.shape)} must be like x {tuple(x.shape)}, without known statistics")
    if known is not None and known.shape != (*x.shape[:-1], _n_known(kind)):
        raise SpecError(f"statistics {tuple(known.shape)} of a {kind} of {tuple(x.shape)} must end in {_n_known(kind)}")
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    summed = x if residual is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)
    given = None if residual is None else residual.contiguous()
    _launch(x, given, weight, known, out, summed, n_whole or n, kind, config, statistics_only=False)
    return out, summed


def norm_statistics(x: torch.Tensor, *, kind: Kind, config: Config | None = None) -> torch.Tensor:
    """Sum of squares of each row, for layernorm also the sum: [..., n] -> [..., 1 or 2] fp32."""
    out = torch.empty((*x.shape[:-1], _n_known(kind)), dtype=torch.float32, device=x.device)
    _launch(x, None, None, None, out, None, x.shape[-1], kind, config, statistics_only=True)
    return out


def _n_known(kind: Kind) -> int:
    return 2 if kind == "layernorm" else 1


def _launch(x, residual, weight, known, out, summed, n_whole, kind, config, *, statistics_only) -> None:
    config = config or configs("norm", device_target(x))[0]
    n = x.shape[-1]
    x = x.contiguous()
    norm_kernel[(x.numel() // n,)](
        x, residual, None if weight is None else weight.contiguous(), None if known is None else known.contiguous(),
        out, summed, n, n_whole, EPS,
        LAYERNORM=kind == "layernorm", HAS_SHIFT=weight is not None and weight.shape[0] == 2,
        HAS_RESIDUAL=residual is not None, IS_KNOWN=known is not None, STATISTICS_ONLY=statistics_only,
        BLOCK=min(config.blocks["BLOCK"], next_power_of_2(n)), num_warps=config.num_warps,
    )  # fmt: skip


def norm_reference(x: torch.Tensor, weight: torch.Tensor, *, kind: Kind) -> torch.Tensor:
    """The same in torch."""
    if kind == "rmsnorm":
        return torch.nn.functional.rms_norm(x, x.shape[-1:], weight[0], EPS)
    shift = weight[1] if len(weight) == 2 else None
    return torch.nn.functional.layer_norm(x, x.shape[-1:], weight[0], shift, EPS)


def rereads() -> dict[str, float]:
    """Once for the statistics, once to scale."""
    return {"x": 2, "residual": 2}


def variants() -> Iterator[Variant]:
    """Whole rows with and without a residual, and the two halves of a norm over chips."""
    flags = ("LAYERNORM", "HAS_SHIFT", "HAS_RESIDUAL", "IS_KNOWN", "STATISTICS_ONLY")
    cases = {
        "rmsnorm": (), "rmsnorm residual": ("HAS_RESIDUAL",), "layernorm": ("LAYERNORM", "HAS_SHIFT"),
        "statistics": ("STATISTICS_ONLY",), "rmsnorm known": ("IS_KNOWN",),
    }  # fmt: skip
    for target in TARGETS:
        (config,) = configs("norm", target)
        for name, on in cases.items():
            yield Variant(
                op="norm",
                name=f"bf16 {name}",
                target=target,
                kernel=norm_kernel,
                types=dict.fromkeys(("x", "residual", "weight", "summed"), "*bf16")
                | {"known": "*fp32", "out": "*fp32" if name == "statistics" else "*bf16", "eps": "fp32"},
                constants={flag: flag in on for flag in flags} | config.blocks,
                num_warps=config.num_warps,
            )


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """Rows of a prompt and of a decode batch; layer norms with the residual added on the way in."""
    gpu, cpu = ((8192, 8192), (64, 8192)), ((1, 256), (16, 512), (128, 1536))
    for kind in ("rmsnorm", "layernorm"):
        for rows, n in gpu if device == "cuda" else cpu:
            yield _bench_case(device, kind, rows, n)


def _bench_case(device: Device, kind: Kind, rows: int, n: int) -> BenchCase:
    dtype, floats, size = ("bf16", torch.bfloat16, 2) if device == "cuda" else ("fp32", torch.float32, 4)
    with_residual = kind == "layernorm"

    def prepare(device: Device, generator: torch.Generator) -> Runs:
        x, added = (torch.randn((rows, n), generator=generator, device=device).to(floats) for _ in range(2))
        weight = torch.ones((2 if with_residual else 1, n), device=device, dtype=floats)
        residual = added if with_residual else None
        return Runs(
            kernel=lambda: norm(x, weight, kind=kind, residual=residual),
            torch=lambda: norm_reference(x if residual is None else x + residual, weight, kind=kind),
        )

    elements = (rows * n, size)
    reads = {"x": elements, "weight": (n * (1 + with_residual), size)}
    writes = {"out": elements}
    if with_residual:
        reads["residual"] = writes["summed"] = elements
    op = "norm layernorm residual" if with_residual else "norm"
    return BenchCase(
        op=op, shape={"rows": rows, "n": n}, dtype=dtype, work=elementwise_work(reads, writes), prepare=prepare
    )
