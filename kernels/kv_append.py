"""New keys and values written into the cache, contiguous or paged, in the cache's own format."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..hardware_specs.errors import SpecError
from ..models.ops import elementwise_work
from .bench_case import BenchCase, Device, Runs
from .launch import device_target, need_formats, next_power_of_2
from .variant import TARGETS, Variant, configs


@triton.jit
def kv_append_kernel(
    new_k, new_v, k, v, slots, table, k_scale, v_scale, n_tokens, n_kv_heads, page_size,
    stride_nb, stride_nl, stride_nk, stride_cb, stride_cs, stride_ck, stride_table,
    PAGED: tl.constexpr, SCALED: tl.constexpr, INTEGER: tl.constexpr, LARGEST: tl.constexpr, D_HEAD: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One head of one token; a slot below 0 is another chip's, and nothing is written."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    sequence, place = token // n_tokens, token % n_tokens
    slot = tl.load(slots + token).to(tl.int64)
    channels = tl.arange(0, BLOCK)
    here = channels < tl.where(slot >= 0, D_HEAD, 0)
    slot = tl.maximum(slot, 0)
    source = sequence * stride_nb + place * stride_nl + head * stride_nk + channels
    if PAGED:
        page = tl.load(table + sequence * stride_table + slot // page_size).to(tl.int64)
        target = page * stride_cb + (slot % page_size) * stride_cs + head * stride_ck + channels
    else:
        target = sequence * stride_cb + slot * stride_cs + head * stride_ck + channels
    key = tl.load(new_k + source, mask=here, other=0.0).to(tl.float32)
    value = tl.load(new_v + source, mask=here, other=0.0).to(tl.float32)
    if SCALED:
        key = tl.minimum(tl.maximum(key / tl.load(k_scale + head), -LARGEST), LARGEST)
        value = tl.minimum(tl.maximum(value / tl.load(v_scale + head), -LARGEST), LARGEST)
    if INTEGER:
        key = tl.where(key >= 0, tl.floor(key + 0.5), tl.ceil(key - 0.5))
        value = tl.where(value >= 0, tl.floor(value + 0.5), tl.ceil(value - 0.5))
    tl.store(k + target, key.to(k.dtype.element_ty), mask=here)
    tl.store(v + target, value.to(v.dtype.element_ty), mask=here)


def kv_append(
    new_k: torch.Tensor,
    new_v: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    slots: torch.Tensor,
    *,
    block_table: torch.Tensor | None = None,
    k_scale: torch.Tensor | None = None,
    v_scale: torch.Tensor | None = None,
) -> None:
    """Write in place.

    Parameters
    ----------
    new_k, new_v : [B, L, K, D]
    k, v : [B, S, K, D], or with a table [n_pages, page_size, K, D]
    slots : [B, L] position of each token in its sequence's cache, below 0 where another chip keeps it
    block_table : [B, max_pages] int32
    k_scale, v_scale : [K] fp32, where the cache holds int8 or fp8

    Raises
    ------
    SpecError : shapes and formats that do not fit
    """
    if (
        new_k.shape != new_v.shape
        or k.shape != v.shape
        or new_k.shape[2:] != k.shape[2:]
        or new_k.shape[:2] != slots.shape
    ):
        raise SpecError(
            f"new {tuple(new_k.shape)} and {tuple(new_v.shape)} at slots {tuple(slots.shape)} do not fit a cache "
            f"{tuple(k.shape)} and {tuple(v.shape)}"
        )
    narrow = k.dtype in (torch.int8, torch.float8_e4m3fn)
    if narrow != (k_scale is not None) or (k_scale is None) != (v_scale is None):
        raise SpecError(f"a cache of {k.dtype} {'needs' if narrow else 'takes no'} k_scale and v_scale")
    need_formats(k.device, k.dtype)
    new_k, new_v = new_k.contiguous(), new_v.contiguous()
    n_sequences, n_tokens, n_kv_heads, d_head = new_k.shape
    (config,) = configs("kv_append", device_target(k))
    kv_append_kernel[(n_sequences * n_tokens, n_kv_heads)](
        new_k, new_v, k, v, slots.contiguous(), block_table, k_scale, v_scale, n_tokens, n_kv_heads, k.shape[1],
        new_k.stride(0), new_k.stride(1), new_k.stride(2), k.stride(0), k.stride(1), k.stride(2),
        0 if block_table is None else block_table.stride(0),
        PAGED=block_table is not None, SCALED=narrow, INTEGER=k.dtype == torch.int8,
        LARGEST=127.0 if k.dtype == torch.int8 else 448.0, D_HEAD=d_head, BLOCK=next_power_of_2(d_head),
        num_warps=config.num_warps,
    )  # fmt: skip


def kv_append_reference(new: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """A contiguous cache with `new` written, in torch."""
    made = cache.clone()
    sequences, tokens = (slots >= 0).nonzero(as_tuple=True)
    made[sequences, slots[sequences, tokens].long()] = new[sequences, tokens].to(cache.dtype)
    return made


def variants() -> Iterator[Variant]:
    """Contiguous and paged caches, in the tokens' format and quantised."""
    for target in TARGETS:
        (config,) = configs("kv_append", target)
        kinds = [("bf16", "*bf16"), ("int8", "*i8")] + [("fp8", "*fp8e4nv")] * (target == "sm_90")
        for name, pointer in kinds:
            for paged in (False, True):
                yield Variant(
                    op="kv_append",
                    name=f"{name} d128 {'paged' if paged else 'contiguous'}",
                    target=target,
                    kernel=kv_append_kernel,
                    types={"new_k": "*bf16", "new_v": "*bf16", "k": pointer, "v": pointer, "slots": "*i64", "table": "*i32"}
                    | {"k_scale": "*fp32", "v_scale": "*fp32"},
                    constants={
                        "PAGED": paged, "SCALED": name != "bf16", "INTEGER": name == "int8",
                        "LARGEST": 127.0 if name == "int8" else 448.0, "D_HEAD": 128, "BLOCK": 128,
                    },
                    num_warps=config.num_warps,
                    unaligned=("n_tokens", "n_kv_heads", "stride_table"),
                )  # fmt: skip


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """A prompt's and a decode batch's tokens."""
    dtype, size = ("bf16", 2) if device == "cuda" else ("fp32", 4)
    for b, n in ((1, 4096), (256, 1)) if device == "cuda" else ((1, 64), (8, 1)):

        def prepare(device: Device, generator: torch.Generator, b: int = b, n: int = n) -> Runs:
            kind = torch.bfloat16 if device == "cuda" else torch.float32
            new = torch.randn((b, n, 8, 128), generator=generator, device=device).to(kind)
            k, v = (torch.zeros((b, n, 8, 128), dtype=kind, device=device) for _ in range(2))
            slots = torch.arange(n, device=device).expand(b, n)
            return Runs(kernel=lambda: kv_append(new, new, k, v, slots), torch=lambda: (k.copy_(new), v.copy_(new)))

        elements = b * n * 8 * 128
        work = elementwise_work(
            {"new_k": (elements, size), "new_v": (elements, size), "slots": (b * n, 8)},
            {"k": (elements, size), "v": (elements, size)},
        )
        yield BenchCase(
            op="kv_append", shape={"b": b, "l": n, "k": 8, "d": 128}, dtype=dtype, work=work, prepare=prepare
        )
