"""Matmul of few rows with many weights: K is cut too, so that every multiprocessor has weights to read.

Split-K cuts each output block's K into equal parts. Stream-K gives every program an equal run of (block, step) pairs,
wherever they fall. Both leave partial sums in fp32, and a second kernel adds them up in one order: no atomics, the same
bits every time.
"""

from collections.abc import Callable, Iterator

import torch
import triton
import triton.language as tl

from ..hardware_specs.errors import SpecError
from ..models.ops import matmul_work
from .bench_case import BenchCase, Device, Runs
from .launch import cdiv, device_target, need_floats
from .variant import TARGETS, Config, Variant, configs

_INTERPRETER_PROGRAMS = 8
Skinny = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@triton.jit
def run_kernel(
    x, w, partial, M, N, K, run, stride_xm, stride_wk, PIECES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Steps [p run, (p + 1) run) of all blocks' steps in order; partial [programs, PIECES, BLOCK_M, BLOCK_N] fp32.

    A run touches at most PIECES blocks, and leaves one partial sum for each.
    """
    program = tl.program_id(0).to(tl.int64)
    n_blocks_n, steps = tl.cdiv(N, BLOCK_N), tl.cdiv(K, BLOCK_K)
    n_steps = tl.cdiv(M, BLOCK_M) * n_blocks_n * steps
    at, stop = program * run, tl.minimum((program + 1) * run, n_steps)
    lanes_m, lanes_n, depth = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    for piece in range(0, PIECES):
        block = at // steps
        ends = tl.minimum((block + 1) * steps, stop)
        rows = (block // n_blocks_n) * BLOCK_M + lanes_m
        columns = (block % n_blocks_n) * BLOCK_N + lanes_n
        in_m, in_n = rows < M, columns < N
        sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for step in range(at % steps, at % steps + tl.maximum(ends - at, 0)):
            inner = step * BLOCK_K + depth
            in_k = inner < K
            part = tl.load(
                x + rows[:, None] * stride_xm + inner[None, :], mask=in_m[:, None] & in_k[None, :], other=0.0
            )
            weight = tl.load(
                w + inner[:, None] * stride_wk + columns[None, :], mask=in_k[:, None] & in_n[None, :], other=0.0
            )
            sums = tl.dot(part, weight, sums, input_precision="ieee")
        if at < stop:
            place = (program * PIECES + piece) * BLOCK_M * BLOCK_N
            tl.store(partial + place + lanes_m[:, None] * BLOCK_N + lanes_n[None, :], sums)
        at = tl.maximum(at, ends)


@triton.jit
def add_up_kernel(
    partial, out, M, N, K, run, stride_om, PIECES: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One block of out from the partial sums of every program whose run touched it, in the order of their runs."""
    block = tl.program_id(0).to(tl.int64)
    n_blocks_n, steps = tl.cdiv(N, BLOCK_N), tl.cdiv(K, BLOCK_K)
    lanes_m, lanes_n = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for program in range(block * steps // run, tl.cdiv((block + 1) * steps, run)):
        piece = block - (program * run) // steps
        place = (program * PIECES + piece) * BLOCK_M * BLOCK_N
        sums += tl.load(partial + place + lanes_m[:, None] * BLOCK_N + lanes_n[None, :])
    rows = (block // n_blocks_n) * BLOCK_M + lanes_m
    columns = (block % n_blocks_n) * BLOCK_N + lanes_n
    inside = (rows < M)[:, None] & (columns < N)[None, :]
    tl.store(out + rows[:, None] * stride_om + columns[None, :], sums.to(out.dtype.element_ty), mask=inside)


def skinny_matmul(
    x: torch.Tensor, w: torch.Tensor, *, n_splits: int | None = None, config: Config | None = None
) -> torch.Tensor:
    """`x @ w` with each block's K cut into `n_splits` equal parts; enough to fill the chip unless given."""
    config = config or configs("split_k", device_target(x))[0]
    steps = cdiv(x.shape[1], config.blocks["BLOCK_K"])
    wanted = n_splits or cdiv(2 * _n_multiprocessors(x), _n_blocks(x, w, config))
    return _in_runs(x, w, cdiv(steps, min(max(wanted, 1), steps)), config, aligned=True)


def stream_k_matmul(
    x: torch.Tensor, w: torch.Tensor, *, n_programs: int | None = None, config: Config | None = None
) -> torch.Tensor:
    """`x @ w` with all steps of all blocks dealt to `n_programs` in equal runs; one a multiprocessor unless given."""
    config = config or configs("split_k", device_target(x))[0]
    n_steps = _n_blocks(x, w, config) * cdiv(x.shape[1], config.blocks["BLOCK_K"])
    return _in_runs(x, w, cdiv(n_steps, n_programs or _n_multiprocessors(x)), config, aligned=False)


def _in_runs(x: torch.Tensor, w: torch.Tensor, run: int, config: Config, *, aligned: bool) -> torch.Tensor:
    """Both kernels; `aligned` runs end with their block, so K is filled up to whole runs."""
    if x.dim() != 2 or w.dim() != 2 or x.shape[1] != w.shape[0]:
        raise SpecError(f"x {tuple(x.shape)} and w {tuple(w.shape)} do not multiply; x is [M, K], w [K, N]")
    need_floats(x=x, w=w)
    x, w = x.contiguous(), w.contiguous()
    (m, k), n, blocks = x.shape, w.shape[1], config.blocks
    n_blocks, steps = _n_blocks(x, w, config), cdiv(k, blocks["BLOCK_K"])
    if aligned:
        steps = cdiv(steps, run) * run
    priced_k = steps * blocks["BLOCK_K"] if aligned else k
    n_programs, pieces = cdiv(n_blocks * steps, run), 1 if aligned else cdiv(run, steps) + 1
    shape = (n_programs, pieces, blocks["BLOCK_M"], blocks["BLOCK_N"])
    partial = torch.empty(shape, dtype=torch.float32, device=x.device)
    out = torch.empty((m, n), dtype=x.dtype, device=x.device)
    if priced_k > k:
        x = torch.nn.functional.pad(x, (0, priced_k - k))
        w = torch.nn.functional.pad(w, (0, 0, 0, priced_k - k))
    options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
    run_kernel[(n_programs,)](x, w, partial, m, n, priced_k, run, x.stride(0), n, PIECES=pieces, **blocks, **options)
    add_up_kernel[(n_blocks,)](partial, out, m, n, priced_k, run, n, PIECES=pieces, **blocks, num_warps=4)
    return out


def _n_blocks(x: torch.Tensor, w: torch.Tensor, config: Config) -> int:
    return cdiv(x.shape[0], config.blocks["BLOCK_M"]) * cdiv(w.shape[1], config.blocks["BLOCK_N"])


def _n_multiprocessors(x: torch.Tensor) -> int:
    if x.device.type != "cuda":
        return _INTERPRETER_PROGRAMS
    return int(torch.cuda.get_device_properties(x.device).multi_processor_count)


def partial_sums(m: int, n: int, parts: int, config: Config, *, aligned: bool) -> int:
    """Partial sums that are written once and read once: split-K's parts of each block, or stream-K's touched blocks.

    A run of stream-K that does not end with its block leaves a sum more for that block.
    """
    n_blocks = cdiv(m, config.blocks["BLOCK_M"]) * cdiv(n, config.blocks["BLOCK_N"])
    count = n_blocks * parts if aligned else n_blocks + parts - 1
    return count * config.blocks["BLOCK_M"] * config.blocks["BLOCK_N"]


def variants() -> Iterator[Variant]:
    """Both kernels, for split-K's one piece a run and for stream-K's two."""
    for target in TARGETS:
        (config,) = configs("split_k", target)
        for name, pieces in (("split-K", 1), ("stream-K", 2)):
            for kernel, part in ((run_kernel, "runs"), (add_up_kernel, "sum")):
                yield Variant(
                    op="split_k",
                    name=f"bf16 {name} {part}",
                    target=target,
                    kernel=kernel,
                    types={"x": "*bf16", "w": "*bf16", "partial": "*fp32", "out": "*bf16"},
                    constants={"PIECES": pieces} | config.blocks,
                    num_warps=config.num_warps,
                    num_stages=config.num_stages,
                    unaligned=("M", "run"),
                    tensor_core=part == "runs",
                )


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """Decode batches over large weights, both ways to cut K."""
    dtype, kind, size = ("bf16", torch.bfloat16, 2) if device == "cuda" else ("fp32", torch.float32, 4)
    shapes = ((1, 8192, 8192), (16, 28672, 8192)) if device == "cuda" else ((1, 1536, 512), (16, 1536, 512))
    for op, run in (("split_k", skinny_matmul), ("stream_k", stream_k_matmul)):
        for m, k, n in shapes:

            def prepare(
                device: Device, generator: torch.Generator, m: int = m, k: int = k, n: int = n, run: Skinny = run
            ) -> Runs:
                x, w = (torch.randn(shape, generator=generator, device=device).to(kind) for shape in ((m, k), (k, n)))
                return Runs(kernel=lambda: run(x, w), torch=lambda: x @ w)

            work = matmul_work(m, k, n, x_bytes=size, w_bytes=size, out_bytes=size)
            yield BenchCase(op=op, shape={"m": m, "k": k, "n": n}, dtype=dtype, work=work, prepare=prepare)
