import pytest
import torch
from shardwise.hardware_specs.errors import SpecError
from shardwise.kernels.interpreter import counted
from shardwise.kernels.kv_append import kv_append, kv_append_reference
from shardwise.kernels.quantise import dequantise, quantise, quantise_reference, rereads
from shardwise.kernels.variant import Config
from shardwise.models.ops import elementwise_work

_BLOCK = Config({"BLOCK": 64}, 4, 1)
_NARROW = pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn], ids=str)


def _random(generator, device, dtype, *shape):
    return torch.randn(shape, generator=generator).to(dtype).to(device)


@_NARROW
@pytest.mark.parametrize("n", [1, 17, 123, 1000])
def test_rows_are_rounded_as_the_reference_rounds_them(n, dtype, device, generator) -> None:
    x = _random(generator, device, torch.bfloat16, 3, n)
    got, want = quantise(x, dtype, config=_BLOCK), quantise_reference(x, dtype)
    torch.testing.assert_close(got[1], want[1], rtol=2**-22, atol=0)
    # a scale that differs in its last bit may tip a value over: one unit of int8, one step of fp8
    apart = (dequantise(*got) - dequantise(*want)).abs()
    assert (apart <= got[1][:, None] * (1.0 if dtype == torch.int8 else 32.0)).all()
    assert (apart > got[1][:, None] * 2**-10).float().mean() <= 0.01
    step = 0.5 / 127 if dtype == torch.int8 else 2**-4
    assert ((dequantise(*got) - x.float()).abs() <= step * x.float().abs().amax(-1, keepdim=True) * 1.001).all()


@_NARROW
def test_given_scales_are_kept_and_what_is_too_large_saturates(dtype, device, generator) -> None:
    x, scales = _random(generator, device, torch.float32, 2, 40) * 1e4, torch.ones(2, device=device)
    values, kept = quantise(x, dtype, scales=scales, config=_BLOCK)
    assert kept is scales or torch.equal(kept, scales)
    assert torch.equal(values.float(), quantise_reference(x, dtype, scales=scales)[0].float())


def test_quantising_reads_a_row_twice_and_writes_it_once(device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    x = _random(generator, device, torch.bfloat16, 4, 128)
    with counted() as counts:
        quantise(x, torch.int8, config=_BLOCK)
    work = elementwise_work({"x": (512, 2)}, {"out": (512, 1), "scales": (4, 4)})
    assert counts.load_bytes == work.loaded_bytes(rereads())
    assert counts.store_bytes == sum(work.writes.values())


def test_tokens_land_in_their_slots_and_nowhere_else(device, generator) -> None:
    new = [_random(generator, device, torch.float32, 2, 3, 2, 20) for _ in range(2)]
    k, v = (_random(generator, device, torch.float32, 2, 9, 2, 20) for _ in range(2))
    slots = torch.tensor([[0, 8, -1], [4, -1, 5]], device=device)
    want = [kv_append_reference(n, cache, slots) for n, cache in zip(new, (k, v), strict=True)]
    kv_append(*new, k, v, slots)
    assert torch.equal(k, want[0])
    assert torch.equal(v, want[1])


def test_a_paged_cache_is_written_through_its_table(device, generator) -> None:
    new = [_random(generator, device, torch.float32, 1, 4, 1, 16) for _ in range(2)]
    k, v = (torch.zeros(5, 3, 1, 16, device=device) for _ in range(2))
    table = torch.tensor([[4, 1]], dtype=torch.int32, device=device)
    kv_append(*new, k, v, torch.tensor([[1, 2, 3, 5]], device=device), block_table=table)
    for cache, tokens in ((k, new[0]), (v, new[1])):
        want = torch.zeros_like(cache)
        want[4, 1], want[4, 2], want[1, 0], want[1, 2] = tokens[0]
        assert torch.equal(cache, want)


def test_a_token_is_read_and_written_once(device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    new, cache = (_random(generator, device, torch.bfloat16, 2, 4, 2, 32) for _ in range(2))
    slots = torch.arange(4).expand(2, 4)
    with counted() as counts:
        kv_append(new, new, cache, cache.clone(), slots)
    elements = (new.numel(), 2)
    work = elementwise_work({"k": elements, "v": elements, "slots": (8, 8)}, {"k": elements, "v": elements})
    # every head of a token looks for its slot
    assert counts.load_bytes == work.loaded_bytes({"slots": 2})
    assert counts.store_bytes == sum(work.writes.values())


@_NARROW
def test_a_narrow_cache_holds_what_quantising_gives(dtype, device, generator) -> None:
    new = _random(generator, device, torch.float32, 1, 2, 3, 16)
    scale = torch.tensor([0.01, 0.02, 0.04], device=device)
    k, v = (torch.zeros((1, 2, 3, 16), device=device).to(dtype) for _ in range(2))
    kv_append(new, new, k, v, torch.tensor([[0, 1]], device=device), k_scale=scale, v_scale=scale)
    want, _ = quantise_reference(new, dtype, scales=scale.expand(1, 2, 3))
    assert torch.equal(k.float(), want.float())
    assert torch.equal(v.float(), want.float())


def test_bad_input_is_refused_with_the_numbers(device) -> None:
    x = torch.zeros(2, 4, device=device)
    with pytest.raises(SpecError, match=r"nothing is quantised to torch\.int16"):
        quantise(x, torch.int16)
    with pytest.raises(SpecError, match=r"scales \(3,\) must be one a row of x \(2, 4\)"):
        quantise(x, torch.int8, scales=torch.ones(3, device=device))
    cache = torch.zeros(1, 4, 1, 16, device=device)
    with pytest.raises(SpecError, match="do not fit a cache"):
        kv_append(cache, cache, cache, cache, torch.zeros(1, 3, device=device))
    narrow = cache.to(torch.int8)
    with pytest.raises(SpecError, match=r"a cache of torch\.int8 needs k_scale"):
        kv_append(cache, cache, narrow, narrow, torch.zeros(1, 4, device=device))
