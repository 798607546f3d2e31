"""A layer of experts: gating, permutation and grouped matmul, each alone and all together."""

import pytest
import torch
from shardwise.hardware_specs.errors import SpecError
from shardwise.kernels import gating, grouped_matmul, permutation
from shardwise.kernels.interpreter import counted
from shardwise.kernels.matmul import matmul_reference
from shardwise.kernels.variant import Config
from shardwise.models.ops import elementwise_work, grouped_matmul_work

_TOKENS = Config({"BLOCK_T": 4}, 4, 1)
_CHANNELS = Config({"BLOCK": 64}, 4, 1)
_SMALL = Config({"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_K": 32}, 4, 2)


def _random(generator, device, dtype, *shape):
    return torch.randn(shape, generator=generator).to(dtype).to(device)


def _experts(generator, device, n_tokens, n_experts, top_k):
    scores = torch.rand((n_tokens, n_experts), generator=generator)
    return scores.topk(top_k).indices.int().to(device)


@pytest.mark.parametrize("score", gating.SCORES)
@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize(("n_tokens", "n_experts", "top_k"), [(1, 1, 1), (17, 8, 2), (5, 123, 6), (3, 1000, 8)])
def test_gates_and_experts_equal_the_reference(
    n_tokens, n_experts, top_k, renormalise, score, device, generator
) -> None:
    logits = _random(generator, device, torch.float32, n_tokens, n_experts)
    kind = {"score": score, "renormalise": renormalise}
    gates, experts = gating.gate(logits, top_k, config=_TOKENS, **kind)
    want, chosen = gating.gate_reference(logits, top_k, **kind)
    assert torch.equal(experts, chosen)
    # sums of up to 1000 exponentials in fp32, in another order
    torch.testing.assert_close(gates, want, rtol=1e-5, atol=0)


def test_equal_logits_choose_the_lower_expert(device) -> None:
    _, experts = gating.gate(torch.zeros(2, 5, device=device), 3, config=_TOKENS)
    assert experts.tolist() == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("n_tokens", "n"), [(1, 1), (17, 123), (5, 1000)])
def test_tokens_go_to_their_experts_and_come_back(n_tokens, n, dtype, device, generator) -> None:
    x, experts = _random(generator, device, dtype, n_tokens, n), _experts(generator, device, n_tokens, 4, 2)
    order = permutation.order_by_expert(experts, 4)
    moved = permutation.permute(x, order, config=_CHANNELS)
    for e in range(4):
        mine = (experts == e).any(1)
        assert torch.equal(moved[order.offsets[e] : order.offsets[e + 1]], x[mine])
    gates = torch.rand((n_tokens, 2), generator=generator).to(device)
    back = permutation.combine(moved, order, gates, config=_CHANNELS)
    want = permutation.combine_reference(moved.double(), order, gates)
    # the result's own rounding, of sums at most as large as their terms together
    assert (back.double() - want).abs().max() <= (2**-8 if dtype == torch.bfloat16 else 2**-22) * moved.abs().max() * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("counts", [[0, 1, 17], [123, 0, 0], [33, 16, 1]], ids=str)
def test_every_expert_multiplies_its_rows(counts, gated, dtype, device, generator) -> None:
    x = _random(generator, device, dtype, sum(counts), 70)
    w = _random(generator, device, dtype, len(counts), *([2] if gated else []), 70, 47)
    offsets = torch.tensor([0, *counts], device=device).cumsum(0)
    kind = {"gated": gated, "activation": "silu" if gated else None}
    got = grouped_matmul.grouped_matmul(x, w, offsets, config=_SMALL, **kind)
    want = grouped_matmul.grouped_matmul_reference(x.double(), w.double(), offsets, **kind)
    rounding = {torch.float32: 2**-20, torch.float16: 2**-10, torch.bfloat16: 2**-7}[dtype]
    assert (got.double() - want).abs().max() <= rounding * want.abs().max()


def test_the_work_of_experts_is_the_work_priced(device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    counts, k, n = [32, 16, 0, 48], 64, 96
    x, w = _random(generator, device, torch.bfloat16, 96, k), _random(generator, device, torch.bfloat16, 4, k, n)
    offsets = torch.tensor([0, *counts]).cumsum(0)
    with counted() as done:
        grouped_matmul.grouped_matmul(x, w, offsets, config=_SMALL)
    work = grouped_matmul_work(96, 4, k, n, x_bytes=2, w_bytes=2, out_bytes=2)
    assert done.dot_flop == work.flop
    assert done.store_bytes == work.writes["out"]
    # where the blocks lie: every program reads the list of first blocks, those with rows three numbers more
    n_blocks, grid = 6, 6 + 3
    places = (grid * 4 * 4 + n_blocks * (2 * 8 + 4)) * 3
    assert done.load_bytes == work.loaded_bytes(grouped_matmul.rereads(counts, n, _SMALL)) + places


def test_gating_and_permutation_move_each_byte_once(device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    with counted() as done:
        gating.gate(_random(generator, device, torch.float32, 8, 16), 2, config=_TOKENS)
    work = elementwise_work({"logits": (128, 4)}, {"gates": (16, 4), "experts": (16, 4)})
    assert (done.load_bytes, done.store_bytes) == (work.reads["logits"], sum(work.writes.values()))
    order = permutation.order_by_expert(_experts(generator, device, 8, 4, 2), 4)
    y, gates = _random(generator, device, torch.bfloat16, 16, 128), torch.ones(8, 2)
    with counted() as done:
        permutation.permute(y[:8], order, config=_CHANNELS)
    work = elementwise_work({"x": (8 * 128, 2), "pairs": (16, 8)}, {"out": (16 * 128, 2)})
    # each token goes to two experts, and two blocks of channels ask where
    assert done.load_bytes == work.loaded_bytes({"x": 2, "pairs": 2})
    assert done.store_bytes == work.writes["out"]
    with counted() as done:
        permutation.combine(y, order, gates, config=_CHANNELS)
    reads = {"y": (16 * 128, 2), "rows": (16, 8), "gates": (16, 4)}
    work = elementwise_work(reads, {"out": (8 * 128, 2)})
    # two blocks of channels read the same rows' numbers and gates
    assert done.load_bytes == work.loaded_bytes({"rows": 2, "gates": 2})
    assert done.store_bytes == work.writes["out"]


def test_a_layer_of_experts_equals_each_token_through_its_own(device, generator) -> None:
    x = _random(generator, device, torch.float32, 19, 32)
    up = _random(generator, device, torch.float32, 4, 2, 32, 24)
    down = _random(generator, device, torch.float32, 4, 24, 32)
    gates, experts = gating.gate(_random(generator, device, torch.float32, 19, 4), 2, config=_TOKENS)
    order = permutation.order_by_expert(experts, 4)
    h = permutation.permute(x, order, config=_CHANNELS)
    h = grouped_matmul.grouped_matmul(h, up, order.offsets, activation="silu", gated=True, config=_SMALL)
    h = grouped_matmul.grouped_matmul(h, down, order.offsets, config=_SMALL)
    got = permutation.combine(h, order, gates, config=_CHANNELS)
    want = torch.zeros(19, 32, dtype=torch.float64, device=device)
    for t in range(19):
        for gate, e in zip(gates[t], experts[t].tolist(), strict=True):
            hidden = matmul_reference(x[t : t + 1].double(), up[e].double(), activation="silu", gated=True)
            want[t] += gate * (hidden @ down[e].double())[0]
    assert (got.double() - want).abs().max() <= 1e-5 * want.abs().max()


def test_bad_input_is_refused_with_the_numbers(device) -> None:
    with pytest.raises(SpecError, match=r"cannot choose 5 experts from logits \(2, 4\)"):
        gating.gate(torch.zeros(2, 4, device=device), 5)
    with pytest.raises(SpecError, match="no gating score 'tanh'"):
        gating.gate(torch.zeros(2, 4, device=device), 1, score="tanh")
    order = permutation.order_by_expert(torch.zeros(3, 2, dtype=torch.int32, device=device), 4)
    with pytest.raises(SpecError, match=r"x \(2, 8\) is not the 3 tokens"):
        permutation.permute(torch.zeros(2, 8, device=device), order)
    with pytest.raises(SpecError, match=r"y \(5, 8\) and gates \(3, 2\) are not of 3 tokens with 2 experts"):
        permutation.combine(torch.zeros(5, 8, device=device), order, torch.zeros(3, 2, device=device))
    x, w = torch.zeros(6, 8, device=device), torch.zeros(4, 8, 5, device=device)
    with pytest.raises(SpecError, match=r"offsets \(4,\) must be one more than the 4 experts"):
        grouped_matmul.grouped_matmul(x, w, order.offsets[:-1])
    with pytest.raises(SpecError, match=r"do not multiply; x is \[P, K\]"):
        grouped_matmul.grouped_matmul(x[:, :7], w, order.offsets)
