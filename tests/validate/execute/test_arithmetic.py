"""What mixers, reaches and routers compute, against closed forms that keep no state."""

import pytest

pytest.importorskip("torch", reason="execution needs torch")

import torch
from shardwise.models.feed_forward import ExpertsFfn
from shardwise.models.mixers.attention import Reach
from shardwise.models.mixers.delta import DeltaMixer
from shardwise.models.mixers.mamba import Mamba2Mixer, MambaMixer
from shardwise.models.mixers.rwkv import RwkvMixer
from shardwise.validate.execute import arithmetic as do
from shardwise.validate.execute import recurrences
from shardwise.validate.execute.routing import in_turn, route
from shardwise.validate.execute.vectors import named_vectors

_B, _L, _H, _D, _Q = 2, 9, 4, 3, 5


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def _causal() -> torch.Tensor:
    return torch.ones(_L, _L, dtype=torch.bool).tril()


def test_linear_attention_is_attention_with_products_of_features() -> None:
    q, k, v = _random(_B, _L, _H, _D).exp(), _random(_B, _L, _H, _D + 1)[..., :_D].exp(), _random(_B, _L, _H, _Q)
    scores = torch.einsum("blhd,bshd->bhls", q, k) * _causal()
    wanted = torch.einsum("bhls,bshq->blhq", scores / scores.sum(-1, keepdim=True), v)
    out, state, sums = recurrences.linear(q, k, v, v.new_zeros(_B, _H, _D, _Q), v.new_zeros(_B, _H, _D))
    assert torch.allclose(out, wanted)
    assert torch.allclose(sums, k.sum(1))
    assert torch.allclose(state, torch.einsum("blhd,blhq->bhdq", k, v))


def test_features_added_at_random_are_those_of_the_softmax() -> None:
    q, k = 0.3 * _random(1, 200, 1, 8), 0.3 * _random(1, 300, 1, 8)
    products = torch.einsum("blhd,bshd->ls", *(recurrences.features(x, 8192) for x in (q, k)))
    exact = (torch.einsum("blhd,bshd->ls", q, k) * 8**-0.5).exp()
    # 8192 random features estimate an exponential of products this small to some hundredths
    assert torch.allclose(products, exact, rtol=0.1)


def test_mamba_2_is_masked_attention_with_decaying_scores() -> None:
    x, step, skip, decay = _random(_B, _L, _H, _Q), _random(_B, _L, _H), _random(_H), _random(_H + 0)
    into, out_of = _random(_B, _L, 2, _D), _random(_B, _L, 2, _D + 1)[..., :_D]
    size = torch.nn.functional.softplus(step)
    total = (-decay.exp() * size).cumsum(1)
    shares = (total[:, :, None] - total[:, None]).masked_fill(~_causal()[None, :, :, None], -torch.inf).exp()
    b, c = (y.repeat_interleave(2, 2) for y in (into, out_of))
    scores = torch.einsum("blhd,bshd->blsh", c, b) * shares * size[:, None]
    wanted = torch.einsum("blsh,bshq->blhq", scores, x) + skip[:, None] * x
    out, _ = recurrences.mamba2(x, step, into, out_of, decay, skip, x.new_zeros(_B, _H, _D, _Q))
    assert torch.allclose(out, wanted)


def test_mamba_with_one_step_size_a_head_is_mamba_2() -> None:
    x, step, decay, skip = _random(_B, _L, _H, _Q), _random(_B, _L, _H), _random(_H), _random(_H)
    into, out_of = _random(_B, _L, _D), _random(_B, _L, _D + 1)[..., :_D]
    start = _random(_B, _H, _D, _Q)
    channels = (x, step[..., None].expand(*x.shape), into, out_of)
    wide = decay[:, None, None].expand(_H, _Q, _D), skip[:, None].expand(_H, _Q)
    out, state = recurrences.mamba(*channels, *wide, start)
    wanted, wanted_state = recurrences.mamba2(x, step, into[:, :, None], out_of[:, :, None], decay, skip, start)
    assert torch.allclose(out, wanted)
    assert torch.allclose(state, wanted_state)


def test_rwkv_is_an_average_of_values_that_decays() -> None:
    k, v, decay, first = (
        _random(_B, _L, _H, _Q),
        _random(_B, _L, _H, _Q + 1)[..., :_Q],
        _random(_H, _Q),
        _random(_H, _Q),
    )
    rate, wanted = decay.exp(), []
    for t in range(_L):
        ages = torch.arange(t - 1, -1, -1, dtype=torch.float64)
        weights = torch.cat([(k[:, :t] - ages[:, None, None] * rate).exp(), (first + k[:, t]).exp()[:, None]], 1)
        wanted.append((weights * v[:, : t + 1]).sum(1) / weights.sum(1))
    out, _ = recurrences.rwkv(k, v, decay, first, v.new_zeros(_B, _H, 3, _Q))
    assert torch.allclose(out, torch.stack(wanted, 1))


def test_a_delta_mixer_at_full_strength_gives_back_what_it_has_just_stored() -> None:
    q, v = _random(_B, _L, 2, _D), _random(_B, _L, _H, _Q)
    log_decay, strength = -_random(_B, _L, _H, 1).exp(), torch.ones(_B, _L, _H, dtype=torch.float64)
    out, _ = recurrences.delta(q, q, v, log_decay, strength, _random(_B, _H, _D, _Q))
    assert torch.allclose(out, v * _D**-0.5, atol=1e-5)


def test_a_delta_mixer_that_decays_by_channel_is_that_of_a_head_where_all_channels_are_alike() -> None:
    q, k, v = _random(_B, _L, 2, _D), _random(_B, _L, 2, _D + 1)[..., :_D], _random(_B, _L, _H, _Q)
    log_decay, strength = -_random(_B, _L, _H, 1).exp(), _random(_B, _L, _H).sigmoid()
    start = v.new_zeros(_B, _H, _D, _Q)
    one, _ = recurrences.delta(q, k, v, log_decay, strength, start)
    each, _ = recurrences.delta(q, k, v, log_decay.expand(*log_decay.shape[:3], _D), strength, start)
    assert torch.equal(one, each)


def test_a_recurrence_cut_in_two_passes_goes_on_where_it_was() -> None:
    q, k, v = _random(_B, _L, 2, _D), _random(_B, _L, 2, _D + 1)[..., :_D], _random(_B, _L, _H, _Q)
    log_decay, strength = -_random(_B, _L, _H, 1).exp(), _random(_B, _L, _H).sigmoid()
    whole, last = recurrences.delta(q, k, v, log_decay, strength, v.new_zeros(_B, _H, _D, _Q))
    first, state = recurrences.delta(*(y[:, :4] for y in (q, k, v, log_decay, strength)), v.new_zeros(_B, _H, _D, _Q))
    second, state = recurrences.delta(*(y[:, 4:] for y in (q, k, v, log_decay, strength)), state)
    assert torch.allclose(torch.cat([first, second], 1), whole)
    assert torch.allclose(state, last)


@pytest.mark.parametrize(
    "mixer",
    [
        MambaMixer(d_inner=128, d_state=4, dt_rank=3, inner_norms=True, proj_bias=True),
        Mamba2Mixer(n_heads=4, d_head=8, d_state=4, n_groups=2, proj_bias=True),
        DeltaMixer(n_heads=4, d_value=8, n_key_heads=2, d_key=8, d_squeezed=3),
        RwkvMixer(d_inner=128),
    ],
    ids=lambda mixer: mixer.kind,
)
def test_every_number_of_the_vectors_has_one_name(mixer) -> None:
    shape = mixer.recurrence(32)
    parts = named_vectors(shape, torch.arange(shape.n_vector_params))
    assert torch.equal(torch.cat([part.flatten() for part in parts.values()]), torch.arange(shape.n_vector_params))


def test_reaches_meet_the_keys_they_say() -> None:
    positions = torch.arange(8)
    met = {
        name: [int(row.sum()) for row in do.visible(reach, positions, positions)]
        for name, reach in {
            "all": None,
            "window": Reach(pattern="window", size=3),
            "chunk": Reach(pattern="chunk", size=3),
            "sparse": Reach(pattern="sparse", size=2, share=0.5),
        }.items()
    }
    assert met["all"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert met["window"] == [1, 2, 3, 3, 3, 3, 3, 3]
    assert met["chunk"] == [1, 2, 3, 1, 2, 3, 1, 2]
    # the last two, and every second from the first
    assert met["sparse"] == [1, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize("n_chips", [1, 2, 4])
def test_tokens_in_turn_go_to_every_chip_and_every_expert_equally_often(n_chips) -> None:
    ffn = ExpertsFfn(n_experts=8, n_experts_per_token=2, d_ff=4, gated=True, activation="silu")
    turns = in_turn(torch.arange(4), torch.arange(3, 11), ffn, n_chips)
    assert torch.bincount(turns.flatten(), minlength=8).tolist() == [8] * 8
    assert all(len(set(choices)) == 2 for choices in turns.flatten(0, 1).tolist())
    for sequence in turns:
        assert (
            torch.bincount(sequence.flatten() // (8 // n_chips), minlength=n_chips).tolist()
            == [16 // n_chips] * n_chips
        )


def test_an_expert_that_is_full_takes_no_more_of_a_sequence() -> None:
    ffn = ExpertsFfn(n_experts=4, n_experts_per_token=1, d_ff=4, gated=True, activation="silu", capacity_factor=1.0)
    logits = torch.tensor([[[5.0, 0.0, 0.0, 0.0]] * 8, [[0.0, 5.0, 0.0, 0.0]] * 2 + [[0.0, 0.0, 5.0, 0.0]] * 6])
    weights = route(logits, None, ffn, turns=None).weights[..., 0]
    assert weights.tolist() == [[1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]]


def test_a_bias_of_the_router_chooses_and_does_not_weigh() -> None:
    ffn = ExpertsFfn(n_experts=4, n_experts_per_token=2, d_ff=4, gated=True, activation="silu", router_bias=True)
    logits = torch.tensor([[[2.0, 1.0, 0.0, -1.0]]])
    routing = route(logits, torch.tensor([0.0, 0.0, 0.0, 9.0]), ffn, turns=None)
    assert sorted(routing.experts.flatten().tolist()) == [0, 3]
    by_expert = dict(zip(routing.experts.flatten().tolist(), routing.weights.flatten().tolist(), strict=True))
    assert by_expert[0] / by_expert[3] == pytest.approx(torch.tensor(3.0).exp().item())
