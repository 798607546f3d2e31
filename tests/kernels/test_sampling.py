import pytest
import torch
from shardwise.hardware_specs.errors import SpecError
from shardwise.kernels.interpreter import counted
from shardwise.kernels.sampling import best_token, kept_reference, rereads, sample
from shardwise.kernels.variant import Config
from shardwise.models.ops import elementwise_work

_BLOCK = Config({"BLOCK": 64}, 4, 1)


def _rows(device, batch, value, dtype):
    return torch.full((batch,), value, dtype=dtype, device=device)


def _draw_all(logits, draws, top_k, top_p, temperature=0.8):
    """Every draw from the same row of logits."""
    device, batch = logits.device, len(draws)
    return sample(
        logits.expand(batch, -1).contiguous(),
        draws,
        _rows(device, batch, temperature, torch.float32),
        top_k=None if top_k is None else _rows(device, batch, top_k, torch.int32),
        top_p=None if top_p is None else _rows(device, batch, top_p, torch.float32),
        config=_BLOCK,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n", [1, 17, 123, 1000])
def test_the_best_token_is_the_first_of_the_largest(n, dtype, device, generator) -> None:
    logits = torch.randn((5, n), generator=generator).to(dtype).to(device)
    values, tokens = best_token(logits, config=_BLOCK)
    assert torch.equal(values, logits.float().amax(-1))
    assert torch.equal(tokens, logits.float().argmax(-1))


def test_of_equal_logits_the_first_is_best(device) -> None:
    logits = torch.zeros(1, 130, device=device)
    logits[0, 70] = logits[0, 129] = 1.0
    assert best_token(logits, config=_BLOCK)[1].tolist() == [70]


@pytest.mark.parametrize("top_p", [None, 0.5, 0.95])
@pytest.mark.parametrize("top_k", [None, 1, 7, 5000])
@pytest.mark.parametrize("n", [1, 17, 123, pytest.param(1000, marks=pytest.mark.slow)])
def test_draws_fall_as_the_kept_shares_say(n, top_k, top_p, device, generator) -> None:
    logits = torch.randn((1, n), generator=generator).to(device)
    k = None if top_k is None else torch.tensor([top_k], device=device)
    p = None if top_p is None else torch.tensor([top_p], device=device)
    shares = kept_reference(logits, torch.tensor([0.8], device=device), top_k=k, top_p=p)[0].double()
    # the middle of a kept token's share draws that token, whatever the sums round to; a few stand for all of them
    kept = (shares > 1e-5).nonzero()[:, 0]
    some = kept[torch.linspace(0, len(kept) - 1, min(len(kept), 5)).long()]
    middles = (shares.cumsum(0) - shares / 2)[some].float()
    assert _draw_all(logits, middles, top_k, top_p).tolist() == some.tolist()


def test_equal_logits_are_kept_together_whatever_the_sign_of_zero(device) -> None:
    logits = torch.tensor([[-1.0, 0.0, -0.0, -2.0]], device=device)
    assert _draw_all(logits, torch.tensor([0.25, 0.75], device=device), 1, None).tolist() == [1, 2]


def test_the_last_draw_below_one_is_a_kept_token(device, generator) -> None:
    logits = torch.randn((1, 1000), generator=generator).to(device)
    (token,) = _draw_all(logits, torch.tensor([1 - 2**-24], device=device), 50, 0.9).tolist()
    assert token in logits[0].topk(50).indices.tolist()


def test_tokens_ruled_out_are_never_drawn(device, generator) -> None:
    logits = torch.randn((1, 100), generator=generator).to(device)
    logits[0, 1:] = float("-inf")
    assert _draw_all(logits, torch.tensor([0.0, 0.5, 0.999], device=device), 10, 0.99).tolist() == [0, 0, 0]


def test_every_row_has_its_own_settings(device) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]] * 2, device=device)
    got = sample(
        logits,
        torch.zeros(2, device=device),
        torch.ones(2, device=device),
        top_k=torch.tensor([1, 3], dtype=torch.int32, device=device),
        config=_BLOCK,
    )
    assert got.tolist() == [3, 1]


@pytest.mark.parametrize("top_k", [None, 5])
@pytest.mark.parametrize("top_p", [None, 0.9])
def test_logits_are_read_as_often_as_declared(top_k, top_p, device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    logits, n_settings = torch.randn((1, 128), generator=generator), 2 + (top_k is not None) + (top_p is not None)
    with counted() as done:
        _draw_all(logits, torch.tensor([0.5]), top_k, top_p)
    work = elementwise_work({"logits": (128, 4), "settings": (n_settings, 4)}, {"tokens": (1, 8)})
    assert done.load_bytes == work.loaded_bytes(rereads(top_k=top_k is not None, top_p=top_p is not None))
    assert done.store_bytes == work.writes["tokens"]


def test_the_best_token_takes_one_pass(device, generator) -> None:
    if device == "cuda":
        pytest.skip("counted in the interpreter")
    with counted() as done:
        best_token(torch.randn((3, 128), generator=generator), config=_BLOCK)
    work = elementwise_work({"logits": (3 * 128, 4)}, {"values": (3, 4), "tokens": (3, 8)})
    assert (done.load_bytes, done.store_bytes) == (work.reads["logits"], sum(work.writes.values()))


def test_bad_input_is_refused_with_the_numbers(device) -> None:
    with pytest.raises(SpecError, match=r"logits \(4,\) must be \[B, V\]"):
        best_token(torch.zeros(4, device=device))
    with pytest.raises(SpecError, match=r"draws \(3,\) must be one a row of logits \(2, 4\)"):
        sample(torch.zeros(2, 4, device=device), torch.zeros(3, device=device), torch.ones(2, device=device))
