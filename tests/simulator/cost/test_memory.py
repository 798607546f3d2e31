"""Memory: what lies on the fullest chip, against counts of the whole model and against what really ran out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.hardware_specs.catalogue import get_chip
from shardwise.hardware_specs.dtypes import parse_dtype
from shardwise.models.catalogue import get_model
from shardwise.models.description import Model
from shardwise.models.formats import Formats
from shardwise.models.forms import AXES
from shardwise.models.layouts import LAYOUTS, AttentionSharding
from shardwise.models.lower import lower
from shardwise.models.params import kv_bytes_per_token, n_params
from shardwise.models.sizes import Sizes, TokenGroup
from shardwise.simulator.cost.constants import BOUND
from shardwise.simulator.cost.memory import (
    DEFAULT_MEMORY_SHARE,
    activation_bytes,
    gathered_bytes,
    kv_cache_bytes,
    memory_bytes,
    weight_bytes,
)
from shardwise.simulator.cost.phases import PhaseSetting, price_phase
from shardwise.simulator.cost.price import Engine
from shardwise.simulator.types import Workload
from shardwise.tests.strategies import (
    BF16,
    INT8,
    attentions,
    layout_names,
    machine_of,
    mesh_sizes,
    models,
    small_model,
    token_groups,
)
from shardwise.validate.published import OutOfMemory, load_pope2022

_CUBE = {"x": 4.0, "y": 4.0, "z": 4.0}
_GROUP = TokenGroup(n_sequences=64.0, new_tokens=64.0, past_tokens=0.0)


def _vector_params(model: Model) -> int:
    """What is no matrix of the program: norms, biases and learned positions, n_params with all matrices of size 0."""
    matrices = model.n_layers * (
        2 * model.d_model * (model.n_heads + model.n_kv_heads) * model.d_head
        + (3 if model.gated else 2) * model.d_model * model.d_ff
    )
    tables = (1 if model.tied_embeddings else 2) * model.vocab_size * model.d_model
    return n_params(model) - matrices - tables


@given(model=models(), layout=layout_names, mesh=mesh_sizes, formats=st.sampled_from([BF16, INT8]))
def test_all_chips_hold_at_least_every_matrix_once(
    model: Model, layout: str, mesh: dict[str, float], formats: Formats
) -> None:
    program = lower(model, layout, "heads")
    sizes = Sizes(program, mesh, [_GROUP])
    held = weight_bytes(program, sizes, formats) * sizes.shards(AXES)
    matrices = n_params(model) - _vector_params(model)
    assert held >= matrices * formats.weights.bytes_per_element


@given(model=models(divisible=True), mesh=mesh_sizes)
def test_untied_matrices_that_divide_are_held_just_once_and_vectors_by_every_chip_at_most(
    model: Model, mesh: dict[str, float]
) -> None:
    model = model.model_copy(update={"tied_embeddings": False})
    for layout in (name for name, declared in LAYOUTS.items() if not declared.data_axes):
        program = lower(model, layout, "heads")
        sizes = Sizes(program, mesh, [_GROUP])
        chips = sizes.shards(AXES)
        held = weight_bytes(program, sizes, BF16) / 2 * chips
        assert n_params(model) <= held <= n_params(model) + (chips - 1) * _vector_params(model)


@pytest.mark.parametrize("pp", [1, 2, 3, 4, 7])
def test_the_fullest_stage_has_the_most_layers_and_the_heavier_end(pp: int) -> None:
    model = small_model(n_layers=7)
    program = lower(model, "ws-2d", "heads")
    sizes = Sizes(program, _CUBE, [_GROUP])
    norms = 2 * 256  # of one layer, whole on every chip
    layer = (4 * 256 * 64 * 16 + 2 * 256 * 1024) / 64 + norms
    tables = 512 * 256 * (2 if pp == 1 else 1) / 64 + 256  # the last stage has the final norm too
    assert weight_bytes(program, sizes, BF16, pp=pp) == 2 * (-(-7 // pp) * layer + tables)


def test_a_cache_of_all_chips_is_the_models_bytes_per_token_where_no_head_is_replicated() -> None:
    for model in (small_model(), get_model("palm-540b"), get_model("llama-3.1-70b")):
        program = lower(model, "ws-2d", "batch")
        sizes = Sizes(program, _CUBE, [_GROUP])
        per_token = 64 * kv_cache_bytes(program, sizes, BF16, context=100.0) / (64 * 100)
        assert per_token == kv_bytes_per_token(model, 2.0)


@given(context=st.integers(1, 5000), page_size=st.sampled_from([1, 16, 64, 256]))
def test_a_cache_lies_in_whole_pages(context: int, page_size: int) -> None:
    program = lower(small_model(), "ws-2d", "heads")
    sizes = Sizes(program, _CUBE, [_GROUP])
    paged = kv_cache_bytes(program, sizes, BF16, context=float(context), page_size=page_size)
    pages = -(-context // page_size)
    assert paged == kv_cache_bytes(program, sizes, BF16, context=float(pages * page_size))
    assert paged >= kv_cache_bytes(program, sizes, BF16, context=float(context))


def test_a_cache_of_8_bits_takes_half_the_room_and_other_formats_change_nothing_of_it() -> None:
    program = lower(small_model(), "ws-2d", "batch")
    sizes = Sizes(program, _CUBE, [_GROUP])
    fp8 = Formats(weights=BF16.weights, activations=BF16.activations, kv=parse_dtype("fp8"))
    full, half, weights = (kv_cache_bytes(program, sizes, formats, context=100.0) for formats in (BF16, fp8, INT8))
    assert full == 2 * half == weights


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_whole_gathered_copy_takes_more_room_than_a_looped_one(layout: str) -> None:
    whole, looped = (lower(small_model(), layout, "heads", looped=flag) for flag in (False, True))
    copies = [float(gathered_bytes(program, Sizes(program, _CUBE, [_GROUP]), BF16)) for program in (whole, looped)]
    if LAYOUTS[layout].gathered_axes:
        assert copies[0] > copies[1] > 0
    else:
        assert copies == [0, 0]


def test_the_gathered_copy_is_the_largest_pair_of_weights_at_one_einsum() -> None:
    # a serial block of multihead attention gathers q, k and v, then o, then w_in, then w_out
    model = small_model()
    program = lower(model, "wg-xyz", "heads")
    sizes = Sizes(program, _CUBE, [_GROUP])
    assert gathered_bytes(program, sizes, BF16) == 2 * max(3 * 256 * 64 * 16, 256 * 1024)


@given(model=models(), layout=layout_names, attention=attentions, mesh=mesh_sizes, group=token_groups())
def test_buffers_that_are_reused_never_take_more_room(
    model: Model, layout: str, attention: AttentionSharding, mesh: dict[str, float], group: TokenGroup
) -> None:
    program = lower(model, layout, attention)
    sizes = Sizes(program, mesh, [group])
    reused, static = (activation_bytes(program, sizes, BF16, static=flag) for flag in (False, True))
    residual = sizes.elements(program.layout.residual) * 2
    assert residual < reused <= static


def test_static_buffers_of_a_megatron_model_are_its_tensors() -> None:
    model = small_model(n_kv_heads=64, gated=False)
    program = lower(model, "ws-1d-allreduce", "heads")
    sizes = Sizes(program, {"x": 4.0}, [_GROUP])
    tokens, d_model, heads = 64 * 64, 256, 64 * 16
    # residual, two normed inputs and two updates whole; q, k, v, mixed, and hidden before and after its function in quarters
    whole, cut = 5 * d_model, (4 * heads + 2 * 1024) / 4
    # the norm's statistics are whole where the residual is, and so no tensor of their own
    block = 2 * tokens * (whole + cut)
    # looked-up rows whole; of each sequence's last position its norm whole, its logits in quarters, the best of each
    # quarter (value and index, in full precision) before and after they are gathered
    ends = 2 * tokens * d_model + 64 * (2 * d_model + 2 * 512 / 4 + 4 * 2 * (1 + 4))
    assert activation_bytes(program, sizes, BF16, static=True) == block + ends


def test_everything_adds_up_and_caches_of_all_micro_batches_lie_there_at_once() -> None:
    program = lower(small_model(), "wg-x", "batch")
    sizes = Sizes(program, _CUBE, [_GROUP])
    one, four = (memory_bytes(program, sizes, BF16, context=100.0, n_microbatches=n) for n in (1.0, 4.0))
    assert one.total == one.weights + one.kv_cache + one.activations + one.gathered
    assert four.kv_cache == 4 * one.kv_cache
    assert (four.weights, four.activations, four.gathered) == (one.weights, one.activations, one.gathered)


@pytest.mark.parametrize("row", load_pope2022().out_of_memory, ids=lambda r: f"{r.input}-{r.output}-b{r.batch}")
def test_fastertransformer_ran_out_of_memory_where_its_buffers_do_not_fit(row: OutOfMemory) -> None:
    # Megatron's forms, a buffer for every tensor; the closest cells lie 0.5 % above the limit and 7 % below it
    fp16 = parse_dtype("fp16")
    setting = PhaseSetting(
        model=get_model(row.model),
        phase="prefill",
        layout="ws-1d-allreduce",
        attention="heads",
        formats=Formats(weights=fp16, activations=fp16, kv=fp16),
        workload=Workload(input_tokens=row.input, output_tokens=row.output),
    )
    machine = machine_of(f"{row.chip}:{row.tp}", (row.tp, 1, 1))
    engine = Engine(constants=BOUND, materialised_scores=True, static_buffers=True)
    memory = price_phase(setting, machine, np.array([float(row.batch)]), engine).memory
    limit = DEFAULT_MEMORY_SHARE * get_chip(row.chip).hbm_bytes.value
    assert bool(np.asarray(memory.total)[0] > limit) == row.ran_out
