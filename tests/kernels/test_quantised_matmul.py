import pytest
import torch
from shardwise.hardware_specs.errors import SpecError
from shardwise.kernels.interpreter import counted
from shardwise.kernels.quantised_matmul import (
    dequantise_weight,
    quantise_weight,
    quantised_matmul,
    quantised_matmul_reference,
    rereads,
)
from shardwise.kernels.split_k import partial_sums, skinny_matmul, stream_k_matmul
from shardwise.kernels.variant import Config
from shardwise.models.ops import matmul_work

_SMALL = Config({"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_K": 32}, 4, 2)
# bits of the stored result, and of weights that are widened to it
_ROUNDING = {torch.float32: 2**-18, torch.float16: 2**-9, torch.bfloat16: 2**-6}


def _random(generator, device, dtype, *shape):
    return torch.randn(shape, generator=generator).to(dtype).to(device)


def _close(got, want, dtype) -> None:
    assert (got.double() - want).abs().max() <= _ROUNDING[dtype] * want.abs().max()


@pytest.mark.parametrize(("kind", "worst"), [("int8", 0.5 / 127), ("int4", 0.5 / 7), ("fp8", 2**-4)])
def test_a_quantised_weight_is_as_close_as_its_bits_allow(kind, worst, generator) -> None:
    w = torch.randn((128, 33), generator=generator)
    error = (dequantise_weight(quantise_weight(w, kind)) - w).abs()
    assert (error <= worst * w.abs().amax(0) * (1 + 1e-6)).all()


@pytest.mark.parametrize("dtype", list(_ROUNDING), ids=str)
@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 64, 17), (17, 192, 123)])
def test_narrow_weights_widened_equal_the_reference(m, k, n, kind, dtype, device, generator) -> None:
    x = _random(generator, device, dtype, m, k)
    w = quantise_weight(_random(generator, device, torch.float32, k, n), kind)
    _close(quantised_matmul(x, w, config=_SMALL), quantised_matmul_reference(x, w), dtype)


@pytest.mark.parametrize(("kind", "dtype"), [("int8", torch.int8), ("fp8", torch.float8_e4m3fn)])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 33, 17), (17, 123, 65), (1, 1000, 1)])
def test_narrow_by_narrow_equals_the_reference(m, k, n, kind, dtype, device, generator) -> None:
    wide = _random(generator, device, torch.float32, m, k)
    scales = wide.abs().amax(1) / 100.0
    x = (wide / scales[:, None]).round().to(dtype)
    w = quantise_weight(_random(generator, device, torch.float32, k, n), kind)
    got = quantised_matmul(x, w, x_scales=scales, out_dtype=torch.float32, config=_SMALL)
    _close(got, quantised_matmul_reference(x, w, x_scales=scales), torch.float32)


@pytest.mark.parametrize(("kind", "w_bytes"), [("int8", 1.0), ("int4", 0.5)])
def test_narrow_weights_are_read_in_their_few_bytes(kind, w_bytes, device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    m, k, n = 32, 128, 64
    x = _random(generator, device, torch.bfloat16, m, k)
    w = quantise_weight(_random(generator, device, torch.float32, k, n), kind)
    with counted() as counts:
        quantised_matmul(x, w, config=_SMALL)
    work = matmul_work(m, k, n, x_bytes=2, w_bytes=w_bytes, out_bytes=2)
    again = rereads(m, n, _SMALL)
    assert counts.dot_flop == work.flop
    assert counts.store_bytes == work.writes["out"]
    assert counts.load_bytes == work.loaded_bytes(again) + w.scales.nbytes * again["w_scales"]


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_weight_that_lies_transposed_is_read_as_it_stands(kind, device, generator) -> None:
    x, w = _random(generator, device, torch.float32, 3, 64), _random(generator, device, torch.float32, 20, 64)
    held = quantise_weight(w.T, kind, group=32)
    _close(quantised_matmul(x, held, config=_SMALL), quantised_matmul_reference(x, held), torch.float32)


@pytest.mark.parametrize(("kind", "dtype"), [("w8a8", torch.int8), ("fp8", torch.float8_e4m3fn)])
def test_narrow_products_move_a_byte_an_element(kind, dtype, device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    m, k, n = 32, 64, 64
    x, scales = _random(generator, device, torch.float32, m, k).to(dtype), torch.ones(m, device=device)
    w = quantise_weight(_random(generator, device, torch.float32, k, n), "int8" if kind == "w8a8" else kind)
    with counted() as counts:
        quantised_matmul(x, w, x_scales=scales, config=_SMALL)
    work, again = matmul_work(m, k, n, x_bytes=1, w_bytes=1, out_bytes=2), rereads(m, n, _SMALL)
    assert counts.dot_flop == work.flop
    assert counts.store_bytes == work.writes["out"]
    assert counts.load_bytes == work.loaded_bytes(again) + n * 4 * again["w_scales"] + m * 4 * again["x_scales"]


@pytest.mark.parametrize("dtype", list(_ROUNDING), ids=str)
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (17, 123, 65), (1, 1000, 33)])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_k_in_parts_equals_k_as_a_whole(m, k, n, parts, dtype, device, generator) -> None:
    x, w = _random(generator, device, dtype, m, k), _random(generator, device, dtype, k, n)
    want = x.double() @ w.double()
    _close(skinny_matmul(x, w, n_splits=parts, config=_SMALL), want, dtype)
    _close(stream_k_matmul(x, w, n_programs=parts, config=_SMALL), want, dtype)


@pytest.mark.parametrize(("run", "parts"), [(skinny_matmul, {"n_splits": 2}), (stream_k_matmul, {"n_programs": 3})])
def test_parts_do_the_work_of_the_whole_and_write_and_read_their_sums(run, parts, device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    m, k, n = 16, 128, 64
    x, w = _random(generator, device, torch.bfloat16, m, k), _random(generator, device, torch.bfloat16, k, n)
    with counted() as counts:
        run(x, w, config=_SMALL, **parts)
    work = matmul_work(m, k, n, x_bytes=2, w_bytes=2, out_bytes=2)
    sums = 4 * partial_sums(m, n, *parts.values(), _SMALL, aligned=run is skinny_matmul)
    assert counts.dot_flop == work.flop
    assert counts.load_bytes == work.loaded_bytes(rereads(m, n, _SMALL)) + sums
    assert counts.store_bytes == work.writes["out"] + sums


def test_bad_input_is_refused_with_the_numbers(device, generator) -> None:
    w = quantise_weight(_random(generator, device, torch.float32, 64, 8), "int8")
    with pytest.raises(SpecError, match="does not multiply a weight of 64 rows"):
        quantised_matmul(torch.zeros(2, 32, device=device), w)
    with pytest.raises(SpecError, match="int8 and fp8 need x_scales"):
        quantised_matmul(torch.zeros(2, 64, device=device, dtype=torch.int8), w)
    with pytest.raises(SpecError, match="63 rows do not divide into groups of 64"):
        quantise_weight(torch.zeros(63, 8), "int4")
    with pytest.raises(SpecError, match="a group of 24 rows must be a power of two, at least 32"):
        quantise_weight(torch.zeros(48, 8), "int4", group=24)
    with pytest.raises(SpecError, match="no quantised weight 'int3'"):
        quantise_weight(torch.zeros(64, 8), "int3")
