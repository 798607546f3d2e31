"""Rotary position embedding of queries and keys in one launch, halves turned against each other or neighbours.

Cosines and sines come from a table of all positions, made once in double precision: exact at any position, and without
the stack that a GPU's own sine keeps for large angles.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..hardware_specs.errors import SpecError
from ..models.ops import elementwise_work
from .bench_case import BenchCase, Device, Runs
from .launch import device_target, next_power_of_2
from .variant import TARGETS, Variant, configs


@triton.jit
def rope_kernel(
    q, k, q_out, k_out, positions, table, n_heads, n_kv_heads, n_tokens,
    stride_qb, stride_ql, stride_qh, stride_kb, stride_kl, stride_kh,
    INTERLEAVED: tl.constexpr, D_HEAD: tl.constexpr, HALF: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """One head of one token; heads beyond the queries' are the keys'. Only the first 2 HALF channels turn."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    sequence, place = token // n_tokens, token % n_tokens
    source = q + sequence * stride_qb + place * stride_ql + head * stride_qh
    target = q_out + (token * n_heads + head) * D_HEAD
    if head >= n_heads:
        source = k + sequence * stride_kb + place * stride_kl + (head - n_heads) * stride_kh
        target = k_out + (token * n_kv_heads + head - n_heads) * D_HEAD
    lanes = tl.arange(0, BLOCK_H)
    here = lanes < HALF
    turns = table + tl.load(positions + token).to(tl.int64) * 2 * HALF
    cos = tl.load(turns + lanes, mask=here, other=0.0)
    sin = tl.load(turns + HALF + lanes, mask=here, other=0.0)
    first, second = (2 * lanes, 2 * lanes + 1) if INTERLEAVED else (lanes, lanes + HALF)
    x = tl.load(source + first, mask=here, other=0.0).to(tl.float32)
    y = tl.load(source + second, mask=here, other=0.0).to(tl.float32)
    tl.store(target + first, (x * cos - y * sin).to(q_out.dtype.element_ty), mask=here)
    tl.store(target + second, (y * cos + x * sin).to(q_out.dtype.element_ty), mask=here)
    for start in tl.static_range(2 * HALF, D_HEAD, BLOCK_H):
        rest = start + lanes
        tl.store(target + rest, tl.load(source + rest, mask=rest < D_HEAD, other=0.0), mask=rest < D_HEAD)


def rotate(
    q: torch.Tensor,
    k: torch.Tensor,
    positions: torch.Tensor,
    table: torch.Tensor,
    *,
    interleaved: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate queries [B, L, H, D] and keys [B, L, K, D] at `positions` [B, L].

    Parameters
    ----------
    table : [positions, rotated channels] fp32 from `turn_table`, whatever scaled its frequencies
    interleaved : neighbouring channels turn together (GPT-J), else the two halves (Llama, NeoX)

    Raises
    ------
    SpecError : shapes that do not fit
    """
    half, (n_sequences, n_tokens, n_heads, d_head) = table.shape[1] // 2, q.shape
    if k.shape[:2] != q.shape[:2] or k.shape[3] != d_head or positions.shape != q.shape[:2]:
        raise SpecError(f"q {tuple(q.shape)}, k {tuple(k.shape)} and positions {tuple(positions.shape)} do not fit")
    if 2 * half > d_head:
        raise SpecError(f"the table turns {2 * half} channels, a head has {d_head}")
    if q.stride(3) != 1 or k.stride(3) != 1:
        raise SpecError("the channels of a head must lie side by side; call .contiguous() first")
    (config,) = configs("rope", device_target(q))
    made = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k)]
    rope_kernel[(n_sequences * n_tokens, n_heads + k.shape[2])](
        q, k, *made, positions.contiguous(), table, n_heads, k.shape[2], n_tokens,
        q.stride(0), q.stride(1), q.stride(2), k.stride(0), k.stride(1), k.stride(2),
        INTERLEAVED=interleaved, D_HEAD=d_head, HALF=half, BLOCK_H=next_power_of_2(half), num_warps=config.num_warps,
    )  # fmt: skip
    return made[0], made[1]


def plain_frequencies(d_rotated: int, theta: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """Radians a position of each pair of channels, [d_rotated / 2]."""
    return theta ** (-torch.arange(0, d_rotated, 2, dtype=torch.float64, device=device) / d_rotated)


def turn_table(frequencies: torch.Tensor, n_positions: int) -> torch.Tensor:
    """Cosines, then sines, of every position: [n_positions, 2 len(frequencies)] fp32."""
    positions = torch.arange(n_positions, dtype=torch.float64, device=frequencies.device)
    angles = positions[:, None] * frequencies.double()
    return torch.cat([angles.cos(), angles.sin()], 1).float()


def rotate_reference(
    x: torch.Tensor, positions: torch.Tensor, frequencies: torch.Tensor, *, interleaved: bool = False
) -> torch.Tensor:
    """The same in torch, for queries or keys."""
    half = len(frequencies)
    angle = (positions[..., None] * frequencies)[:, :, None]
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.split(half, -1)
    made = (a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin())
    pair = torch.stack(made, -1).flatten(-2) if interleaved else torch.cat(made, -1)
    return torch.cat([pair, rest], -1)


def variants() -> Iterator[Variant]:
    """Both pairings, and heads of which a part turns."""
    for target in TARGETS:
        (config,) = configs("rope", target)
        for name, interleaved, half in (("halves", False, 64), ("interleaved", True, 64), ("partial", False, 32)):
            yield Variant(
                op="rope",
                name=f"bf16 d128 {name}",
                target=target,
                kernel=rope_kernel,
                types=dict.fromkeys(("q", "k", "q_out", "k_out"), "*bf16") | {"positions": "*i64", "table": "*fp32"},
                constants={"INTERLEAVED": interleaved, "D_HEAD": 128, "HALF": half, "BLOCK_H": half},
                num_warps=config.num_warps,
                unaligned=("n_heads", "n_kv_heads", "n_tokens"),
            )


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """A prompt and a decode batch."""
    dtype, size = ("bf16", 2) if device == "cuda" else ("fp32", 4)
    for b, n in ((1, 4096), (256, 1)) if device == "cuda" else ((1, 64), (8, 1)):
        h, kv, d = 32, 8, 128
        elements = b * n * d

        def prepare(device: Device, generator: torch.Generator, b: int = b, n: int = n) -> Runs:
            kind = torch.bfloat16 if device == "cuda" else torch.float32
            q, k = (torch.randn((b, n, heads, 128), generator=generator, device=device).to(kind) for heads in (32, 8))
            at = torch.arange(n, device=device).expand(b, n)
            frequencies = plain_frequencies(128, 10000.0, device)
            table = turn_table(frequencies, n)
            return Runs(
                kernel=lambda: rotate(q, k, at, table),
                torch=lambda: [rotate_reference(x, at, frequencies) for x in (q, k)],
            )

        work = elementwise_work(
            {"q": (elements * h, size), "k": (elements * kv, size), "table": (n * d, 4)},
            {"q_out": (elements * h, size), "k_out": (elements * kv, size)},
        )
        yield BenchCase(
            op="rope", shape={"b": b, "l": n, "h": h, "k": kv, "d": d}, dtype=dtype, work=work, prepare=prepare
        )
