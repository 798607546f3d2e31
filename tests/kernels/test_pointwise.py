import pytest
import torch
from shardwise.hardware_specs.errors import SpecError
from shardwise.kernels.activation import activate, activate_reference
from shardwise.kernels.interpreter import counted
from shardwise.kernels.norm import norm, norm_reference, norm_statistics, rereads
from shardwise.kernels.rope import plain_frequencies, rotate, rotate_reference, turn_table
from shardwise.kernels.variant import Config
from shardwise.models.ops import elementwise_work

# half a unit in the last place of the stored result, twice for what fp32 arithmetic before it leaves
_ROUNDING = {torch.float32: 2**-20, torch.float16: 2**-10, torch.bfloat16: 2**-7}
_DTYPES = pytest.mark.parametrize("dtype", list(_ROUNDING), ids=str)
_BLOCK = Config({"BLOCK": 64}, 4, 1)


def _random(generator, device, dtype, *shape):
    return torch.randn(shape, generator=generator).to(dtype).to(device)


def _close(got, want, dtype) -> None:
    assert (got.double() - want).abs().max() <= _ROUNDING[dtype] * max(want.abs().max(), 1.0)


@_DTYPES
@pytest.mark.parametrize("kind", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("n", [1, 17, 123, 1000])
def test_norms_of_odd_rows_equal_the_reference(n, kind, dtype, device, generator) -> None:
    if n == 1 and kind == "layernorm":
        pytest.skip("a row of one is its own mean: what is left is rounding")
    x, residual = _random(generator, device, dtype, 3, n), _random(generator, device, dtype, 3, n)
    weight = _random(generator, device, dtype, 2 if kind == "layernorm" else 1, n)
    out, summed = norm(x, weight, kind=kind, residual=residual, config=_BLOCK)
    whole = x.double() + residual.double()
    _close(summed, whole, dtype)
    _close(out, norm_reference(whole, weight.double(), kind=kind), dtype)


@pytest.mark.parametrize("kind", ["rmsnorm", "layernorm"])
def test_a_norm_over_chips_equals_the_whole(kind, device, generator) -> None:
    x, weight = _random(generator, device, torch.float32, 2, 5, 96), _random(generator, device, torch.float32, 2, 96)
    weight = weight if kind == "layernorm" else weight[:1]
    parts = x.chunk(3, -1)
    known = sum(norm_statistics(part, kind=kind, config=_BLOCK) for part in parts)
    made = [
        norm(part, w, kind=kind, known=known, n_whole=96, config=_BLOCK)[0]
        for part, w in zip(parts, weight.chunk(3, -1), strict=True)
    ]
    _close(torch.cat(made, -1), norm_reference(x.double(), weight.double(), kind=kind), torch.float32)


def test_a_norm_reads_its_row_twice_and_writes_it_once(device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    rows, n = 4, 256
    x, weight = _random(generator, device, torch.bfloat16, rows, n), torch.ones((1, n), dtype=torch.bfloat16)
    with counted() as counts:
        norm(x, weight, kind="rmsnorm", config=_BLOCK)
    work = elementwise_work({"x": (rows * n, 2), "weight": (n, 2)}, {"out": (rows * n, 2)})
    assert counts.load_bytes == work.loaded_bytes(rereads() | {"weight": rows})
    assert counts.store_bytes == work.writes["out"]


@_DTYPES
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("name", ["gelu", "relu", "silu"])
def test_activations_equal_the_reference(name, gated, dtype, device, generator) -> None:
    x = _random(generator, device, dtype, *([2] if gated else []), 3, 123)
    _close(activate(x, name, gated=gated, config=_BLOCK), activate_reference(x.double(), name, gated=gated), dtype)


def test_a_gated_activation_reads_both_halves_once(device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    x = _random(generator, device, torch.bfloat16, 2, 4, 64)
    with counted() as counts:
        activate(x, "silu", gated=True, config=_BLOCK)
    assert (counts.load_bytes, counts.store_bytes) == (x.nbytes, x.nbytes // 2)


@_DTYPES
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("d_head", "d_rotated"), [(64, 64), (80, 80), (96, 32)])
def test_rotations_equal_the_reference(d_head, d_rotated, interleaved, dtype, device, generator) -> None:
    wide = _random(generator, device, dtype, 2, 5, 6, d_head)
    q, k = wide[:, :, :4], wide[:, :, 4:]
    at = torch.randint(0, 100, (2, 5), generator=generator).to(device)
    turns = plain_frequencies(d_rotated, 10000.0, device)
    made = rotate(q, k, at, turn_table(turns, 100), interleaved=interleaved)
    for got, x in zip(made, (q, k), strict=True):
        _close(got, rotate_reference(x.double(), at, turns, interleaved=interleaved), dtype)


def test_a_rotation_reads_and_writes_each_head_once(device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    b, n, h, kv, d = 1, 4, 4, 2, 64
    q, k = (
        _random(generator, device, torch.bfloat16, b, n, h, d),
        _random(generator, device, torch.bfloat16, b, n, kv, d),
    )
    table = turn_table(plain_frequencies(d, 10000.0), n)
    with counted() as counts:
        rotate(q, k, torch.arange(n).expand(b, n), table)
    reads = {"q": (q.numel(), 2), "k": (k.numel(), 2), "positions": (b * n, 8), "table": (n * d, 4)}
    work = elementwise_work(reads, {"q_out": (q.numel(), 2), "k_out": (k.numel(), 2)})
    assert counts.load_bytes == work.loaded_bytes({"positions": h + kv, "table": h + kv})
    assert counts.store_bytes == sum(work.writes.values())


def test_bad_input_is_refused_with_the_numbers(device) -> None:
    x = torch.zeros(2, 8, device=device)
    with pytest.raises(SpecError, match=r"weight \(1, 7\) must be \[1 or 2, 8\]"):
        norm(x, torch.zeros(1, 7, device=device), kind="rmsnorm")
    with pytest.raises(SpecError, match="no activation 'tanh'"):
        activate(x, "tanh", gated=False)
    with pytest.raises(SpecError, match="the table turns 10 channels, a head has 8"):
        rotate(
            x.view(1, 2, 1, 8), x.view(1, 2, 1, 8), torch.zeros(1, 2, device=device), torch.zeros(5, 10, device=device)
        )
