import pytest
import torch
from shardwise.hardware_specs.errors import SpecError
from shardwise.kernels.decode_attention import decode_attention, decode_attention_reference, merge_partials
from shardwise.kernels.interpreter import counted
from shardwise.kernels.variant import Config
from shardwise.models.ops import attention_flop

_SMALL = Config({"BLOCK_N": 16}, 4, 2)
# results are means of values around 1: rounding of the stored result, and of the shares
_ROUNDING = {torch.float32: 2**-18, torch.float16: 2**-9, torch.bfloat16: 2**-6}


def _inputs(generator, device, dtype, lengths, h, k, d):
    b, s = len(lengths), max(lengths)
    shapes = ((b, h, d), (b, s, k, d), (b, s, k, d))
    made = [torch.randn(shape, generator=generator).to(dtype).to(device) for shape in shapes]
    return (*made, torch.tensor(lengths, dtype=torch.int32).to(device))


def _paged(cache, lengths, page_size, generator):
    """The cache in pages dealt out at random; pages no sequence has hold NaN."""
    b, s, k, d = cache.shape
    pages = -(-s // page_size)
    table = torch.randperm(2 * b * pages, generator=generator)[: b * pages].view(b, pages)
    memory = torch.full((2 * b * pages, page_size, k, d), float("nan"), dtype=cache.dtype)
    for i in range(b):
        for position in range(int(lengths[i])):
            memory[table[i, position // page_size], position % page_size] = cache[i, position].cpu()
    return memory.to(cache.device), table.to(torch.int32).to(cache.device)


def _close(got, want, dtype) -> None:
    assert (got[0].double() - want[0]).abs().max() <= _ROUNDING[dtype] * max(want[0].abs().max(), 1.0)
    torch.testing.assert_close(got[1].double(), want[1], atol=2**-6 if dtype != torch.float32 else 2**-18, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("lengths", "heads"),
    [
        pytest.param([1], (1, 1, 64), id="one token"),
        pytest.param([17, 123, 64], (8, 2, 64), id="grouped queries"),
        pytest.param([1, 100], (6, 1, 80), id="multiquery, odd heads"),
        pytest.param([33], (2, 2, 128), id="multihead"),
        pytest.param([1000], (1, 1, 32), id="a thousand tokens"),
    ],
)
@pytest.mark.parametrize("n_splits", [1, 3])
def test_contiguous_caches_equal_the_reference(lengths, heads, n_splits, dtype, device, generator) -> None:
    q, k, v, lens = _inputs(generator, device, dtype, lengths, *heads)
    got = decode_attention(q, k, v, lens, n_splits=n_splits, config=_SMALL)
    _close(got, decode_attention_reference(q.double(), k.double(), v.double(), lens), dtype)


@pytest.mark.parametrize("page_size", [1, 5, 16])
@pytest.mark.parametrize(
    "options",
    [{}, {"window": 20}, {"alibi_slopes": torch.tensor([0.5, 0.25, 0.1, 0.05])}],
    ids=["full", "window", "alibi"],
)
def test_paged_caches_equal_contiguous_ones(page_size, options, device, generator) -> None:
    q, k, v, lens = _inputs(generator, device, torch.float32, [7, 50], 4, 2, 32)
    options = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in options.items()}
    state = generator.get_state()
    k_pages, table = _paged(k, lens, page_size, generator)
    generator.set_state(state)
    v_pages, _ = _paged(v, lens, page_size, generator)
    got = decode_attention(q, k_pages, v_pages, lens, block_table=table, config=_SMALL, n_splits=2, **options)
    _close(got, decode_attention_reference(q.double(), k.double(), v.double(), lens, **options), torch.float32)


@pytest.mark.parametrize("page_size", [None, 5])
@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn], ids=str)
def test_quantised_caches_equal_what_they_stand_for(kind, page_size, device, generator) -> None:
    q, k, v, lens = _inputs(generator, device, torch.float16, [40, 21], 4, 2, 32)
    scales = [t.float().abs().amax((0, 1, 3)) / 120.0 for t in (k, v)]
    held = [
        (t.float() / s[None, None, :, None]).round().clamp(-127, 127).to(kind)
        for t, s in zip((k, v), scales, strict=True)
    ]
    caches, table = held, None
    if page_size:
        b, s, heads, d = held[0].shape
        pages = -(-s // page_size)
        table = torch.randperm(b * pages, generator=generator).to(torch.int32).view(b, pages).to(device)
        caches = [torch.zeros((b * pages, page_size, heads, d), device=device).to(kind) for _ in range(2)]
        at = torch.arange(s, device=device)
        for memory, cache in zip(caches, held, strict=True):
            memory[table[:, at // page_size].long(), at % page_size] = cache
    got = decode_attention(
        q, *caches, lens, block_table=table, k_scale=scales[0], v_scale=scales[1], config=_SMALL, n_splits=2
    )
    meant = [h.double() * s.double()[None, None, :, None] for h, s in zip(held, scales, strict=True)]
    _close(got, decode_attention_reference(q.double(), *meant, lens), torch.float16)


def test_parts_of_a_context_merge_to_the_whole_and_empty_ones_count_nothing(device, generator) -> None:
    q, k, v, lens = _inputs(generator, device, torch.float32, [60, 60], 4, 2, 32)
    parts = []
    for piece in (slice(0, 13), slice(13, 60)):
        n = torch.full((2,), piece.stop - piece.start, dtype=torch.int32, device=device)
        parts.append(decode_attention(q, k[:, piece], v[:, piece], n, config=_SMALL))
    parts.append((torch.full_like(parts[0][0], float("nan")), torch.full_like(parts[0][1], -torch.inf)))
    got = merge_partials(torch.stack([out for out, _ in parts]), torch.stack([lse for _, lse in parts]))
    _close(got, decode_attention_reference(q.double(), k.double(), v.double(), lens), torch.float32)


def test_the_cache_is_read_once_for_all_heads_that_share_it(device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    b, s, h, kv, d, splits = 2, 64, 32, 2, 32, 2
    q, k, v, lens = _inputs(generator, device, torch.bfloat16, [s] * b, h, kv, d)
    with counted() as counts:
        decode_attention(q, k, v, lens, n_splits=splits, config=_SMALL)
    cache, queries, partial = 2 * b * s * kv * d * 2, b * h * d * 2, b * h * splits * (d + 1) * 4
    # every split loads its queries and its sequence's length; the merge reads what the splits wrote
    assert counts.load_bytes == cache + splits * (queries + b * kv * 4) + partial
    assert counts.store_bytes == partial + queries + b * h * 4
    assert counts.dot_flop == attention_flop(b * h * s, d)


def test_bad_input_is_refused_with_the_numbers(device) -> None:
    q, k = torch.zeros(1, 3, 16, device=device), torch.zeros(1, 4, 2, 16, device=device)
    lens = torch.ones(1, dtype=torch.int32, device=device)
    with pytest.raises(SpecError, match="3 query heads are no multiple of 2"):
        decode_attention(q, k, k, lens)
    with pytest.raises(SpecError, match=r"int8 under queries of torch\.float32 needs k_scale"):
        decode_attention(q, k[:, :, :1].to(torch.int8), k[:, :, :1].to(torch.int8), lens)
