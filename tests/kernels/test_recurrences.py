"""The selective scan and linear attention: a prompt at once, in parts, and token by token."""

import pytest
import torch
from shardwise.hardware_specs.errors import SpecError
from shardwise.kernels import linear_attention as linear
from shardwise.kernels import selective_scan as scan
from shardwise.kernels.interpreter import counted
from shardwise.kernels.variant import Config
from shardwise.models.ops import elementwise_work

_CHANNELS = Config({"BLOCK": 16}, 1, 1)
_CHUNKS = Config({"CHUNK": 16, "BLOCK_V": 32}, 2, 1)
_DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def _scan_inputs(generator, device, dtype, b, n, d, n_state):
    def normal(*shape):
        return torch.randn(shape, generator=generator).to(dtype).to(device)

    delta = torch.rand((b, n, d), generator=generator).to(dtype).to(device)
    a = -torch.rand((d, n_state), generator=generator).to(device)
    state = torch.randn((b, d, n_state), generator=generator).to(device)
    skip = torch.randn(d, generator=generator).to(device)
    return normal(b, n, d), delta, a, normal(b, n, n_state), normal(b, n, n_state), skip, state, normal(b, n, d)


def _linear_inputs(generator, device, dtype, b, n, h, g, d_key, d_value):
    def normal(*shape):
        return torch.randn(shape, generator=generator).to(dtype).to(device)

    decay = -torch.rand((b, n, h), generator=generator).to(device)
    state = torch.randn((b, h, d_key, d_value), generator=generator).to(device)
    return normal(b, n, g, d_key), normal(b, n, g, d_key), normal(b, n, h, d_value), decay, state


def _close(got, want, rounding) -> None:
    assert (got.double() - want.double()).abs().max() <= rounding * want.double().abs().max()


@_DTYPES
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("b", "n", "d", "n_state"), [(1, 1, 1, 1), (2, 17, 123, 16), (1, 123, 17, 5), (3, 1, 1000, 16)]
)
def test_a_scan_equals_the_reference(b, n, d, n_state, gated, dtype, device, generator) -> None:
    *inputs, state, gate = _scan_inputs(generator, device, dtype, b, n, d, n_state)
    gate = gate if gated else None
    wide = [t.double() for t in inputs]
    want, left = scan.selective_scan_reference(*wide, state.double(), gate=None if gate is None else gate.double())
    got = scan.selective_scan(*inputs, state, gate=gate, config=_CHANNELS)
    # states are fp32 and fade, so errors do not pile up; what is stored rounds once
    _close(got, want, 2**-8 if dtype == torch.bfloat16 else 1e-5)
    _close(state, left, 1e-5)


def test_a_scan_goes_on_from_its_state(device, generator) -> None:
    x, delta, a, b, c, skip, state, _ = _scan_inputs(generator, device, torch.float32, 2, 9, 20, 16)
    whole, kept = state.clone(), state.clone()
    want = scan.selective_scan(x, delta, a, b, c, skip, whole, config=_CHANNELS)
    got = [
        scan.selective_scan(*(t[:, part] for t in (x, delta)), a, b[:, part], c[:, part], skip, kept, config=_CHANNELS)
        for part in (slice(0, 7), slice(7, 8), slice(8, 9))
    ]
    assert torch.equal(torch.cat(got, 1), want)
    assert torch.equal(kept, whole)


@_DTYPES
@pytest.mark.parametrize(
    ("b", "n", "h", "g", "d_key", "d_value"),
    [(1, 1, 1, 1, 1, 1), (2, 17, 4, 2, 20, 123), (1, 123, 3, 1, 17, 33), (1, 40, 2, 2, 64, 64)],
)
def test_chunks_equal_the_recurrence(b, n, h, g, d_key, d_value, dtype, device, generator) -> None:
    *inputs, state = _linear_inputs(generator, device, dtype, b, n, h, g, d_key, d_value)
    want, left = linear.linear_attention_reference(*(t.double() for t in inputs), state.double())
    got = linear.linear_attention(*inputs, state, config=_CHUNKS)
    # in bf16 scores, the state and faded values are rounded before they are multiplied: three roundings on a path
    rounding = 3 * 2**-8 if dtype == torch.bfloat16 else 1e-5
    _close(got, want, rounding)
    _close(state, left, rounding)


def test_linear_attention_goes_on_from_its_state(device, generator) -> None:
    q, k, v, decay, state = _linear_inputs(generator, device, torch.float32, 1, 21, 2, 1, 16, 32)
    whole, kept = state.clone(), state.clone()
    want = linear.linear_attention(q, k, v, decay, whole, config=_CHUNKS)
    got = [
        linear.linear_attention(*(t[:, part] for t in (q, k, v, decay)), kept, config=_CHUNKS)
        for part in (slice(0, 19), slice(19, 20), slice(20, 21))
    ]
    _close(torch.cat(got, 1), want, 1e-5)
    _close(kept, whole, 1e-5)


def test_strong_decay_overflows_nothing(device, generator) -> None:
    q, k, v, decay, state = _linear_inputs(generator, device, torch.float32, 1, 16, 1, 1, 16, 32)
    got = linear.linear_attention(q, k, v, decay * 1e4, state, config=_CHUNKS)
    assert got.isfinite().all()
    assert state.isfinite().all()


def test_the_work_of_a_scan_is_the_work_priced(device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    *inputs, state, _ = _scan_inputs(generator, device, torch.bfloat16, 2, 8, 32, 16)
    with counted() as done:
        scan.selective_scan(*inputs, state, config=_CHANNELS)
    names = ("x", "delta", "a", "b", "c", "skip")
    reads = {name: (t.numel(), t.element_size()) for name, t in zip(names, inputs, strict=True)}
    states = {"state": (state.numel(), 4)}
    work = elementwise_work(reads | states, {"out": reads["x"]} | states)
    assert done.load_bytes == work.loaded_bytes(scan.rereads(2, 32, _CHANNELS))
    assert done.store_bytes == sum(work.writes.values())


def test_the_work_of_linear_attention_is_the_work_priced(device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    sizes = (2, 32, 4, 2, 16, 64)
    with counted() as done:
        linear.linear_attention(*_linear_inputs(generator, device, torch.bfloat16, *sizes), config=_CHUNKS)
    work = linear.linear_attention_work(*sizes, chunk=16, size=2)
    # the square of pairs does not hang on the values: each of their two blocks makes it anew
    pairs_again = 2 * (2 * 32 * 4) * 16 * 16
    assert done.dot_flop == work.flop + pairs_again
    assert done.load_bytes == work.loaded_bytes(linear.rereads(4, 2, 64, _CHUNKS))
    assert done.store_bytes == sum(work.writes.values())


def test_bad_input_is_refused_with_the_numbers(device, generator) -> None:
    *inputs, state, gate = _scan_inputs(generator, device, torch.float32, 1, 2, 8, 4)
    with pytest.raises(SpecError, match=r"gate \(1, 1, 8\) must be \(1, 2, 8\)"):
        scan.selective_scan(*inputs, state, gate=gate[:, :1])
    with pytest.raises(SpecError, match=r"the state is torch\.float64"):
        scan.selective_scan(*inputs, state.double())
    q, k, v, decay, state = _linear_inputs(generator, device, torch.float32, 1, 2, 3, 1, 4, 4)
    with pytest.raises(SpecError, match=r"decay \(1, 2, 2\) must be \(1, 2, 3\)"):
        linear.linear_attention(q, k, v, decay[:, :, :2], state)
    with pytest.raises(SpecError, match=r"it must be contiguous \(1, 3, 4, 4\)"):
        linear.linear_attention(q, k, v, decay, state[:, :2])
    with pytest.raises(SpecError, match="G divides H"):
        linear.linear_attention(q.expand(1, 2, 2, 4), k.expand(1, 2, 2, 4), v, decay, state)
