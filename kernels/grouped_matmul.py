"""Matmul of each expert's rows with that expert's weights, in one launch.

Every program finds its expert and its rows in a map made on the device; the grid is the most blocks there can be, so the
host need not know how many rows an expert got.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..hardware_specs.errors import SpecError
from ..models.ops import grouped_matmul_work
from .bench_case import BenchCase, Device, Runs
from .elementwise import apply_activation
from .launch import cdiv, device_target, need_floats
from .matmul import check_activation, matmul_reference
from .variant import TARGETS, Config, Variant, configs


@triton.jit
def grouped_matmul_kernel(
    x, w, out, offsets, first_blocks, N, K, stride_we, stride_wc, stride_wk, stride_wn,
    ACTIVATION: tl.constexpr, GATED: tl.constexpr, EVEN_K: tl.constexpr, N_EXPERTS: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Rows offsets[e] up to offsets[e + 1] of x with w[e]; e's blocks start at first_blocks[e], [E + 1]."""
    block, column = tl.program_id(0), tl.program_id(1)
    # neighbours share an expert's columns in L2; blocks beyond the last expert's have nothing to do
    numbers = tl.arange(0, BLOCK_E)
    starts = tl.load(first_blocks + numbers + 1, mask=numbers < N_EXPERTS, other=0x7FFFFFFF)
    expert = tl.sum((starts <= block).to(tl.int32), 0)
    if expert < N_EXPERTS:
        first = tl.load(offsets + expert) + (block - tl.load(first_blocks + expert)) * BLOCK_M
        rows = first + tl.arange(0, BLOCK_M)
        columns = column.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
        depth = tl.arange(0, BLOCK_K)
        in_m, in_n = rows < tl.load(offsets + expert + 1), columns < N
        x_at = x + rows[:, None] * K + depth[None, :]  # [BLOCK_M, BLOCK_K]
        w_at = w + expert.to(tl.int64) * stride_we + depth[:, None] * stride_wk + columns[None, :] * stride_wn
        sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        up_sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for k in range(0, K, BLOCK_K):
            x_mask, w_mask = in_m[:, None], in_n[None, :]
            if not EVEN_K:
                in_k = depth < K - k
                x_mask, w_mask = x_mask & in_k[None, :], w_mask & in_k[:, None]
            part = tl.load(x_at, mask=x_mask, other=0.0)
            sums = tl.dot(part, tl.load(w_at, mask=w_mask, other=0.0), sums, input_precision="ieee")
            if GATED:
                up = tl.load(w_at + stride_wc, mask=w_mask, other=0.0)
                up_sums = tl.dot(part, up, up_sums, input_precision="ieee")
            x_at += BLOCK_K
            w_at += BLOCK_K * stride_wk
        sums = apply_activation(sums, ACTIVATION)
        if GATED:
            sums = sums * up_sums
        at = rows[:, None] * N + columns[None, :]
        tl.store(out + at, sums.to(out.dtype.element_ty), mask=in_m[:, None] & in_n[None, :])


def grouped_matmul(
    x: torch.Tensor,
    w: torch.Tensor,
    offsets: torch.Tensor,
    *,
    activation: str | None = None,
    gated: bool = False,
    config: Config | None = None,
) -> torch.Tensor:
    """`activation(x[rows of e] @ w[e])` for every expert e; gated: `activation(x @ w[e, 0]) * (x @ w[e, 1])`.

    Parameters
    ----------
    x : [P, K], rows in the experts' order
    w : [E, K, N] in any strides, or [E, 2, K, N] if `gated`
    offsets : [E + 1] int64, as of `permutation.Order`

    Raises
    ------
    SpecError : shapes or dtypes that do not fit
    """
    _check(x, w, offsets, activation, gated=gated)
    (n_rows, k), n, n_experts = x.shape, w.shape[-1], w.shape[0]
    config = config or _fitting(x, n_rows, n_experts)
    blocks = config.blocks
    counts = offsets.diff()
    first_blocks = torch.zeros_like(offsets, dtype=torch.int32)
    first_blocks[1:] = ((counts + blocks["BLOCK_M"] - 1) // blocks["BLOCK_M"]).cumsum(0)
    out = torch.empty((n_rows, n), dtype=x.dtype, device=x.device)
    most = min(n_rows, cdiv(n_rows, blocks["BLOCK_M"]) + n_experts - 1)
    grouped_matmul_kernel[(most, cdiv(n, blocks["BLOCK_N"]))](
        x.contiguous(), w, out, offsets, first_blocks, n, k,
        w.stride(0), w.stride(1) if gated else 0, w.stride(-2), w.stride(-1),
        ACTIVATION=activation, GATED=gated, EVEN_K=k % blocks["BLOCK_K"] == 0, N_EXPERTS=n_experts,
        BLOCK_E=triton.next_power_of_2(n_experts), **blocks, num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip
    return out


def _fitting(x: torch.Tensor, n_rows: int, n_experts: int) -> Config:
    """The first tuning with no more rows a block than an expert gets on average, else the last."""
    known = configs("grouped_matmul", device_target(x))
    return next((c for c in known if c.blocks["BLOCK_M"] * n_experts <= n_rows), known[-1])


def _check(x: torch.Tensor, w: torch.Tensor, offsets: torch.Tensor, activation: str | None, *, gated: bool) -> None:
    check_activation(activation)
    want = 4 if gated else 3
    if x.dim() != 2 or w.dim() != want or w.shape[-2] != x.shape[1] or (gated and w.shape[1] != 2):
        raise SpecError(
            f"x {tuple(x.shape)} and w {tuple(w.shape)} do not multiply; x is [P, K], w [E, {'2, ' * gated}K, N]"
        )
    need_floats(x=x, w=w)
    if offsets.shape != (w.shape[0] + 1,):
        raise SpecError(f"offsets {tuple(offsets.shape)} must be one more than the {w.shape[0]} experts")


def grouped_matmul_reference(
    x: torch.Tensor, w: torch.Tensor, offsets: torch.Tensor, *, activation: str | None = None, gated: bool = False
) -> torch.Tensor:
    """The same in torch, expert by expert."""
    ends = offsets.tolist()
    made = [
        matmul_reference(x[start:stop], weights, activation=activation, gated=gated)
        for start, stop, weights in zip(ends[:-1], ends[1:], w, strict=True)
    ]
    return torch.cat(made)


def rereads(counts: list[int], n: int, config: Config) -> dict[str, float]:
    """How often each operand is loaded: x once a column of blocks, the weights of an expert once a row of its blocks."""
    blocks = sum(cdiv(count, config.blocks["BLOCK_M"]) for count in counts)
    return {"x": cdiv(n, config.blocks["BLOCK_N"]), "w": blocks / len(counts)}


def variants() -> Iterator[Variant]:
    """Every tuning in bf16, plain and as a gated expert's first half."""
    for target in TARGETS:
        for config in configs("grouped_matmul", target):
            for name, changed in (("plain", {}), ("swiglu", {"ACTIVATION": "silu", "GATED": True})):
                size = "x".join(str(config.blocks[f"BLOCK_{dim}"]) for dim in "MNK")
                yield Variant(
                    op="grouped_matmul",
                    name=f"bf16 {name} {size}",
                    target=target,
                    kernel=grouped_matmul_kernel,
                    types=dict.fromkeys(("x", "w", "out"), "*bf16") | {"offsets": "*i64", "first_blocks": "*i32"},
                    constants={
                        "ACTIVATION": None, "GATED": False, "EVEN_K": True, "N_EXPERTS": 64, "BLOCK_E": 64,
                        "stride_wn": 1,
                    }
                    | changed
                    | config.blocks,
                    num_warps=config.num_warps,
                    num_stages=config.num_stages,
                    tensor_core=True,
                    wgmma=config.blocks["BLOCK_M"] >= 64 * config.num_warps // 4,
                )  # fmt: skip


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """Experts of a prompt, of a decode batch, and a handful on a CPU; every expert gets as many rows."""
    dtype, size = ("bf16", 2) if device == "cuda" else ("fp32", 4)
    for e, rows, k, n in ((8, 2048, 4096, 14336), (64, 16, 2048, 1408)) if device == "cuda" else ((4, 32, 256, 512),):

        def prepare(
            device: Device, generator: torch.Generator, e: int = e, rows: int = rows, k: int = k, n: int = n
        ) -> Runs:
            kind = torch.bfloat16 if device == "cuda" else torch.float32
            x = torch.randn((e * rows, k), generator=generator, device=device).to(kind)
            w = torch.randn((e, k, n), generator=generator, device=device).to(kind)
            offsets = torch.arange(0, (e + 1) * rows, rows, device=device)
            return Runs(
                kernel=lambda: grouped_matmul(x, w, offsets),
                torch=lambda: torch.bmm(x.view(e, rows, k), w),
            )

        work = grouped_matmul_work(e * rows, e, k, n, x_bytes=size, w_bytes=size, out_bytes=size)
        shape = {"e": e, "m": e * rows, "k": k, "n": n}
        yield BenchCase(op="grouped_matmul", shape=shape, dtype=dtype, work=work, prepare=prepare)
