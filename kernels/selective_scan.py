"""The selective scan of a state-space model: a prompt's tokens one after the other, or one token on a kept state.

For every channel d, with a state of N numbers h: ``h = exp(delta A) h + delta B x``, ``y = C . h + D x``, and if there
is a gate z, ``y silu(z)``. States and sums are fp32.

References
----------
[Gu2023] section 3.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch.nn.functional import silu

from ..hardware_specs.errors import SpecError
from ..models.ops import elementwise_work
from .bench_case import BenchCase, Device, Runs
from .elementwise import LOG2_E, sigmoid
from .launch import cdiv, device_target
from .variant import TARGETS, Config, Variant, configs


@triton.jit
def selective_scan_kernel(
    x, delta, a, b, c, skip, gate, state, out, n_tokens, n_channels,
    HAS_GATE: tl.constexpr, N_STATE: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Channels of one sequence: x, delta, gate, out [B, L, D]; a [D, N]; b, c [B, L, N]; skip [D]; state [B, D, N]."""
    sequence = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    part = tl.arange(0, BLOCK_S)
    in_d, in_s = channel < n_channels, part < N_STATE
    square = in_d[:, None] & in_s[None, :]
    rate = tl.load(a + channel[:, None] * N_STATE + part[None, :], mask=square, other=0.0).to(tl.float32) * LOG2_E
    kept = tl.load(skip + channel, mask=in_d, other=0.0).to(tl.float32)
    state_at = state + (sequence * n_channels + channel[:, None]) * N_STATE + part[None, :]
    h = tl.load(state_at, mask=square, other=0.0)  # [BLOCK, BLOCK_S]
    at = sequence * n_tokens * n_channels + channel
    mixed_at = sequence * n_tokens * N_STATE + part
    for _ in range(0, n_tokens):
        value = tl.load(x + at, mask=in_d, other=0.0).to(tl.float32)
        step = tl.load(delta + at, mask=in_d, other=0.0).to(tl.float32)
        come = tl.load(b + mixed_at, mask=in_s, other=0.0).to(tl.float32)
        go = tl.load(c + mixed_at, mask=in_s, other=0.0).to(tl.float32)
        h = h * tl.exp2(step[:, None] * rate) + (step * value)[:, None] * come[None, :]
        result = tl.sum(h * go[None, :], 1) + kept * value
        if HAS_GATE:
            opened = tl.load(gate + at, mask=in_d, other=0.0).to(tl.float32)
            result = result * opened * sigmoid(opened)
        tl.store(out + at, result.to(out.dtype.element_ty), mask=in_d)
        at += n_channels
        mixed_at += N_STATE
    tl.store(state_at, h, mask=square)


def selective_scan(
    x: torch.Tensor,
    delta: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    skip: torch.Tensor,
    state: torch.Tensor,
    *,
    gate: torch.Tensor | None = None,
    config: Config | None = None,
) -> torch.Tensor:
    """The outputs [B, L, D]; `state` is read and then holds what the last token left.

    Parameters
    ----------
    x, delta, gate : [B, L, D], delta already positive
    a : [D, N], negative
    b, c : [B, L, N]
    skip : [D]
    state : [B, D, N] fp32

    Raises
    ------
    SpecError : shapes that do not fit, or a state that is not fp32
    """
    _check(x, delta, a, b, c, skip, state, gate)
    n_sequences, n_tokens, n_channels = x.shape
    config = config or configs("selective_scan", device_target(x))[0]
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    n_state = a.shape[1]
    selective_scan_kernel[(n_sequences, cdiv(n_channels, config.blocks["BLOCK"]))](
        x.contiguous(), delta.contiguous(), a.contiguous(), b.contiguous(), c.contiguous(), skip.contiguous(),
        None if gate is None else gate.contiguous(), state, out, n_tokens, n_channels,
        HAS_GATE=gate is not None, N_STATE=n_state, BLOCK_S=triton.next_power_of_2(n_state), **config.blocks,
        num_warps=config.num_warps,
    )  # fmt: skip
    return out


def _check(
    x: torch.Tensor,
    delta: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    skip: torch.Tensor,
    state: torch.Tensor,
    gate: torch.Tensor | None,
) -> None:
    if x.dim() != 3 or a.dim() != 2:
        raise SpecError(f"x {tuple(x.shape)} must be [B, L, D] and a {tuple(a.shape)} [D, N]")
    (n_sequences, n_tokens, n_channels), n_state = x.shape, a.shape[1]
    mixed = (n_sequences, n_tokens, n_state)
    wanted = {
        "delta": (delta, x.shape), "a": (a, (n_channels, n_state)), "b": (b, mixed), "c": (c, mixed),
        "skip": (skip, (n_channels,)), "state": (state, (n_sequences, n_channels, n_state)),
    }  # fmt: skip
    if gate is not None:
        wanted["gate"] = (gate, x.shape)
    for name, (tensor, shape) in wanted.items():
        if tensor.shape != shape:
            raise SpecError(f"{name} {tuple(tensor.shape)} must be {tuple(shape)} for x {tuple(x.shape)}")
    if state.dtype != torch.float32 or not state.is_contiguous():
        raise SpecError(f"the state is {state.dtype}; it must be contiguous float32")


def selective_scan_reference(
    x: torch.Tensor,
    delta: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    skip: torch.Tensor,
    state: torch.Tensor,
    *,
    gate: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The outputs and the state after them, in torch."""
    made = []
    for t in range(x.shape[1]):
        step, value = delta[:, t, :, None], x[:, t, :, None]
        state = state * torch.exp(step * a) + step * value * b[:, t, None]
        made.append((state * c[:, t, None]).sum(-1) + skip * x[:, t])
    y = torch.stack(made, 1)
    return (y if gate is None else y * silu(gate)), state


def rereads(n_sequences: int, n_channels: int, config: Config) -> dict[str, float]:
    """What all channels share is loaded once a block of them, what all sequences share once a sequence."""
    blocks = cdiv(n_channels, config.blocks["BLOCK"])
    return {"a": n_sequences, "skip": n_sequences, "b": blocks, "c": blocks}


def variants() -> Iterator[Variant]:
    """Mamba's state of 16, gated or not."""
    for target in TARGETS:
        for config in configs("selective_scan", target):
            for gated in (False, True):
                yield Variant(
                    op="selective_scan",
                    name=f"bf16 n16{' gated' * gated} {config.blocks['BLOCK']}",
                    target=target,
                    kernel=selective_scan_kernel,
                    types=dict.fromkeys(("x", "delta", "b", "c", "gate", "out"), "*bf16")
                    | dict.fromkeys(("a", "skip", "state"), "*fp32"),
                    constants={"HAS_GATE": gated, "N_STATE": 16, "BLOCK_S": 16} | config.blocks,
                    num_warps=config.num_warps,
                    unaligned=("n_tokens",),
                )


def bench_cases(device: Device) -> Iterator[BenchCase]:
    """A prompt and a decode batch of a Mamba block."""
    dtype, size = ("bf16", 2) if device == "cuda" else ("fp32", 4)
    for batch, n, d in ((1, 2048, 8192), (256, 1, 8192)) if device == "cuda" else ((1, 16, 512), (8, 1, 512)):

        def prepare(device: Device, generator: torch.Generator, batch: int = batch, n: int = n, d: int = d) -> Runs:
            kind = torch.bfloat16 if device == "cuda" else torch.float32
            x, delta = (torch.rand((batch, n, d), generator=generator, device=device).to(kind) for _ in range(2))
            b, c = (torch.randn((batch, n, 16), generator=generator, device=device).to(kind) for _ in range(2))
            a, skip = -torch.rand((d, 16), generator=generator, device=device), torch.ones(d, device=device)
            state = torch.zeros((batch, d, 16), device=device)
            return Runs(
                kernel=lambda: selective_scan(x, delta, a, b, c, skip, state),
                torch=lambda: selective_scan_reference(x, delta, a, b, c, skip, state),
            )

        through, states = batch * n * d, batch * d * 16
        reads = dict.fromkeys(("x", "delta"), (through, size)) | dict.fromkeys(("b", "c"), (batch * n * 16, size))
        reads |= {"a": (d * 16, 4), "skip": (d, 4), "state": (states, 4)}
        work = elementwise_work(reads, {"out": (through, size), "state": (states, 4)})
        shape = {"b": batch, "l": n, "d": d, "n": 16}
        yield BenchCase(op="selective_scan", shape=shape, dtype=dtype, work=work, prepare=prepare)
