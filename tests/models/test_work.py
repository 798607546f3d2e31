"""Work of steps: flop against the count of parameters, pairs and bytes against loops over chips and tokens."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.hardware_specs.dtypes import parse_dtype
from shardwise.models.formats import Formats
from shardwise.models.forms import AXES, Form, parse_form
from shardwise.models.lower import lower
from shardwise.models.ops import visible_share
from shardwise.models.params import ffn_params, mixer_params
from shardwise.models.program import Attention, Collective, Matmul, SendRecv, ShardedProgram, Tensor
from shardwise.models.reshard import reshard
from shardwise.models.sizes import Sizes, TokenGroup
from shardwise.models.work import matmul_shapes, product_shapes, step_work, tiled_weights
from shardwise.tests.strategies import (
    BF16,
    INT8,
    attentions,
    form_pairs,
    layout_names,
    mesh_sizes,
    models,
    plain_block,
    small_model,
)

_MESH = {"x": 4.0, "y": 2.0, "z": 2.0}
_GROUP = TokenGroup(n_sequences=32.0, new_tokens=4.0, past_tokens=12.0)


def _matmul_flop(program: ShardedProgram, sizes: Sizes) -> float:
    """Flop of all chips in the matmuls of one block."""
    n_chips = sizes.shards(AXES)
    steps = [step for step in program.only.steps if isinstance(step, Matmul)]
    return float(sum(step_work(step, sizes, BF16).flop * n_chips for step in steps))


@given(
    model=models(divisible=True),
    layout=layout_names,
    attention=attentions,
    mesh=mesh_sizes,
    batch=st.integers(1, 3),
    new_tokens=st.integers(1, 64),
)
def test_matmuls_of_all_chips_are_two_flop_a_parameter_and_token(
    model, layout, attention, mesh, batch, new_tokens
) -> None:
    # multihead and everything divides: no chip computes what another does (Pope2022 section 2)
    group = TokenGroup(n_sequences=64.0 * batch, new_tokens=float(new_tokens), past_tokens=0.0)
    program = lower(model, layout, attention)
    flop = _matmul_flop(program, Sizes(program, mesh, [group]))
    assert (
        flop
        == 2
        * (mixer_params(model, plain_block(model)) + ffn_params(model, plain_block(model)))
        * 64
        * batch
        * new_tokens
    )


def test_k_and_v_of_one_head_are_computed_by_every_chip_along_the_hidden_axes() -> None:
    model = small_model(n_kv_heads=1)
    program = lower(model, "ws-2d", "heads")
    sizes = Sizes(program, _MESH, [_GROUP])
    tokens, kv = 32 * 4, 2 * model.d_model * model.d_head
    assert _matmul_flop(program, sizes) == 2 * tokens * (
        mixer_params(model, plain_block(model)) + ffn_params(model, plain_block(model)) + kv * (2 * 2 - 1)
    )


@pytest.mark.parametrize(("new", "past"), [(1, 0), (1, 2047), (4, 0), (7, 5), (64, 192)])
def test_attention_computes_each_visible_pair_of_query_and_key_once(new: int, past: int) -> None:
    pairs = sum(1 for query, key in itertools.product(range(new), range(past + new)) if key <= past + query)
    assert visible_share(float(new), float(past)) * new * (past + new) == pytest.approx(pairs, rel=1e-12)
    model = small_model()
    for attention in ("heads", "batch"):
        program = lower(model, "ws-2d", attention)
        sizes = Sizes(program, _MESH, [TokenGroup(n_sequences=16.0, new_tokens=float(new), past_tokens=float(past))])
        (step,) = (step for step in program.only.steps if isinstance(step, Attention))
        work = step_work(step, sizes, BF16)
        # scores and mix, multiply and add: 4 flop a pair, head and number of the head
        assert 16 * work.flop == pytest.approx(4 * 16 * pairs * model.n_heads * model.d_head, rel=1e-12)
        assert 16 * work.kv_bytes == 2 * 2 * 16 * (past + new) * model.n_kv_heads * model.d_head


def test_scores_that_are_written_out_cost_masked_pairs_and_four_passes_over_them() -> None:
    made = []
    for flag in (False, True):
        program = lower(small_model(), "ws-1d", "heads", materialised_scores=flag)
        (step,) = (step for step in program.only.steps if isinstance(step, Attention))
        sizes = Sizes(program, {}, [TokenGroup(n_sequences=1.0, new_tokens=8.0, past_tokens=0.0)])
        made.append(step_work(step, sizes, BF16))
    fused, written = made
    assert written.flop == 4 * 8 * 8 * 64 * 16
    assert written.flop * (8 + 1) / (2 * 8) == fused.flop
    assert written.activation_bytes - fused.activation_bytes == 4 * 2 * 8 * 8 * 64


def _collective(kind: str, start: str, goal: str, name: str = "t") -> Collective:
    (move,) = reshard(parse_form(start), parse_form(goal))
    assert move.kind == kind
    tensor = Tensor(name=name, form=move.before)
    return Collective(name=kind, kind=move.kind, axes=move.axes, tensors=(tensor,), after=(move.after,))


@pytest.mark.parametrize(
    ("kind", "start", "goal", "sent_elements"),
    [
        # 32 x 4 x 256 elements in all, 4 x 2 x 2 chips; sent a rank as DESIGN counts it
        pytest.param("all_gather", "BLE_xyz", "BLE_x", (4 - 1) * 32 * 4 * 256 / 16, id="gather-K-1-shards"),
        pytest.param(
            "reduce_scatter", "BLE_x{yz}", "BLE_xyz", 3 / 4 * 32 * 4 * 256 / 4, id="scatter-K-1-over-K-of-input"
        ),
        pytest.param("all_reduce", "BLE_x{yz}", "BLE_x", 2 * 3 / 4 * 32 * 4 * 256 / 4, id="reduce-twice-that"),
        pytest.param(
            "all_to_all", "BLE_xyz", "B_xyzLE", 15 / 16 * 32 * 4 * 256 / 16, id="exchange-K-1-over-K-of-input"
        ),
    ],
)
def test_a_rank_sends_what_the_collective_is_defined_to(kind: str, start: str, goal: str, sent_elements: float) -> None:
    sizes = Sizes(lower(small_model(), "ws-2d", "heads"), _MESH, [_GROUP])
    work = step_work(_collective(kind, start, goal), sizes, BF16)
    assert work.sent_bytes == 2 * sent_elements


@given(pair=form_pairs("BLE"))
def test_a_collective_over_axes_of_size_one_sends_nothing(pair: tuple[Form, Form]) -> None:
    sizes = Sizes(lower(small_model(), "ws-2d", "heads"), {}, [_GROUP])
    for move in reshard(*pair):
        if move.kind != "slice":
            step = Collective(
                name="c",
                kind=move.kind,
                axes=move.axes,
                tensors=(Tensor(name="t", form=move.before),),
                after=(move.after,),
            )
            assert step_work(step, sizes, BF16).sent_bytes == 0


def test_bytes_follow_the_formats_of_weights_activations_and_cache_apart() -> None:
    program = lower(small_model(), "wg-xyz", "batch")
    sizes = Sizes(program, _MESH, [_GROUP])
    mixed = Formats(weights=parse_dtype("int8"), activations=parse_dtype("bf16"), kv=parse_dtype("fp8"))
    for step in program.only.steps:
        full, small = step_work(step, sizes, BF16), step_work(step, sizes, mixed)
        assert small.weight_bytes == full.weight_bytes / 2
        assert small.kv_bytes == full.kv_bytes / 2
        assert small.activation_bytes == full.activation_bytes
        if isinstance(step, Collective):
            halved = step.moves_weights
            assert small.sent_bytes == full.sent_bytes / (2 if halved else 1)


def test_integer_weights_are_widened_and_small_floats_are_not() -> None:
    bf16 = parse_dtype("bf16")
    assert INT8.matmul == bf16
    for name in ("fp8", "nvfp4", "mxfp4"):
        assert Formats(weights=parse_dtype(name), activations=bf16, kv=bf16).matmul.name == name


def test_statistics_and_logits_travel_in_full_precision() -> None:
    assert (BF16.bytes_of("statistic"), BF16.bytes_of("logit"), INT8.bytes_of("weight")) == (4.0, 4.0, 1.0)


@given(model=models(), layout=layout_names, attention=attentions, mesh=mesh_sizes)
def test_products_of_a_matmul_have_the_weights_of_the_kernels_they_are_fused_into(
    model, layout, attention, mesh
) -> None:
    program = lower(model, layout, attention)
    sizes = Sizes(program, mesh, [_GROUP])
    for step in (step for step in program.only.steps if isinstance(step, Matmul)):
        apart = [shape["copies"] * shape["k"] * shape["n"] for shape in product_shapes(step, sizes)]
        assert sum(apart) == pytest.approx(sum(k * n for k, n in matmul_shapes(step, sizes)))
        assert len(apart) == len(step.weights)


def test_weights_fill_whole_tiles_on_a_systolic_array() -> None:
    program = lower(small_model(d_model=256, d_ff=1000, gated=True), "ws-1d", "heads")
    sizes = Sizes(program, {"x": 4.0}, [_GROUP])
    (step,) = (s for s in program.only.steps if isinstance(s, Matmul) and s.name == "ffn in")
    # 1000 / 4 = 250 columns fill two tiles of 128; gate and up are two such weights
    assert tiled_weights(step, sizes, 128) == 2 * 256 * 256
    assert tiled_weights(step, sizes, 2) == 2 * 256 * 250


def test_a_stage_hands_on_its_share_of_the_residual() -> None:
    for layout, share in (("ws-2d", 16), ("ws-1d-allreduce", 1), ("wg-xyz", 16)):
        program = lower(small_model(), layout, "heads")
        (step,) = program.handover
        assert isinstance(step, SendRecv)
        work = step_work(step, Sizes(program, _MESH, [_GROUP]), BF16)
        assert work.sent_bytes == work.full_bytes == 2 * 32 * 4 * 256 / share
