"""The activation function of a feed-forward part, gated or not, element by element."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch.nn.functional import gelu, relu, silu

from ..hardware_specs.errors import SpecError
from ..models.ops import elementwise_work
from .bench_case import BenchCase, Device, Runs
from .elementwise import apply_activation
from .launch import cdiv, device_target
from .variant import TARGETS, Config, Variant, configs

_TORCH = {"gelu": lambda x: gelu(x, approximate="tanh"), "relu": relu, "silu": silu}


@triton.jit
def activation_kernel(x, out, n, ACTIVATION: tl.constexpr, GATED: tl.constexpr, BLOCK: tl.constexpr):
    """`out[i] = activation(x[i])`, gated times `x[n + i]`."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = at < n
    value = apply_activation(tl.load(x + at, mask=here, other=0.0).to(tl.float32), ACTIVATION)
    if GATED:
        value *= tl.load(x + n + at, mask=here, other=0.0).to(tl.float32)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=here)


def activate(x: torch.Tensor, activation: str, *, gated: bool, config: Config | None = None) -> torch.Tensor:
    """[...] -> [...], or gated [2, ...] -> [...]: gate first, then up.

    Raises
    ------
    SpecError : an activation that is not known, or a gated input without its two halves
    """
    if activation not in _TORCH:
        raise SpecError(f"no activation {activation!r}; known: {', '.join(_TORCH)}")
    if gated and x.shape[0] != 2:
        raise SpecError(f"a gated activation takes [2, ...], gate and up, not {tuple(x.shape)}")
    x = x.contiguous()
    config = config or configs("activation", device_target(x))[0]
    out = torch.empty(x.shape[1:] if gated else x.shape, dtype=x.dtype, device=x.device)
    n, block = out.numel(), config.blocks["BLOCK"]
    activation_kernel[(cdiv(n, block),)](
        x, out, n, ACTIVATION=activation, GATED=gated, BLOCK=block, num_warps=config.num_warps
    )
    return out


def activate_reference(x: torch.Tensor, activation: str, *, gated: bool) -> torch.Tensor:
    """The same in torch."""
    return _TORCH[activation](x[0]) * x[1] if gated else _TORCH[activation](x)


def variants() -> Iterator[Variant]:
    """Every activation, and those that gate."""
    for target in TARGETS:
        (config,) = configs("activation", target)
        for name, gated in (("gelu", False), ("relu", False), ("silu", True), ("gelu", True), ("relu", True)):
            yield Variant(
                op="activation",
                name=f"bf16 {name}{' gated' * gated}",
                target=target,
                kernel=activation_kernel,
                types={"x": "*bf16", "out": "*bf16"},
                constants={"ACTIVATION": name, "GATED": gated} | config.blocks,
                num_warps=config.num_warps,
            )


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """Hidden activations of a prompt."""
    dtype, size = ("bf16", 2) if device == "cuda" else ("fp32", 4)
    for n in (4096 * 14336, 64 * 14336) if device == "cuda" else (4096, 65536, 524288):

        def prepare(device: Device, generator: torch.Generator, n: int = n) -> Runs:
            x = torch.randn((2, n), generator=generator, device=device)
            x = x.to(torch.bfloat16 if device == "cuda" else torch.float32)
            return Runs(
                kernel=lambda: activate(x, "silu", gated=True), torch=lambda: activate_reference(x, "silu", gated=True)
            )

        work = elementwise_work({"x": (2 * n, size)}, {"out": (n, size)})
        yield BenchCase(op="activation", shape={"n": n}, dtype=dtype, work=work, prepare=prepare)
