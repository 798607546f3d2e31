import pytest
import torch
from shardwise.hardware_specs.errors import SpecError
from shardwise.kernels.interpreter import counted
from shardwise.kernels.matmul import matmul, matmul_reference, rereads
from shardwise.kernels.variant import Config
from shardwise.models.ops import matmul_work

_SMALL = Config({"BLOCK_M": 32, "BLOCK_N": 32, "BLOCK_K": 32, "GROUP_M": 2}, 4, 2)
# bits of a stored result: half a unit in the last place of the largest value, twice for what is fused
_ROUNDING = {torch.float32: 2**-20, torch.float16: 2**-10, torch.bfloat16: 2**-7}


def _random(generator, device, dtype, *shape):
    return torch.randn(shape, generator=generator).to(dtype).to(device)


def _close(got, want, dtype) -> None:
    assert (got.double() - want.double()).abs().max() <= _ROUNDING[dtype] * want.double().abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (17, 123, 65), (1, 1000, 33), (123, 17, 70)], ids=str)
def test_odd_shapes_equal_the_reference(shape, dtype, device, generator) -> None:
    m, k, n = shape
    x, w = _random(generator, device, dtype, m, k), _random(generator, device, dtype, k, n)
    _close(matmul(x, w, config=_SMALL), matmul_reference(x.double(), w.double()), dtype)


@pytest.mark.parametrize("activation", [None, "gelu", "relu", "silu"])
@pytest.mark.parametrize("gated", [False, True])
def test_epilogues_equal_the_reference(activation, gated, device, generator) -> None:
    x = _random(generator, device, torch.bfloat16, 33, 64)
    w = _random(generator, device, torch.bfloat16, *([2] if gated else []), 64, 47)
    residual = _random(generator, device, torch.bfloat16, 33, 47)
    bias = None if gated else _random(generator, device, torch.bfloat16, 47)
    got = matmul(x, w, bias=bias, activation=activation, residual=residual, gated=gated, config=_SMALL)
    want = matmul_reference(
        x.double(), w.double(), bias=None if bias is None else bias.double(), activation=activation,
        residual=residual.double(), gated=gated,
    )  # fmt: skip
    _close(got, want, torch.bfloat16)


def test_a_transposed_weight_needs_no_copy(device, generator) -> None:
    x, w = _random(generator, device, torch.float32, 20, 40), _random(generator, device, torch.float32, 50, 40)
    _close(matmul(x, w.T, config=_SMALL), x.double() @ w.T.double(), torch.float32)


@pytest.mark.parametrize("gated", [False, True])
def test_the_work_done_is_the_work_priced(gated, device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    m, k, n = 64, 96, 128
    x = _random(generator, device, torch.bfloat16, m, k)
    w = _random(generator, device, torch.bfloat16, *([2] if gated else []), k, n)
    with counted() as counts:
        matmul(x, w, gated=gated, activation="silu" if gated else None, config=_SMALL)
    halves = 2 if gated else 1
    work = matmul_work(m, k, n * halves, x_bytes=2, w_bytes=2, out_bytes=2)
    assert counts.dot_flop == work.flop
    assert counts.store_bytes == work.writes["out"] / halves
    assert counts.load_bytes == work.loaded_bytes(rereads(m, n, _SMALL))


def test_bad_input_is_refused_with_the_numbers(device) -> None:
    x, w = torch.zeros(4, 8, device=device), torch.zeros(7, 5, device=device)
    with pytest.raises(SpecError, match=r"\(4, 8\) and w \(7, 5\) do not multiply"):
        matmul(x, w)
    with pytest.raises(SpecError, match=r"x is torch\.float32, w is torch\.float16"):
        matmul(x, torch.zeros(8, 5, device=device, dtype=torch.float16))
    with pytest.raises(SpecError, match="no activation 'tanh'"):
        matmul(x, torch.zeros(8, 5, device=device), activation="tanh")
