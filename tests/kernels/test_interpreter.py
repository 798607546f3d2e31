"""What is mended in Triton's interpreter, on kernels of a line or two."""

import pytest
import torch
import triton
import triton.language as tl
from shardwise.kernels import interpreter

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is no interpreter on a GPU")


@triton.jit
def _convert(x, out, n, BLOCK: tl.constexpr):  # noqa: N803
    lanes = tl.arange(0, BLOCK)
    value = tl.load(x + lanes, mask=lanes < n, other=0.0).to(tl.float32)
    tl.store(out + lanes, value.to(out.dtype.element_ty), mask=lanes < n)


@triton.jit
def _double(x):
    value = tl.load(x)
    tl.store(x, value + value)


@triton.jit
def _sum(x, out, BLOCK: tl.constexpr):  # noqa: N803
    tl.store(out, tl.sum(tl.load(x + tl.arange(0, BLOCK)), 0))


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_floats_round_to_the_nearest_even_as_torch_rounds_them(narrow, generator) -> None:
    x = torch.randn(123, generator=generator)
    there, back = torch.empty(123, dtype=narrow), torch.empty(123)
    with interpreter.counted() as counts:
        _convert[(1,)](x, there, 123, BLOCK=128)
    assert torch.equal(there.float(), x.to(narrow).float())
    assert (counts.load_bytes, counts.store_bytes) == (123 * 4, 123 * there.element_size())
    assert (counts.n_programs, counts.dot_flop) == (1, 0)
    _convert[(1,)](there, back, 123, BLOCK=128)
    assert torch.equal(back, there.float())


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_arithmetic_on_raw_bits_is_refused(narrow) -> None:
    x = torch.ones(4).to(narrow)
    with pytest.raises(Exception, match="would compute on raw bits"):
        _double[(1,)](x)
    with pytest.raises(Exception, match="would compute on raw bits"):
        _sum[(1,)](x, torch.empty(1), BLOCK=4)
