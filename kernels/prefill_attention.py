"""Flash attention of many new tokens over themselves and a cache [Dao2022].

A program takes BLOCK_M queries of one head through the keys, tile by tile, with the online softmax. Tiles that no query
sees are never visited; only those at the edges of what is seen are masked.
"""

import math
from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..hardware_specs.errors import SpecError
from ..models.ops import attention_work
from .bench_case import BenchCase, Device, Runs
from .elementwise import LOG2_E
from .launch import cdiv, device_target, need_floats, next_power_of_2
from .softmax import absorb, finish
from .variant import TARGETS, Config, Target, Variant, configs


@triton.jit
def _tile(
    query, best, total, mixed, k_at, v_at, bias_slope, q_positions, first, n_keys, scale, window,
    stride_ks, stride_vs, MASKED: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, ALIBI: tl.constexpr,
    D_HEAD: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One tile of keys, `first` to `first + BLOCK_N`; `scale` and slopes are in base 2 already."""
    keys, channels = first + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    here = (keys < n_keys) if MASKED else (keys >= 0)
    inside = here[:, None] & (channels < D_HEAD)[None, :]
    offsets = keys.to(tl.int64)
    key = tl.load(k_at + offsets[:, None] * stride_ks + channels[None, :], mask=inside, other=0.0)
    scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale  # [BLOCK_M, BLOCK_N]
    if ALIBI:
        scores += bias_slope * (keys[None, :] - q_positions[:, None]).to(tl.float32)
    if MASKED:
        seen = here[None, :]
        if CAUSAL:
            seen = seen & (keys[None, :] <= q_positions[:, None])
        if WINDOWED:
            seen = seen & (keys[None, :] > q_positions[:, None] - window)
        scores = tl.where(seen, scores, float("-inf"))
    value = tl.load(v_at + offsets[:, None] * stride_vs + channels[None, :], mask=inside, other=0.0)
    return absorb(scores, value, best, total, mixed, PRECISION)


@triton.jit
def prefill_attention_kernel(
    q, k, v, out, lse, slopes, block_mask, q_starts, kv_starts, scale, window, n_heads, groups, n_queries, n_keys,
    stride_qb, stride_ql, stride_qh, stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh,
    stride_ob, stride_ol, stride_oh, mask_row,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr, ALIBI: tl.constexpr, SPARSE: tl.constexpr, PACKED: tl.constexpr,
    D_HEAD: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head: out like q, lse [B, H, L] or packed [T, H]."""
    block, head = tl.program_id(0), tl.program_id(1) % n_heads
    sequence = (tl.program_id(1) // n_heads).to(tl.int64)
    kv_head = (head // groups).to(tl.int64)
    q_first, k_first = sequence * stride_qb, sequence * stride_kb
    v_first, o_first = sequence * stride_vb, sequence * stride_ob
    lse_first = (sequence * n_heads + head) * n_queries
    if PACKED:
        q_from, k_from = tl.load(q_starts + sequence).to(tl.int64), tl.load(kv_starts + sequence).to(tl.int64)
        n_queries = (tl.load(q_starts + sequence + 1) - q_from).to(tl.int32)
        n_keys = (tl.load(kv_starts + sequence + 1) - k_from).to(tl.int32)
        q_first, k_first = q_from * stride_ql, k_from * stride_ks
        v_first, o_first = k_from * stride_vs, q_from * stride_ol
        lse_first = q_from * n_heads + head
    if block * BLOCK_M >= n_queries:
        return
    rows, channels = block * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    inside = (rows < n_queries)[:, None] & (channels < D_HEAD)[None, :]
    q_positions = rows + n_keys - n_queries  # the last query sees the last key
    q_at = q + q_first + head * stride_qh
    query = tl.load(q_at + rows.to(tl.int64)[:, None] * stride_ql + channels[None, :], mask=inside, other=0.0)
    k_at, v_at = k + k_first + kv_head * stride_kh, v + v_first + kv_head * stride_vh
    slope = tl.load(slopes + head) * LOG2_E if ALIBI else 0.0
    best = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    mixed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)

    # tiles [start, clear) and [full, stop) are masked, those between are seen whole by every query of the block
    lowest, highest = (
        block * BLOCK_M + n_keys - n_queries,
        tl.minimum((block + 1) * BLOCK_M, n_queries) + n_keys - n_queries,
    )
    stop, full = n_keys, (n_keys // BLOCK_N) * BLOCK_N
    if CAUSAL:
        stop = tl.minimum(n_keys, highest)
        full = tl.minimum(full, ((lowest + 1) // BLOCK_N) * BLOCK_N)
    start, clear = 0, 0
    if WINDOWED:
        start = (tl.maximum(lowest - window + 1, 0) // BLOCK_N) * BLOCK_N
        clear = tl.minimum(tl.cdiv(tl.maximum(highest - window, 0), BLOCK_N) * BLOCK_N, stop)
        clear = tl.maximum(clear, start)
        full = tl.maximum(full, clear)
    if SPARSE:
        for first in range(start, stop, BLOCK_N):
            if tl.load(block_mask + block * mask_row + first // BLOCK_N) != 0:
                best, total, mixed = _tile(
                    query, best, total, mixed, k_at, v_at, slope, q_positions, first, n_keys, scale, window, stride_ks,
                    stride_vs, True, CAUSAL, WINDOWED, ALIBI, D_HEAD, BLOCK_D, BLOCK_N, PRECISION,
                )  # fmt: skip
    else:
        if WINDOWED:
            for first in range(start, clear, BLOCK_N):
                best, total, mixed = _tile(
                    query, best, total, mixed, k_at, v_at, slope, q_positions, first, n_keys, scale, window, stride_ks,
                    stride_vs, True, CAUSAL, WINDOWED, ALIBI, D_HEAD, BLOCK_D, BLOCK_N, PRECISION,
                )  # fmt: skip
        for first in range(clear, full, BLOCK_N):
            best, total, mixed = _tile(
                query, best, total, mixed, k_at, v_at, slope, q_positions, first, n_keys, scale, window, stride_ks,
                stride_vs, False, CAUSAL, WINDOWED, ALIBI, D_HEAD, BLOCK_D, BLOCK_N, PRECISION,
            )  # fmt: skip
        for first in range(full, stop, BLOCK_N):
            best, total, mixed = _tile(
                query, best, total, mixed, k_at, v_at, slope, q_positions, first, n_keys, scale, window, stride_ks,
                stride_vs, True, CAUSAL, WINDOWED, ALIBI, D_HEAD, BLOCK_D, BLOCK_N, PRECISION,
            )  # fmt: skip
    found, row_lse = finish(best, total, mixed)
    o_at = out + o_first + head * stride_oh
    tl.store(
        o_at + rows.to(tl.int64)[:, None] * stride_ol + channels[None, :], found.to(out.dtype.element_ty), mask=inside
    )
    lse_rows = rows * n_heads if PACKED else rows
    tl.store(lse + lse_first + lse_rows, row_lse / LOG2_E, mask=rows < n_queries)


def prefill_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    alibi_slopes: torch.Tensor | None = None,
    q_starts: torch.Tensor | None = None,
    kv_starts: torch.Tensor | None = None,
    longest: int | None = None,
    block_mask: torch.Tensor | None = None,
    config: Config | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of new tokens; the last query stands at the last key, so more keys than queries are a cache before them.

    Parameters
    ----------
    q : [B, L, H, D], or [T, H, D] of sequences packed one after the other
    k, v : [B, S, K, D] or [T_kv, K, D], H a multiple of K
    window : a query sees itself and the `window - 1` tokens before it
    alibi_slopes : [H] fp32
    q_starts, kv_starts : [B + 1] where each packed sequence starts; `longest` is the most queries of any
    block_mask : [blocks of BLOCK_M queries, blocks of BLOCK_N keys] int8, 0 where a tile is left out

    Returns
    -------
    out like q, and the natural log-sum-exp fp32 [B, H, L] or [T, H]; 0 and -inf where a query sees no key

    Raises
    ------
    SpecError : shapes that do not fit
    """
    packed = q_starts is not None
    _check(q, k, v, q_starts, kv_starts, window)
    n_heads, d_head = q.shape[-2:]
    config = config or _fitting(q, d_head)
    lead = (0, *q.stride()) if packed else q.stride()
    k_strides, v_strides = ((0, *t.stride()) if packed else t.stride() for t in (k, v))
    n_sequences = len(q_starts) - 1 if q_starts is not None else q.shape[0]
    n_queries = (longest or q.shape[0]) if packed else q.shape[1]
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    out_strides = (0, *out.stride()) if packed else out.stride()
    lse_shape = q.shape[:2] if packed else (n_sequences, n_heads, n_queries)
    lse = torch.empty(lse_shape, dtype=torch.float32, device=q.device)
    grid = (cdiv(n_queries, config.blocks["BLOCK_M"]), n_sequences * n_heads)
    prefill_attention_kernel[grid](
        q, k, v, out, lse, alibi_slopes, block_mask, q_starts, kv_starts,
        (scale or d_head**-0.5) * math.log2(math.e), window or 0, n_heads, n_heads // k.shape[-2],
        n_queries, k.shape[0] if packed else k.shape[1],
        lead[0], lead[1], lead[2], k_strides[0], k_strides[1], k_strides[2], v_strides[0], v_strides[1], v_strides[2],
        out_strides[0], out_strides[1], out_strides[2], 0 if block_mask is None else block_mask.stride(0),
        CAUSAL=causal, WINDOWED=window is not None, ALIBI=alibi_slopes is not None, SPARSE=block_mask is not None,
        PACKED=packed, D_HEAD=d_head, BLOCK_D=max(next_power_of_2(d_head), 16), PRECISION="ieee",
        **config.blocks, num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip
    return out, lse


def _fitting(q: torch.Tensor, d_head: int) -> Config:
    known = configs("prefill_attention", device_target(q))
    return known[0] if d_head <= 128 else known[-1]


def _check(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    q_starts: torch.Tensor | None,
    kv_starts: torch.Tensor | None,
    window: int | None,
) -> None:
    want = 4 if q_starts is None else 3
    if q.dim() != want or k.shape != v.shape or k.dim() != want or q.shape[-1] != k.shape[-1]:
        raise SpecError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} are no attention of {want} dimensions"
        )
    if q.shape[-2] % k.shape[-2]:
        raise SpecError(f"{q.shape[-2]} query heads are no multiple of {k.shape[-2]} K/V heads")
    need_floats(q=q, k=k, v=v)
    if (q_starts is None) != (kv_starts is None):
        raise SpecError("packed sequences need both q_starts and kv_starts")
    if q_starts is None and k.shape[1] < q.shape[1]:
        raise SpecError(f"{q.shape[1]} queries need at least as many keys, not {k.shape[1]}")
    if any(t.stride(-1) != 1 for t in (q, k, v)):
        raise SpecError("the channels of a head must lie side by side; call .contiguous() first")
    if window is not None and window < 1:
        raise SpecError(f"a window of {window} tokens sees nothing; it must be at least 1")


def prefill_attention_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    alibi_slopes: torch.Tensor | None = None,
    seen: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in torch for [B, L, H, D]; `seen` [L, S] is what a block mask leaves."""
    n_new, n_keys, groups = q.shape[1], k.shape[1], q.shape[2] // k.shape[2]
    k, v = (t.repeat_interleave(groups, 2) for t in (k, v))
    scores = torch.einsum("blhd,bshd->bhls", q, k) * (scale or q.shape[-1] ** -0.5)
    at = torch.arange(n_keys - n_new, n_keys, device=q.device)[:, None]
    keys = torch.arange(n_keys, device=q.device)[None, :]
    if alibi_slopes is not None:
        scores = scores + alibi_slopes.to(scores)[:, None, None] * (keys - at)
    visible = torch.ones((n_new, n_keys), dtype=torch.bool, device=q.device) if seen is None else seen
    if causal:
        visible = visible & (keys <= at)
    if window is not None:
        visible = visible & (keys > at - window)
    scores = scores.masked_fill(~visible, -torch.inf)
    lse = scores.logsumexp(-1)
    shares = (scores - lse.masked_fill(lse == -torch.inf, 0.0)[..., None]).exp()
    return torch.einsum("bhls,bshd->blhd", shares, v), lse


def visited_tiles(n_new: int, n_keys: int, config: Config, *, causal: bool = True, window: int | None = None) -> int:
    """Tiles of one head that any query sees a key of: what the kernel goes through."""
    block_m, block_n = config.blocks["BLOCK_M"], config.blocks["BLOCK_N"]
    found = 0
    for block in range(cdiv(n_new, block_m)):
        lowest = block * block_m + n_keys - n_new
        highest = min((block + 1) * block_m, n_new) + n_keys - n_new
        stop = min(n_keys, highest) if causal else n_keys
        start = 0 if window is None else max(lowest - window + 1, 0) // block_n
        found += cdiv(stop, block_n) - start
    return found


def variants() -> Iterator[Variant]:
    """Every tuning for the heads it suits, and what changes the code: windows, ALiBi, packing, sparse blocks."""
    for target in TARGETS:
        known = configs("prefill_attention", target)
        for config in known[:-1]:
            yield _variant(target, config, 128, "causal")
        yield _variant(target, known[-1], 256, "causal")
        yield _variant(target, known[0], 64, "causal")
        yield _variant(target, known[0], 128, "window", WINDOWED=True)
        yield _variant(target, known[0], 128, "packed", PACKED=True)
        yield _variant(target, known[0], 128, "packed window", WINDOWED=True, PACKED=True)
        yield _variant(target, known[0], 128, "alibi", ALIBI=True)
        yield _variant(target, known[0], 128, "block-sparse", SPARSE=True)
        yield _variant(target, known[0], 128, "both ways", CAUSAL=False)


def _variant(target: Target, config: Config, d_head: int, name: str, **changed: bool) -> Variant:
    flags = {"CAUSAL": True, "WINDOWED": False, "ALIBI": False, "SPARSE": False, "PACKED": False} | changed
    constants = flags | {"D_HEAD": d_head, "BLOCK_D": d_head, "PRECISION": "ieee"} | config.blocks
    types = dict.fromkeys(("q", "k", "v", "out"), "*bf16") | {"lse": "*fp32", "slopes": "*fp32", "block_mask": "*i8"}
    return Variant(
        op="prefill_attention",
        name=f"bf16 d{d_head} {name} {config.blocks['BLOCK_M']}x{config.blocks['BLOCK_N']}",
        target=target,
        kernel=prefill_attention_kernel,
        types=types | {"q_starts": "*i32", "kv_starts": "*i32", "scale": "fp32"},
        constants=constants,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        unaligned=("window", "n_heads", "groups", "n_queries", "n_keys", "mask_row"),
        tensor_core=True,
        wgmma=config.blocks["BLOCK_M"] >= 64 * config.num_warps // 4,
    )


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """Causal prompts of one sequence or a few."""
    gpu = [(1, 4096, 32, 8, 128), (1, 16384, 32, 8, 128), (4, 4096, 64, 8, 128)]
    heads = ((4, 2, 32), (8, 2, 64), (8, 8, 64), (16, 8, 64))
    cpu = [(b, n, *some) for b in (1, 2, 4, 8) for n in (8, 16, 32, 64, 128) for some in heads]
    dtype, size = ("bf16", 2) if device == "cuda" else ("fp32", 4)
    for b, n, h, kv, d in gpu if device == "cuda" else cpu:
        work = attention_work(
            n_sequences=b, new_tokens=n, past_tokens=0, n_heads=h, n_kv_heads=kv, d_head=d,
            q_bytes=size, kv_bytes=size, out_bytes=size,
        )  # fmt: skip

        def prepare(
            device: Device, generator: torch.Generator, b: int = b, n: int = n, h: int = h, kv: int = kv, d: int = d
        ) -> Runs:
            kind = torch.bfloat16 if device == "cuda" else torch.float32
            q, k, v = (
                torch.randn((b, n, heads, d), generator=generator, device=device).to(kind) for heads in (h, kv, kv)
            )
            sdpa = torch.nn.functional.scaled_dot_product_attention
            mine = [t.transpose(1, 2) for t in (q, k, v)]
            return Runs(
                kernel=lambda: prefill_attention(q, k, v), torch=lambda: sdpa(*mine, is_causal=True, enable_gqa=h != kv)
            )

        shape = {"b": b, "l": n, "h": h, "k": kv, "d": d}
        yield BenchCase(op="prefill_attention", shape=shape, dtype=dtype, work=work, prepare=prepare)
