"""Triton's interpreter made exact, with the work of every kernel counted.

The interpreter keeps bf16 and fp8 as raw bits and computes on those bits, without a word. `install` puts torch's
conversions and fp32 products in their place, refuses arithmetic on raw bits, and counts what kernels really do.
``TRITON_INTERPRET=1`` must be set before the first kernel module is imported.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

_TORCH = {
    tl.bfloat16: torch.bfloat16,
    tl.float16: torch.float16,
    tl.float32: torch.float32,
    tl.float64: torch.float64,
    tl.float8e4nv: torch.float8_e4m3fn,
    tl.float8e5: torch.float8_e5m2,
}
_RAW = {tl.bfloat16, tl.float8e4nv, tl.float8e5, tl.float8e4b8, tl.float8e4b15, tl.float8e5b16}
# a GPU's conversion saturates at the largest e4m3 value; torch's gives NaN
_E4M3_MAX = 448.0
_Builder = interpreter.InterpreterBuilder
_Handle = interpreter.TensorHandle


@dataclass(slots=True)
class Counts:
    """What kernels did: flop of `tl.dot`, bytes loaded, stored and atomically updated, programs launched."""

    dot_flop: int = 0
    load_bytes: int = 0
    store_bytes: int = 0
    atomic_bytes: int = 0
    n_programs: int = 0


_total = Counts()


@contextmanager
def counted() -> Iterator[Counts]:
    """Count what the kernels launched inside do; the counts are final once the block ends."""
    before, found = replace(_total), Counts()
    yield found
    for name in Counts.__dataclass_fields__:
        setattr(found, name, getattr(_total, name) - getattr(before, name))


def _value(handle: Any) -> torch.Tensor:
    """What a handle means, as a torch tensor."""
    bits = torch.from_numpy(np.ascontiguousarray(handle.data))
    return bits.view(_TORCH[handle.dtype.scalar]) if handle.dtype.scalar in _RAW else bits


def _stored(value: torch.Tensor, dtype: Any) -> np.ndarray:
    """The interpreter's storage of a value."""
    if dtype == tl.float8e4nv:
        value = value.clamp(-_E4M3_MAX, _E4M3_MAX)
    value = value.to(_TORCH[dtype])
    if dtype not in _RAW:
        return value.numpy()
    return value.contiguous().view(torch.uint16 if dtype == tl.bfloat16 else torch.uint8).numpy()


_plain_cast, _plain_float_cast = _Builder.cast_impl, _Builder.create_fp_to_fp


def _cast(self: Any, source: Any, to: Any) -> Any:
    start, goal = source.dtype.scalar, to.scalar
    if start not in _RAW and goal not in _RAW:
        return _plain_cast(self, source, to)
    value = _value(source).to(torch.float32)
    if goal in _TORCH:
        return _Handle(_stored(value, goal), goal)
    return _Handle(value.numpy().astype(interpreter._get_np_dtype(to)), goal)


def _float_cast(self: Any, source: Any, to: Any, rounding: Any) -> Any:
    start, goal = source.dtype.scalar, to.scalar
    if start in _TORCH and goal in _TORCH:
        return _Handle(_stored(_value(source).to(torch.float32), goal), goal)
    return _plain_float_cast(self, source, to, rounding)


def _dot(self: Any, a: Any, b: Any, accumulator: Any, *_: Any) -> Any:
    _total.dot_flop += 2 * accumulator.data.size * a.data.shape[-1]
    wide = torch.float64 if a.dtype.is_int() else torch.float32
    product = torch.matmul(_value(a).to(wide), _value(b).to(wide)).numpy().astype(accumulator.data.dtype)
    return _Handle(product + accumulator.data, accumulator.dtype.scalar)


def _touched_bytes(pointers: Any, mask: Any) -> int:
    n_elements = int(np.broadcast_to(mask.data, pointers.data.shape).sum())
    return n_elements * (pointers.get_element_ty().primitive_bitwidth // 8)


def _counting(name: str, count: Callable[..., None]) -> Callable[..., Any]:
    plain = getattr(_Builder, name)

    def run(self: Any, *args: Any, **options: Any) -> Any:
        count(*args)
        return plain(self, *args, **options)

    return run


def _on_load(pointers: Any, mask: Any, *_: Any) -> None:
    _total.load_bytes += _touched_bytes(pointers, mask)


def _on_store(pointers: Any, _value: Any, mask: Any, *_: Any) -> None:
    _total.store_bytes += _touched_bytes(pointers, mask)


def _on_atomic(_op: Any, pointers: Any, _value: Any, mask: Any, *_: Any) -> None:
    _total.atomic_bytes += _touched_bytes(pointers, mask)


def _on_program(*_: Any) -> None:
    _total.n_programs += 1


def _refusing_raw(name: str) -> Callable[..., Any]:
    plain = getattr(_Builder, name)

    def run(self: Any, x: Any, *args: Any) -> Any:
        if x.dtype.scalar in _RAW:
            raise NotImplementedError(f"{name} on {x.dtype.scalar} would compute on raw bits; cast to float32 first")
        with np.errstate(all="ignore"):  # a GPU overflows to infinity without a word
            return plain(self, x, *args)

    return run


_plain_check = interpreter.ReduceScanOpInterface.check_tensor


def _check_reduced(self: Any, tensors: Any) -> None:
    for tensor in tensors:
        if tensor.dtype.scalar in _RAW:
            raise NotImplementedError(f"a reduction of {tensor.dtype.scalar} would compute on raw bits; cast it first")
    _plain_check(self, tensors)


_installed = False


def install() -> None:
    """Mend the interpreter of this process; once is enough and twice does no harm."""
    global _installed
    if _installed:
        return
    mended = {
        "cast_impl": _cast,
        "create_fp_to_fp": _float_cast,
        "create_dot": _dot,
        "create_masked_load": _counting("create_masked_load", _on_load),
        "create_masked_store": _counting("create_masked_store", _on_store),
        "create_atomic_rmw": _counting("create_atomic_rmw", _on_atomic),
        "set_grid_idx": _counting("set_grid_idx", _on_program),
        **{name: _refusing_raw(name) for name in ("binary_op", "unary_op", "ternary_op")},
    }
    for name, function in mended.items():
        setattr(_Builder, name, function)
    interpreter.ReduceScanOpInterface.check_tensor = _check_reduced
    _installed = True
