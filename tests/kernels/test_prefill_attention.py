import pytest
import torch
from shardwise.hardware_specs.errors import SpecError
from shardwise.kernels.interpreter import counted
from shardwise.kernels.prefill_attention import (
    prefill_attention,
    prefill_attention_reference,
    visited_tiles,
)
from shardwise.kernels.variant import Config
from shardwise.models.ops import attention_flop, attention_work

_SMALL = Config({"BLOCK_M": 32, "BLOCK_N": 16}, 4, 2)
# results are means of values around 1, so rounding them is half a unit at 2; shares are rounded to the format too
_ROUNDING = {torch.float32: 2**-18, torch.float16: 2**-9, torch.bfloat16: 2**-6}


def _qkv(generator, device, dtype, b, n_new, n_keys, h, k, d):
    shapes = ((b, n_new, h, d), (b, n_keys, k, d), (b, n_keys, k, d))
    return [torch.randn(shape, generator=generator).to(dtype).to(device) for shape in shapes]


def _check(got, want, dtype) -> None:
    assert (got[0].double() - want[0]).abs().max() <= _ROUNDING[dtype] * max(want[0].abs().max(), 1.0)
    torch.testing.assert_close(got[1].double(), want[1], atol=2**-6 if dtype != torch.float32 else 2**-18, rtol=0)


def _same(generator, device, dtype, shape, **options) -> None:
    q, k, v = _qkv(generator, device, dtype, *shape)
    got = prefill_attention(q, k, v, config=_SMALL, **options)
    _check(got, prefill_attention_reference(q.double(), k.double(), v.double(), **options), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((1, 1, 1, 1, 1, 64), id="one token"),
        pytest.param((2, 17, 17, 4, 2, 64), id="grouped queries"),
        pytest.param((1, 65, 123, 3, 1, 80), id="multiquery over a cache, odd heads"),
        pytest.param((1, 33, 33, 2, 2, 128), id="multihead"),
        pytest.param((1, 17, 1000, 1, 1, 32), id="a chunk over a thousand tokens"),
    ],
)
def test_prompts_and_chunks_equal_the_reference(shape, dtype, device, generator) -> None:
    _same(generator, device, dtype, shape)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"causal": False}, id="both ways"),
        pytest.param({"window": 1}, id="itself alone"),
        pytest.param({"window": 20}, id="window"),
        pytest.param({"window": 1000}, id="window beyond the start"),
    ],
)
def test_reach_equals_the_reference(options, device, generator) -> None:
    _same(generator, device, torch.float32, (1, 70, 90, 2, 1, 32), **options)


def test_alibi_equals_the_reference(device, generator) -> None:
    slopes = torch.rand(4, generator=generator).to(device)
    _same(generator, device, torch.float32, (1, 40, 50, 4, 2, 32), alibi_slopes=slopes)


def test_packed_sequences_of_many_lengths_equal_each_alone(device, generator) -> None:
    news, pasts = (1, 40, 17), (5, 0, 30)
    singles = [
        _qkv(generator, device, torch.float32, 1, n, n + past, 4, 2, 32) for n, past in zip(news, pasts, strict=True)
    ]
    starts = [
        torch.tensor([0, *torch.tensor([s[i].shape[1] for s in singles]).cumsum(0).tolist()], dtype=torch.int32).to(
            device
        )
        for i in (0, 1)
    ]
    q, k, v = (torch.cat([s[i][0] for s in singles]) for i in range(3))
    out, lse = prefill_attention(q, k, v, q_starts=starts[0], kv_starts=starts[1], longest=max(news), config=_SMALL)
    for i, single in enumerate(singles):
        rows = slice(int(starts[0][i]), int(starts[0][i + 1]))
        want = prefill_attention_reference(*(t.double() for t in single))
        _check((out[None, rows], lse[rows].T[None]), want, torch.float32)


def test_tiles_left_out_are_not_seen_and_rows_without_keys_are_zero(device, generator) -> None:
    q, k, v = _qkv(generator, device, torch.float32, 1, 64, 64, 2, 1, 32)
    mask = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 1]], dtype=torch.int8).to(device)
    mask_rows = mask.bool().repeat_interleave(32, 0).repeat_interleave(16, 1)
    got = prefill_attention(q, k, v, block_mask=mask, config=_SMALL)
    _check(got, prefill_attention_reference(q.double(), k.double(), v.double(), seen=mask_rows), torch.float32)
    nothing = prefill_attention(q, k, v, block_mask=torch.zeros_like(mask), config=_SMALL)
    assert (nothing[0] == 0).all()
    assert (nothing[1] == -torch.inf).all()


def test_tiles_left_out_cost_nothing(device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    q, k, v = _qkv(generator, device, torch.bfloat16, 1, 64, 64, 4, 2, 32)
    mask = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 1]], dtype=torch.int8)
    with counted() as counts:
        prefill_attention(q, k, v, block_mask=mask, config=_SMALL)
    # the first block of queries stands before the last two tiles of keys
    assert counts.dot_flop == attention_flop(4 * 3 * 32 * 16, 32)


@pytest.mark.parametrize("window", [None, 32])
@pytest.mark.parametrize(("n_new", "n_keys"), [(64, 64), (32, 128)])
def test_the_work_done_is_that_of_the_tiles_seen(n_new, n_keys, window, device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    h, kv, d = 4, 2, 32
    q, k, v = _qkv(generator, device, torch.bfloat16, 1, n_new, n_keys, h, kv, d)
    with counted() as counts:
        prefill_attention(q, k, v, window=window, config=_SMALL)
    tiles = h * visited_tiles(n_new, n_keys, _SMALL, window=window)
    work = attention_work(
        n_sequences=1, new_tokens=n_new, past_tokens=n_keys - n_new, n_heads=h, n_kv_heads=kv, d_head=d,
        q_bytes=2, kv_bytes=2, out_bytes=2,
    )  # fmt: skip
    assert counts.dot_flop == attention_flop(tiles * 32 * 16, d)
    # a tile's keys and values are read once for every query head and block of queries that sees them
    reread = tiles * 16 * d * 2 / work.reads["k"]
    assert counts.load_bytes == work.loaded_bytes({"k": reread, "v": reread})
    assert counts.store_bytes == work.writes["out"] + n_new * h * 4  # and one log-sum-exp a query


def test_bad_input_is_refused_with_the_numbers(device) -> None:
    q = torch.zeros(1, 4, 3, 16, device=device)
    k = torch.zeros(1, 4, 2, 16, device=device)
    with pytest.raises(SpecError, match="3 query heads are no multiple of 2"):
        prefill_attention(q, k, k)
    with pytest.raises(SpecError, match="4 queries need at least as many keys, not 2"):
        prefill_attention(q, k[:, :2, :1], k[:, :2, :1])
    with pytest.raises(SpecError, match=r"q is torch\.float32, k is torch\.float16"):
        prefill_attention(q, k[:, :, :1].half(), k[:, :, :1].half())
    with pytest.raises(SpecError, match="a window of 0"):
        prefill_attention(q, k[:, :, :1], k[:, :, :1], window=0)
