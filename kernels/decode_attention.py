"""Attention of one new token a sequence over its cache, the cache split over programs and merged by log-sum-exp.

The query heads that share a K/V head are the rows of one matrix product, so the cache is read once for all of them. The
merge is the same whether the parts are splits of one chip or chips that hold parts of the context.
"""

import math
from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..hardware_specs.errors import SpecError
from ..models.ops import attention_work, elementwise_work
from .bench_case import BenchCase, Device, Runs
from .elementwise import LOG2_E
from .launch import cdiv, device_target, need_floats, need_formats, next_power_of_2
from .softmax import absorb, finish
from .variant import TARGETS, Config, Target, Variant, configs

# the least rows a tensor core multiplies
_LEAST_ROWS = 16
# and those of a warpgroup
_MANY_ROWS = 64
_INTERPRETER_PROGRAMS = 132
# positions a page of the bench's paged caches
_PAGE = 16


@triton.jit
def decode_attention_kernel(
    q, k, v, table, lengths, k_scale, v_scale, slopes, parts, part_lse, scale, window, groups, split_tokens,
    stride_qb, stride_qh, stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh, stride_table, page_size,
    PAGED: tl.constexpr, SCALED: tl.constexpr, WINDOWED: tl.constexpr, ALIBI: tl.constexpr, D_HEAD: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One split of one K/V head of one sequence: parts [B, H, splits, D] fp32 and their base-2 log-sum-exp."""
    sequence, kv_head, split = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2)
    n_kv_heads, n_splits = tl.num_programs(1), tl.num_programs(2)
    length = tl.load(lengths + sequence)
    rows, channels = tl.arange(0, BLOCK_G), tl.arange(0, BLOCK_D)
    heads = kv_head * groups + rows
    real, wide = rows < groups, channels < D_HEAD
    query = tl.load(
        q + sequence * stride_qb + heads[:, None] * stride_qh + channels[None, :],
        mask=real[:, None] & wide[None, :], other=0.0,
    )  # fmt: skip
    slope = tl.load(slopes + heads, mask=real, other=0.0) * LOG2_E if ALIBI else tl.zeros((BLOCK_G,), tl.float32)
    key_scale = tl.load(k_scale + kv_head) * scale if SCALED else scale
    best = tl.full((BLOCK_G,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_G,), tl.float32)
    mixed = tl.zeros((BLOCK_G, BLOCK_D), tl.float32)
    first = split * split_tokens
    stop = tl.minimum(first + split_tokens, length)
    if WINDOWED:
        first = tl.maximum(first, length - window)
    for start in range(first, stop, BLOCK_N):
        positions = start + tl.arange(0, BLOCK_N)
        here = positions < stop
        if PAGED:
            pages = tl.load(table + sequence * stride_table + positions // page_size, mask=here, other=0).to(tl.int64)
            within = (positions % page_size).to(tl.int64)
            k_row, v_row = pages * stride_kb + within * stride_ks, pages * stride_vb + within * stride_vs
        else:
            slots = positions.to(tl.int64)
            k_row, v_row = sequence * stride_kb + slots * stride_ks, sequence * stride_vb + slots * stride_vs
        inside = here[:, None] & wide[None, :]
        key = tl.load(k + (k_row + kv_head * stride_kh)[:, None] + channels[None, :], mask=inside, other=0.0)
        value = tl.load(v + (v_row + kv_head * stride_vh)[:, None] + channels[None, :], mask=inside, other=0.0)
        if SCALED:
            key, value = key.to(tl.float32).to(query.dtype), value.to(tl.float32).to(query.dtype)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * key_scale  # [BLOCK_G, BLOCK_N]
        if ALIBI:
            scores += slope[:, None] * (positions - length + 1)[None, :].to(tl.float32)
        scores = tl.where(here[None, :], scores, float("-inf"))
        best, total, mixed = absorb(scores, value, best, total, mixed, PRECISION)
    found, lse = finish(best, total, mixed)
    if SCALED:
        found *= tl.load(v_scale + kv_head)
    part = (sequence * n_kv_heads * groups + heads) * n_splits + split
    tl.store(parts + part[:, None] * D_HEAD + channels[None, :], found, mask=real[:, None] & wide[None, :])
    tl.store(part_lse + part, lse, mask=real)


@triton.jit
def merge_kernel(
    parts, part_lse, out, lse, n_parts, stride_part, stride_row, lse_stride_part, lse_stride_row,
    D_HEAD: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """One row: parts [n_parts, D] weighed by their shares of the whole softmax; log-sum-exps are in base 2."""
    row = tl.program_id(0).to(tl.int64)
    numbers, channels = tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_D)
    real, wide = numbers < n_parts, channels < D_HEAD
    known = tl.load(part_lse + row * lse_stride_row + numbers * lse_stride_part, mask=real, other=float("-inf"))
    best = tl.max(known, 0)
    shares = tl.exp2(known - tl.where(best == float("-inf"), 0.0, best))
    total = tl.sum(shares, 0)
    whole = tl.where(total > 0.0, total, 1.0)
    # a part that saw no key counts nothing, whatever lies in its memory
    counts = real & (known > float("-inf"))
    values = tl.load(
        parts + row * stride_row + numbers[:, None] * stride_part + channels[None, :],
        mask=counts[:, None] & wide[None, :], other=0.0,
    ).to(tl.float32)  # fmt: skip
    mixed = tl.sum(values * shares[:, None], 0) / whole
    tl.store(out + row * D_HEAD + channels, mixed.to(out.dtype.element_ty), mask=wide)
    tl.store(lse + row, tl.where(total > 0.0, best + tl.log2(whole), float("-inf")) / LOG2_E)


def decode_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: torch.Tensor,
    *,
    block_table: torch.Tensor | None = None,
    k_scale: torch.Tensor | None = None,
    v_scale: torch.Tensor | None = None,
    scale: float | None = None,
    window: int | None = None,
    alibi_slopes: torch.Tensor | None = None,
    n_splits: int | None = None,
    config: Config | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of the newest token of each sequence, which is the last of its cache.

    Parameters
    ----------
    q : [B, H, D]
    k, v : [B, S, K, D], or with a table [n_pages, page_size, K, D]; H a multiple of K
    lengths : [B] int32 positions in the cache
    block_table : [B, max_pages] int32
    k_scale, v_scale : [K] fp32, where the cache holds int8 or fp8
    n_splits : parts a sequence's cache is cut into; enough to fill the chip unless given

    Returns
    -------
    out [B, H, D], natural log-sum-exp fp32 [B, H]

    Raises
    ------
    SpecError : shapes and dtypes that do not fit
    """
    _check(q, k, v, k_scale, v_scale)
    (n_sequences, n_heads, d_head), n_kv_heads = q.shape, k.shape[2]
    config = config or _fitting(q, n_heads // n_kv_heads)
    longest = k.shape[1] if block_table is None else k.shape[1] * block_table.shape[1]
    splits = n_splits or _enough_splits(q, n_sequences * n_kv_heads, longest, config)
    groups, block_n = n_heads // n_kv_heads, config.blocks["BLOCK_N"]
    parts = torch.empty((n_sequences, n_heads, splits, d_head), dtype=torch.float32, device=q.device)
    part_lse = torch.empty((n_sequences, n_heads, splits), dtype=torch.float32, device=q.device)
    decode_attention_kernel[(n_sequences, n_kv_heads, splits)](
        q, k, v, block_table, lengths, k_scale, v_scale, alibi_slopes, parts, part_lse,
        (scale or d_head**-0.5) * math.log2(math.e), window or 0, groups, cdiv(cdiv(longest, splits), block_n) * block_n,
        q.stride(0), q.stride(1), k.stride(0), k.stride(1), k.stride(2), v.stride(0), v.stride(1), v.stride(2),
        0 if block_table is None else block_table.stride(0), k.shape[1],
        PAGED=block_table is not None, SCALED=k_scale is not None, WINDOWED=window is not None,
        ALIBI=alibi_slopes is not None, D_HEAD=d_head, BLOCK_D=max(next_power_of_2(d_head), 16),
        BLOCK_G=max(next_power_of_2(groups), _LEAST_ROWS), PRECISION="ieee",
        **config.blocks, num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip
    return _merge(parts.movedim(2, 0), part_lse.movedim(2, 0), q.dtype)


def merge_partials(outs: torch.Tensor, lses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over all of a context from attention over its parts, as chips that share a context hold them.

    Parameters
    ----------
    outs : [n_parts, B, H, D], each normalised on its own
    lses : [n_parts, B, H] natural log-sum-exp, -inf where a part saw no key
    """
    if outs.shape[:-1] != lses.shape:
        raise SpecError(f"parts {tuple(outs.shape)} and their log-sum-exps {tuple(lses.shape)} do not match")
    return _merge(outs, lses * math.log2(math.e), outs.dtype)


def _merge(outs: torch.Tensor, lses: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """`merge_partials` of base-2 log-sum-exps."""
    n_parts, n_sequences, n_heads, d_head = outs.shape
    out = torch.empty((n_sequences, n_heads, d_head), dtype=dtype, device=outs.device)
    lse = torch.empty((n_sequences, n_heads), dtype=torch.float32, device=outs.device)
    if outs.stride(1) != n_heads * outs.stride(2) or lses.stride(1) != n_heads * lses.stride(2):
        outs, lses = outs.contiguous(), lses.contiguous()
    merge_kernel[(n_sequences * n_heads,)](
        outs, lses, out, lse, n_parts, outs.stride(0), outs.stride(2), lses.stride(0), lses.stride(2),
        D_HEAD=d_head, BLOCK_D=next_power_of_2(d_head), BLOCK_P=next_power_of_2(n_parts), num_warps=4,
    )  # fmt: skip
    return out, lse


def _fitting(q: torch.Tensor, groups: int) -> Config:
    known = configs("decode_attention", device_target(q))
    return known[0] if groups < _MANY_ROWS else known[-1]


def _enough_splits(q: torch.Tensor, n_programs: int, longest: int, config: Config) -> int:
    """Splits that give every multiprocessor two programs, none with less than a tile."""
    n_multiprocessors = _INTERPRETER_PROGRAMS
    if q.device.type == "cuda":
        n_multiprocessors = torch.cuda.get_device_properties(q.device).multi_processor_count
    return max(1, min(cdiv(2 * n_multiprocessors, n_programs), cdiv(longest, config.blocks["BLOCK_N"])))


def _check(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, k_scale: torch.Tensor | None, v_scale: torch.Tensor | None
) -> None:
    if q.dim() != 3 or k.dim() != 4 or k.shape != v.shape or q.shape[-1] != k.shape[-1]:
        raise SpecError(f"q {tuple(q.shape)} must be [B, H, D], k {tuple(k.shape)} and v {tuple(v.shape)} [B, S, K, D]")
    if q.shape[1] % k.shape[2]:
        raise SpecError(f"{q.shape[1]} query heads are no multiple of {k.shape[2]} K/V heads")
    if (k.dtype != q.dtype) != (k_scale is not None) or (k_scale is None) != (v_scale is None):
        raise SpecError(f"a cache of {k.dtype} under queries of {q.dtype} needs k_scale and v_scale, and no other does")
    need_formats(k.device, k.dtype)
    if k_scale is None:
        need_floats(q=q, k=k, v=v)
    if any(t.stride(-1) != 1 for t in (q, k, v)):
        raise SpecError("the channels of a head must lie side by side; call .contiguous() first")


def decode_attention_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: torch.Tensor,
    *,
    window: int | None = None,
    alibi_slopes: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in torch over a contiguous cache in the queries' format."""
    groups = q.shape[1] // k.shape[2]
    k, v = (t.repeat_interleave(groups, 2) for t in (k, v))
    scores = torch.einsum("bhd,bshd->bhs", q, k) * q.shape[-1] ** -0.5
    positions = torch.arange(k.shape[1], device=q.device)
    behind = positions - (lengths[:, None] - 1)  # [B, S], 0 for the newest
    if alibi_slopes is not None:
        scores = scores + alibi_slopes.to(scores)[:, None] * behind[:, None]
    seen = (behind <= 0) if window is None else (behind <= 0) & (behind > -window)
    scores = scores.masked_fill(~seen[:, None], -torch.inf)
    return torch.einsum("bhs,bshd->bhd", scores.softmax(-1), v), scores.logsumexp(-1)


def variants() -> Iterator[Variant]:
    """Contiguous and paged caches, many queries a K/V head, quantised caches, windows, and the merge."""
    for target in TARGETS:
        known = configs("decode_attention", target)
        yield _variant(target, known[0], "bf16", "contiguous")
        yield _variant(target, known[0], "bf16", "paged", PAGED=True)
        for rows in (64, 128):
            yield _variant(target, known[-1], "bf16", f"{rows} queries a head", rows)
        yield _variant(target, known[0], "int8", "paged", PAGED=True, SCALED=True)
        if target == "sm_90":
            yield _variant(target, known[0], "fp8", "paged", PAGED=True, SCALED=True)
        yield _variant(target, known[0], "bf16", "paged window alibi", PAGED=True, WINDOWED=True, ALIBI=True)
        yield Variant(
            op="decode_attention",
            name="merge of 64 parts",
            target=target,
            kernel=merge_kernel,
            types={"parts": "*fp32", "part_lse": "*fp32", "out": "*bf16", "lse": "*fp32"},
            constants={"D_HEAD": 128, "BLOCK_D": 128, "BLOCK_P": 64},
            num_warps=4,
            unaligned=("n_parts", "lse_stride_part", "lse_stride_row"),
        )


def _variant(target: Target, config: Config, cache: str, name: str, rows: int = 16, **changed: bool) -> Variant:
    flags = {"PAGED": False, "SCALED": False, "WINDOWED": False, "ALIBI": False} | changed
    held = {"bf16": "*bf16", "int8": "*i8", "fp8": "*fp8e4nv"}[cache]
    types = {"q": "*bf16", "k": held, "v": held, "table": "*i32", "lengths": "*i32", "scale": "fp32"}
    floats = ("k_scale", "v_scale", "slopes", "parts", "part_lse")
    return Variant(
        op="decode_attention",
        name=f"{cache} d128 {name} {config.blocks['BLOCK_N']}",
        target=target,
        kernel=decode_attention_kernel,
        types=types | dict.fromkeys(floats, "*fp32"),
        constants=flags | {"D_HEAD": 128, "BLOCK_D": 128, "BLOCK_G": rows, "PRECISION": "ieee"} | config.blocks,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        unaligned=("window", "groups", "stride_table"),
        tensor_core=True,
        wgmma=rows >= _MANY_ROWS,
    )


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """Full caches, contiguous, paged and paged in int8; and the merge of parts."""
    gpu = [(64, 4096, 32, 8, 128), (1, 131072, 64, 8, 128), (256, 2048, 8, 1, 128)]
    heads = ((4, 2, 32), (8, 2, 64), (16, 8, 64), (8, 8, 64))
    cpu = [(b, s, *some) for b in (1, 2, 4, 8) for s in (16, 64, 128, 256, 512) for some in heads]
    shapes = gpu if device == "cuda" else cpu
    for sizes in shapes:
        yield _bench_case(device, "contiguous", *sizes)
    for cache in ("paged", "paged int8"):
        yield _bench_case(device, cache, *shapes[-1])
    yield _merge_case(device, *((8, 64, 32, 128) if device == "cuda" else (8, 8, 8, 64)))


def _bench_case(device: Device, cache: str, b: int, s: int, h: int, kv: int, d: int) -> BenchCase:
    dtype, kind, size = ("bf16", torch.bfloat16, 2) if device == "cuda" else ("fp32", torch.float32, 4)
    is_narrow, is_paged = cache.endswith("int8"), cache.startswith("paged")

    def prepare(device: Device, generator: torch.Generator) -> Runs:
        q = torch.randn((b, h, d), generator=generator, device=device).to(kind)
        held = (b * s // _PAGE, _PAGE, kv, d) if is_paged else (b, s, kv, d)
        k, v = (torch.randn(held, generator=generator, device=device).to(kind) for _ in range(2))
        scale = torch.full((kv,), 0.03, device=device) if is_narrow else None
        if scale is not None:
            k, v = ((t / 0.03).round().clamp(-127, 127).to(torch.int8) for t in (k, v))
        dealt = torch.randperm(b * s // _PAGE, generator=generator, device=device) if is_paged else None
        table = None if dealt is None else dealt.int().view(b, -1)
        lengths = torch.full((b,), s, dtype=torch.int32, device=device)

        def by_torch() -> torch.Tensor:
            flat = [t if table is None else t[table].flatten(1, 2) for t in (k, v)]
            wide = [t if scale is None else (t * scale[:, None]).to(kind) for t in flat]
            keys, values = (t.transpose(1, 2) for t in wide)
            return torch.nn.functional.scaled_dot_product_attention(q[:, :, None], keys, values, enable_gqa=h != kv)

        return Runs(
            kernel=lambda: decode_attention(q, k, v, lengths, block_table=table, k_scale=scale, v_scale=scale),
            torch=by_torch,
        )

    work = attention_work(
        n_sequences=b, new_tokens=1, past_tokens=s - 1, n_heads=h, n_kv_heads=kv, d_head=d,
        q_bytes=size, kv_bytes=1 if is_narrow else size, out_bytes=size,
    )  # fmt: skip
    op = f"decode_attention {cache}" if is_paged else "decode_attention"
    return BenchCase(op=op, shape={"b": b, "s": s, "h": h, "k": kv, "d": d}, dtype=dtype, work=work, prepare=prepare)


def _merge_case(device: Device, n_parts: int, b: int, h: int, d: int) -> BenchCase:
    def prepare(device: Device, generator: torch.Generator) -> Runs:
        outs = torch.randn((n_parts, b, h, d), generator=generator, device=device)
        lses = torch.randn((n_parts, b, h), generator=generator, device=device)
        return Runs(kernel=lambda: merge_partials(outs, lses), torch=lambda: (outs * lses.softmax(0)[..., None]).sum(0))

    rows = b * h
    reads = {"outs": (n_parts * rows * d, 4), "lses": (n_parts * rows, 4)}
    work = elementwise_work(reads, {"out": (rows * d, 4), "lse": (rows, 4)})
    shape = {"parts": n_parts, "b": b, "h": h, "d": d}
    return BenchCase(op="decode_attention merge", shape=shape, dtype="fp32", work=work, prepare=prepare)
