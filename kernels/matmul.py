"""Matmul with what follows it fused in: bias, activation, gate, residual.

Blocks of the output go through K in fp32; neighbouring programs share columns of w in L2. A gated matmul multiplies the
same rows with gate and up at once, so its halves never leave the chip.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch.nn.functional import gelu, relu, silu

from ..hardware_specs.errors import SpecError
from ..models.ops import matmul_work
from .bench_case import BenchCase, Device, Runs
from .elementwise import apply_activation
from .launch import cdiv, device_target, need_floats, next_power_of_2
from .variant import TARGETS, Config, Target, Variant, configs

_ACTIVATIONS = (None, "gelu", "relu", "silu")
_TORCH_ACTIVATIONS = {"gelu": lambda x: gelu(x, approximate="tanh"), "relu": relu, "silu": silu}


@triton.jit
def matmul_kernel(
    x, w, bias, residual, out, M, N, K,
    stride_xm, stride_xk, stride_wc, stride_wk, stride_wn, stride_rm, stride_om,
    ACTIVATION: tl.constexpr, GATED: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr,
    EVEN_K: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """`out[m, n] = activation(x @ w[0]) * (x @ w[1]) + residual`, or `activation(x @ w + bias) + residual`."""
    # programs go down GROUP_M rows of blocks before they go right
    number = tl.program_id(0)
    n_blocks_m, n_blocks_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    in_group = GROUP_M * n_blocks_n
    first_m = (number // in_group) * GROUP_M
    group_m = tl.minimum(n_blocks_m - first_m, GROUP_M)
    block_m = first_m + (number % in_group) % group_m
    block_n = (number % in_group) // group_m

    rows = block_m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = block_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    in_m, in_n = rows < M, columns < N
    x_at = x + rows[:, None] * stride_xm + depth[None, :] * stride_xk  # [BLOCK_M, BLOCK_K]
    w_at = w + depth[:, None] * stride_wk + columns[None, :] * stride_wn  # [BLOCK_K, BLOCK_N]
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    up_sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, K, BLOCK_K):
        in_k = depth < K - k
        x_mask, w_mask = in_m[:, None], in_n[None, :]
        if not EVEN_K:
            x_mask, w_mask = x_mask & in_k[None, :], w_mask & in_k[:, None]
        part = tl.load(x_at, mask=x_mask, other=0.0)
        sums = tl.dot(part, tl.load(w_at, mask=w_mask, other=0.0), sums, input_precision=PRECISION)
        if GATED:
            up = tl.load(w_at + stride_wc, mask=w_mask, other=0.0)
            up_sums = tl.dot(part, up, up_sums, input_precision=PRECISION)
        x_at += BLOCK_K * stride_xk
        w_at += BLOCK_K * stride_wk
    if HAS_BIAS:
        sums += tl.load(bias + columns, mask=in_n, other=0.0).to(tl.float32)[None, :]
    sums = apply_activation(sums, ACTIVATION)
    if GATED:
        sums = sums * up_sums
    inside = in_m[:, None] & in_n[None, :]
    if HAS_RESIDUAL:
        sums += tl.load(residual + rows[:, None] * stride_rm + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(out + rows[:, None] * stride_om + columns[None, :], sums.to(out.dtype.element_ty), mask=inside)


def matmul(
    x: torch.Tensor,
    w: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    activation: str | None = None,
    residual: torch.Tensor | None = None,
    gated: bool = False,
    out_dtype: torch.dtype | None = None,
    config: Config | None = None,
) -> torch.Tensor:
    """`activation(x @ w + bias) + residual`; gated: `activation(x @ w[0]) * (x @ w[1]) + residual`.

    Parameters
    ----------
    x : [M, K]
    w : [K, N] in any strides, or [2, K, N] if `gated`
    bias : [N], not with `gated`
    residual : [M, N]

    Raises
    ------
    SpecError : shapes or dtypes that do not fit
    """
    _check(x, w, bias, activation, residual, gated=gated)
    (m, k), n = x.shape, w.shape[-1]
    config = config or _fitting(x, m, activation, gated=gated)
    blocks = config.blocks
    out = torch.empty((m, n), dtype=out_dtype or x.dtype, device=x.device)
    if residual is not None and residual.stride(1) != 1:
        residual = residual.contiguous()
    matmul_kernel[(cdiv(m, blocks["BLOCK_M"]) * cdiv(n, blocks["BLOCK_N"]),)](
        x, w, bias, residual, out, m, n, k,
        x.stride(0), x.stride(1), w.stride(0) if gated else 0, w.stride(-2), w.stride(-1),
        0 if residual is None else residual.stride(0), out.stride(0),
        ACTIVATION=activation, GATED=gated, HAS_BIAS=bias is not None, HAS_RESIDUAL=residual is not None,
        EVEN_K=k % blocks["BLOCK_K"] == 0, PRECISION="ieee",
        **blocks, num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip
    return out


def _fitting(x: torch.Tensor, m: int, activation: str | None, *, gated: bool) -> Config:
    """The first tuning with no more rows than are needed, else the last."""
    known = configs("gated_matmul" if gated else "matmul", device_target(x))
    if activation is not None and not gated:
        known = known[1:]  # the largest blocks leave an activation no registers
    return next((c for c in known if c.blocks["BLOCK_M"] <= max(next_power_of_2(m), 16)), known[-1])


def check_activation(activation: str | None) -> None:
    """Nothing, if the kernels know the activation.

    Raises
    ------
    SpecError : another
    """
    if activation not in _ACTIVATIONS:
        raise SpecError(f"no activation {activation!r}; known: {', '.join(map(str, _ACTIVATIONS))}")


def _check(
    x: torch.Tensor,
    w: torch.Tensor,
    bias: torch.Tensor | None,
    activation: str | None,
    residual: torch.Tensor | None,
    *,
    gated: bool,
) -> None:
    check_activation(activation)
    want = 3 if gated else 2
    if x.dim() != 2 or w.dim() != want or w.shape[-2] != x.shape[1] or (gated and w.shape[0] != 2):
        raise SpecError(
            f"x {tuple(x.shape)} and w {tuple(w.shape)} do not multiply; x is [M, K], w [{'2, ' * gated}K, N]"
        )
    need_floats(x=x, w=w)
    if bias is not None and (gated or bias.shape != (w.shape[-1],)):
        raise SpecError(f"a bias {tuple(bias.shape)} must be [{w.shape[-1]}], and a gated matmul has none")
    if residual is not None and residual.shape != (x.shape[0], w.shape[-1]):
        raise SpecError(f"the residual {tuple(residual.shape)} must be [{x.shape[0]}, {w.shape[-1]}]")


def matmul_reference(
    x: torch.Tensor,
    w: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    activation: str | None = None,
    residual: torch.Tensor | None = None,
    gated: bool = False,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """The same in torch."""
    made = torch.matmul(x, w)
    first = made[0] if gated else made
    if bias is not None:
        first = first + bias
    if activation is not None:
        first = _TORCH_ACTIVATIONS[activation](first)
    if gated:
        first = first * made[1]
    if residual is not None:
        first = first + residual
    return first.to(out_dtype or x.dtype)


def rereads(m: int, n: int, config: Config) -> dict[str, float]:
    """How often each operand is loaded: x once a column of blocks, w once a row of them."""
    return {"x": cdiv(n, config.blocks["BLOCK_N"]), "w": cdiv(m, config.blocks["BLOCK_M"])}


def variants() -> Iterator[Variant]:
    """Every tuning in bf16, plain or gated; the usual one with each epilogue, and in fp16."""
    for target in TARGETS:
        known = configs("matmul", target)
        for config in known:
            yield _variant(target, config, "plain")
        yield _variant(target, known[1], "bias gelu", ACTIVATION="gelu", HAS_BIAS=True)
        yield _variant(target, known[0], "residual", HAS_RESIDUAL=True)
        yield _variant(target, known[0], "plain", "fp16")
        gated = configs("gated_matmul", target)
        for config in gated:
            yield _variant(target, config, "swiglu", ACTIVATION="silu", GATED=True)
        yield _variant(target, gated[0], "geglu residual", ACTIVATION="gelu", GATED=True, HAS_RESIDUAL=True)
        yield _variant(target, gated[0], "reglu", ACTIVATION="relu", GATED=True)


def _variant(target: Target, config: Config, name: str, floats: str = "bf16", **changed: object) -> Variant:
    blocks = config.blocks
    constants = {
        "ACTIVATION": None, "GATED": False, "HAS_BIAS": False, "HAS_RESIDUAL": False, "EVEN_K": True, "PRECISION": "ieee",
        "stride_xk": 1, "stride_wn": 1,
    }  # fmt: skip
    size = "x".join(str(blocks[f"BLOCK_{dim}"]) for dim in "MNK")
    return Variant(
        op="matmul",
        name=f"{floats} {name} {size}",
        target=target,
        kernel=matmul_kernel,
        types=dict.fromkeys(("x", "w", "bias", "residual", "out"), f"*{floats}"),
        constants=constants | changed | blocks,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        tensor_core=True,
        wgmma=blocks["BLOCK_M"] >= 64 * config.num_warps // 4,
    )


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """Squares and served shapes, and one gated; on a CPU those that take milliseconds, in fp32."""
    gpu = [(4096, 4096, 4096), (8192, 8192, 8192), (4096, 8192, 28672), (512, 8192, 8192), (16, 8192, 8192)]
    sides = ((128, 384), (256, 256), (256, 704), (704, 256), (512, 512), (512, 2048), (1024, 1024), (1536, 1536))
    cpu = [(m, k, n) for m in (1, 2, 4, 8, 16, 32, 64, 128, 256) for k, n in sides]
    for m, k, n in gpu if device == "cuda" else cpu:
        yield _bench_case(device, m, k, n, gated=False)
    yield _bench_case(device, *((4096, 4096, 14336) if device == "cuda" else (16, 512, 1536)), gated=True)


def _bench_case(device: Device, m: int, k: int, n: int, *, gated: bool) -> BenchCase:
    dtype, kind, size = ("bf16", torch.bfloat16, 2) if device == "cuda" else ("fp32", torch.float32, 4)
    activation = "silu" if gated else None

    def prepare(device: Device, generator: torch.Generator) -> Runs:
        x = torch.randn((m, k), generator=generator, device=device).to(kind)
        w = torch.randn((2, k, n) if gated else (k, n), generator=generator, device=device).to(kind)
        return Runs(
            kernel=lambda: matmul(x, w, gated=gated, activation=activation),
            torch=lambda: matmul_reference(x, w, gated=gated, activation=activation),
        )

    work = matmul_work(m, k, n * (1 + gated), x_bytes=size, w_bytes=size, out_bytes=size / (1 + gated))
    shape = {"m": m, "k": k, "n": n}
    return BenchCase(op=f"matmul{' swiglu' * gated}", shape=shape, dtype=dtype, work=work, prepare=prepare)
