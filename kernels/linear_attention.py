"""Linear attention with a scalar decay a head and token, a chunk of tokens at a time (Mamba-2, RetNet, Lightning).

With a state S [d_key, d_value] a head: ``S = exp(decay) S + k v^T``, ``y = q S``. Within a chunk all pairs are one
masked matmul; between chunks the state carries what came before. One token on a kept state is a chunk that is not full.

References
----------
[Dao2024] section 6.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..hardware_specs.errors import SpecError
from ..models.ops import OpWork, linear_attention_flop
from .bench_case import BenchCase, Device, Runs
from .elementwise import LOG2_E
from .launch import cdiv, device_target
from .variant import TARGETS, Config, Variant, configs


@triton.jit
def linear_attention_kernel(
    q, k, v, decay, state, out, n_tokens, n_heads, n_key_heads, d_value,
    D_KEY: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Values of one head: q, k [B, L, G, D_KEY]; v, out [B, L, H, d_value]; decay [B, L, H]; state [B, H, D_KEY, d_value]."""
    number, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    sequence, head = number // n_heads, number % n_heads
    key_head = head // (n_heads // n_key_heads)
    keys, values = tl.arange(0, BLOCK_K), block * BLOCK_V + tl.arange(0, BLOCK_V)
    in_k, in_v, places = keys < D_KEY, values < d_value, tl.arange(0, CHUNK)
    state_at = state + (number * D_KEY + keys[:, None]) * d_value + values[None, :]
    carried = tl.load(state_at, mask=in_k[:, None] & in_v[None, :], other=0.0)  # [BLOCK_K, BLOCK_V]
    for start in range(0, n_tokens, CHUNK):
        token = sequence * n_tokens + start + places
        here = start + places < n_tokens
        key_at = (token * n_key_heads + key_head)[:, None] * D_KEY + keys[None, :]
        value_at = (token * n_heads + head)[:, None] * d_value + values[None, :]
        asked = tl.load(q + key_at, mask=here[:, None] & in_k[None, :], other=0.0)
        offered = tl.load(k + key_at, mask=here[:, None] & in_k[None, :], other=0.0)
        given = tl.load(v + value_at, mask=here[:, None] & in_v[None, :], other=0.0)
        lost = tl.load(decay + token * n_heads + head, mask=here, other=0.0).to(tl.float32) * LOG2_E
        since, whole = tl.cumsum(lost, 0), tl.sum(lost, 0)  # log2 of what is left of the state at each token, and after
        seen = places[:, None] >= places[None, :]
        # above the diagonal a difference is positive and could overflow: masked before the power, not after
        left = tl.exp2(tl.where(seen, since[:, None] - since[None, :], float("-inf")))
        pairs = tl.dot(asked, tl.trans(offered), input_precision="ieee") * left
        result = tl.dot(asked, carried.to(asked.dtype), input_precision="ieee") * tl.exp2(since)[:, None]
        result = tl.dot(pairs.to(given.dtype), given, result, input_precision="ieee")
        tl.store(out + value_at, result.to(out.dtype.element_ty), mask=here[:, None] & in_v[None, :])
        faded = (given.to(tl.float32) * tl.exp2(whole - since)[:, None]).to(given.dtype)
        carried = tl.dot(tl.trans(offered), faded, carried * tl.exp2(whole), input_precision="ieee")
    tl.store(state_at, carried, mask=in_k[:, None] & in_v[None, :])


def linear_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    decay: torch.Tensor,
    state: torch.Tensor,
    *,
    config: Config | None = None,
) -> torch.Tensor:
    """The outputs [B, L, H, d_value]; `state` is read and then holds what the last token left.

    Parameters
    ----------
    q, k : [B, L, G, d_key], a head of them for every H / G heads of v
    v : [B, L, H, d_value]
    decay : [B, L, H] fp32, the natural logarithm of what each token leaves of the state, at most 0
    state : [B, H, d_key, d_value] fp32

    Raises
    ------
    SpecError : shapes or dtypes that do not fit
    """
    _check(q, k, v, decay, state)
    (n_sequences, n_tokens, n_heads, d_value), (n_key_heads, d_key) = v.shape, q.shape[2:]
    config = config or _fitting(v, n_tokens)
    out = torch.empty_like(v, memory_format=torch.contiguous_format)
    linear_attention_kernel[(n_sequences * n_heads, cdiv(d_value, config.blocks["BLOCK_V"]))](
        q.contiguous(), k.contiguous(), v.contiguous(), decay.contiguous(), state, out, n_tokens, n_heads, n_key_heads,
        d_value, D_KEY=d_key, BLOCK_K=max(16, triton.next_power_of_2(d_key)), **config.blocks,
        num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip
    return out


def _fitting(v: torch.Tensor, n_tokens: int) -> Config:
    """The first tuning whose chunk the tokens fill, else the last."""
    known = configs("linear_attention", device_target(v))
    return next((c for c in known if c.blocks["CHUNK"] <= n_tokens), known[-1])


def _check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, decay: torch.Tensor, state: torch.Tensor) -> None:
    if q.dim() != 4 or q.shape != k.shape or v.dim() != 4 or q.shape[:2] != v.shape[:2] or v.shape[2] % q.shape[2]:
        raise SpecError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} do not fit; "
            "q and k are [B, L, G, d_key], v is [B, L, H, d_value], G divides H"
        )
    (n_sequences, _, n_heads, d_value), d_key = v.shape, q.shape[3]
    if decay.shape != v.shape[:3]:
        raise SpecError(f"decay {tuple(decay.shape)} must be {tuple(v.shape[:3])}, one a head and token")
    if (
        state.shape != (n_sequences, n_heads, d_key, d_value)
        or state.dtype != torch.float32
        or not state.is_contiguous()
    ):
        raise SpecError(
            f"the state is {tuple(state.shape)} {state.dtype}; it must be contiguous "
            f"{(n_sequences, n_heads, d_key, d_value)} float32"
        )


def linear_attention_reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, decay: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The outputs and the state after them: the recurrence, token by token, in torch."""
    repeats = v.shape[2] // q.shape[2]
    q, k = q.repeat_interleave(repeats, 2), k.repeat_interleave(repeats, 2)
    made = []
    for t in range(v.shape[1]):
        state = state * decay[:, t, :, None, None].exp() + k[:, t, :, :, None] * v[:, t, :, None]
        made.append((q[:, t, :, None] @ state)[:, :, 0])
    return torch.stack(made, 1), state


def linear_attention_work(
    n_sequences: int, n_tokens: int, n_heads: int, n_key_heads: int, d_key: int, d_value: int, chunk: int, size: int
) -> OpWork:
    """Work in chunks, each operand read once; `size` bytes an element, decay and state fp32."""
    tokens = n_sequences * n_tokens
    asked, given = tokens * n_key_heads * d_key * size, tokens * n_heads * d_value * size
    states = n_sequences * n_heads * d_key * d_value * 4
    return OpWork(
        flop=linear_attention_flop(tokens, n_heads, d_key, d_value, chunk),
        reads={"q": asked, "k": asked, "v": given, "decay": tokens * n_heads * 4, "state": states},
        writes={"out": given, "state": states},
    )


def rereads(n_heads: int, n_key_heads: int, d_value: int, config: Config) -> dict[str, float]:
    """Keys, queries and decays are loaded by every block of values, keys and queries by every head that shares them."""
    blocks = cdiv(d_value, config.blocks["BLOCK_V"])
    return {"q": blocks * n_heads / n_key_heads, "k": blocks * n_heads / n_key_heads, "decay": blocks}


def variants() -> Iterator[Variant]:
    """Mamba-2's heads and Lightning's."""
    for target in TARGETS:
        for config in configs("linear_attention", target):
            for d_key in (64, 128):
                yield Variant(
                    op="linear_attention",
                    name=f"bf16 d{d_key} chunk {config.blocks['CHUNK']}",
                    target=target,
                    kernel=linear_attention_kernel,
                    types=dict.fromkeys(("q", "k", "v", "out"), "*bf16") | {"decay": "*fp32", "state": "*fp32"},
                    constants={"D_KEY": d_key, "BLOCK_K": d_key} | config.blocks,
                    num_warps=config.num_warps,
                    num_stages=config.num_stages,
                    unaligned=("n_tokens", "n_heads", "n_key_heads"),
                    tensor_core=True,
                    wgmma=config.blocks["CHUNK"] >= 64 * config.num_warps // 4,
                )


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """A prompt and a decode batch of a Mamba-2 block."""
    dtype, size = ("bf16", 2) if device == "cuda" else ("fp32", 4)
    for b, n, h, d in ((1, 4096, 128, 64), (256, 1, 128, 64)) if device == "cuda" else ((1, 16, 4, 64), (4, 1, 4, 64)):

        def prepare(device: Device, generator: torch.Generator, b: int = b, n: int = n, h: int = h, d: int = d) -> Runs:
            kind = torch.bfloat16 if device == "cuda" else torch.float32
            q, k = (torch.randn((b, n, 1, 128), generator=generator, device=device).to(kind) for _ in range(2))
            v = torch.randn((b, n, h, d), generator=generator, device=device).to(kind)
            decay = -torch.rand((b, n, h), generator=generator, device=device)
            state = torch.zeros((b, h, 128, d), device=device)
            wide = [t.float() for t in (q, k, v)]
            return Runs(
                kernel=lambda: linear_attention(q, k, v, decay, state),
                torch=lambda: linear_attention_reference(*wide, decay, state),
            )

        yield BenchCase(
            op="linear_attention",
            shape={"b": b, "l": n, "h": h, "d_key": 128, "d_value": d},
            dtype=dtype,
            work=linear_attention_work(b, n, h, 1, 128, d, 1, size),
            prepare=prepare,
        )
