"""Tokens brought into the order of their experts, and what the experts made of them brought back and summed."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ..hardware_specs.errors import SpecError
from ..models.ops import elementwise_work
from .bench_case import BenchCase, Device, Runs
from .launch import device_target
from .variant import TARGETS, Config, Variant, configs


@dataclass(frozen=True, slots=True)
class Order:
    """Where the (token, choice) pairs go; pair p is choice p % top_k of token p // top_k.

    Parameters
    ----------
    pairs : [T top_k] int64, the pair that lies in each row of the experts' order
    rows : [T, top_k] int64, the row of each pair: the inverse of `pairs`
    offsets : [E + 1] int64, expert e's rows are those from offsets[e] up to offsets[e + 1]
    """

    pairs: torch.Tensor
    rows: torch.Tensor
    offsets: torch.Tensor


def order_by_expert(experts: torch.Tensor, n_experts: int) -> Order:
    """The order of experts [T, top_k] (int32), tokens of one expert in their own order; without the host waiting."""
    flat = experts.flatten().long()
    pairs = flat.argsort(stable=True)
    rows = torch.zeros_like(pairs).scatter_(0, pairs, torch.arange(pairs.numel(), device=pairs.device))
    offsets = torch.searchsorted(flat[pairs], torch.arange(n_experts + 1, device=flat.device))
    return Order(pairs, rows.view(experts.shape), offsets)


@triton.jit
def permute_kernel(x, out, pairs, n, TOP_K: tl.constexpr, BLOCK: tl.constexpr):
    """Row r of out is the token of pair r; x [T, n], out [T TOP_K, n]."""
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    token = tl.load(pairs + row) // TOP_K
    value = tl.load(x + token * n + lanes, mask=lanes < n, other=0.0)
    tl.store(out + row * n + lanes, value, mask=lanes < n)


@triton.jit
def combine_kernel(y, out, rows, gates, n, TOP_K: tl.constexpr, BLOCK: tl.constexpr):
    """out[t] = sum over choices of gates[t, c] y[rows[t, c]]; y [T TOP_K, n], summed in fp32 in the choices' order."""
    token = tl.program_id(0).to(tl.int64)
    lanes = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for choice in tl.static_range(TOP_K):
        row = tl.load(rows + token * TOP_K + choice)
        value = tl.load(y + row * n + lanes, mask=lanes < n, other=0.0).to(tl.float32)
        total += value * tl.load(gates + token * TOP_K + choice)
    tl.store(out + token * n + lanes, total.to(out.dtype.element_ty), mask=lanes < n)


def permute(x: torch.Tensor, order: Order, *, config: Config | None = None) -> torch.Tensor:
    """Rows x [T, n] to [T top_k, n], one a pair, in the experts' order.

    Raises
    ------
    SpecError : an order of other tokens
    """
    n_tokens, top_k = order.rows.shape
    if x.dim() != 2 or x.shape[0] != n_tokens:
        raise SpecError(f"x {tuple(x.shape)} is not the {n_tokens} tokens that were ordered")
    config = config or configs("permutation", device_target(x))[0]
    out = torch.empty((n_tokens * top_k, x.shape[1]), dtype=x.dtype, device=x.device)
    grid = (out.shape[0], triton.cdiv(x.shape[1], config.blocks["BLOCK"]))
    permute_kernel[grid](
        x.contiguous(), out, order.pairs, x.shape[1], TOP_K=top_k, **config.blocks, num_warps=config.num_warps
    )
    return out


def combine(y: torch.Tensor, order: Order, gates: torch.Tensor, *, config: Config | None = None) -> torch.Tensor:
    """Rows y [T top_k, n] in the experts' order to [T, n], each token's rows weighted by gates [T, top_k] and summed.

    Raises
    ------
    SpecError : an order or gates of other tokens
    """
    n_tokens, top_k = order.rows.shape
    if gates.shape != order.rows.shape or y.dim() != 2 or y.shape[0] != n_tokens * top_k:
        raise SpecError(
            f"y {tuple(y.shape)} and gates {tuple(gates.shape)} are not of {n_tokens} tokens with {top_k} experts each"
        )
    config = config or configs("permutation", device_target(y))[0]
    out = torch.empty((n_tokens, y.shape[1]), dtype=y.dtype, device=y.device)
    grid = (n_tokens, triton.cdiv(y.shape[1], config.blocks["BLOCK"]))
    combine_kernel[grid](
        y.contiguous(), out, order.rows, gates.float().contiguous(), y.shape[1],
        TOP_K=top_k, **config.blocks, num_warps=config.num_warps,
    )  # fmt: skip
    return out


def combine_reference(y: torch.Tensor, order: Order, gates: torch.Tensor) -> torch.Tensor:
    """The same in torch."""
    return (y[order.rows] * gates[..., None].to(y.dtype)).sum(1)


def variants() -> Iterator[Variant]:
    """Out and back, of two experts and of eight."""
    for target in TARGETS:
        (config,) = configs("permutation", target)
        for top_k in (2, 8):
            for kernel, types in (
                (permute_kernel, {"x": "*bf16", "out": "*bf16", "pairs": "*i64"}),
                (combine_kernel, {"y": "*bf16", "out": "*bf16", "rows": "*i64", "gates": "*fp32"}),
            ):
                yield Variant(
                    op="permutation",
                    name=f"bf16 {kernel.__name__.removesuffix('_kernel')} top {top_k}",
                    target=target,
                    kernel=kernel,
                    types=types,
                    constants={"TOP_K": top_k} | config.blocks,
                    num_warps=config.num_warps,
                )


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """Rows sent out, and rows weighted and summed, for a prompt and for a decode batch."""
    for t, n in ((8192, 4096), (64, 4096)) if device == "cuda" else ((128, 512),):
        for op in ("permute", "combine"):
            yield _bench_case(device, op, t, n)


def _bench_case(device: Device, op: str, t: int, n: int) -> BenchCase:
    dtype, floats, size = ("bf16", torch.bfloat16, 2) if device == "cuda" else ("fp32", torch.float32, 4)

    def prepare(device: Device, generator: torch.Generator) -> Runs:
        x = torch.randn((t, n), generator=generator, device=device).to(floats)
        gates = torch.rand((t, 2), generator=generator, device=device)
        order = order_by_expert(torch.randint(8, (t, 2), generator=generator, device=device).int(), 8)
        if op == "permute":
            return Runs(kernel=lambda: permute(x, order), torch=lambda: x[order.pairs // 2])
        y = permute(x, order) if device == "cuda" else x[order.pairs // 2]
        return Runs(kernel=lambda: combine(y, order, gates), torch=lambda: combine_reference(y, order, gates))

    few, many, places = (t * n, size), (2 * t * n, size), (2 * t, 8)
    work = elementwise_work({"x": few, "pairs": places}, {"out": many})
    if op == "combine":
        work = elementwise_work({"y": many, "rows": places, "gates": (2 * t, 4)}, {"out": few})
    shape = {"t": t, "k": 2, "n": n}
    return BenchCase(op=f"permutation {op}", shape=shape, dtype=dtype, work=work, prepare=prepare)
