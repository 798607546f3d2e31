"""Programs: every collective between two steps is what `reshard` derives from the forms on either side."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from shardwise.models.builder import contract
from shardwise.models.description import Model
from shardwise.models.forms import AXES, Form, parse_form, without_axes
from shardwise.models.layouts import (
    ATTENTION_SHARDINGS,
    LAYOUTS,
    AttentionSharding,
    LayoutName,
    get_layout,
    parse_layout,
)
from shardwise.models.lower import lower
from shardwise.models.program import (
    Append,
    Attention,
    Collective,
    Matmul,
    Pointwise,
    ShardedProgram,
    Step,
    Tensor,
)
from shardwise.models.reshard import CollectiveKind, reshard
from shardwise.tests.strategies import small_model

_KV_HEADS = {"multihead": 64, "grouped": 8, "multiquery": 1}
_MODELS = [
    small_model(block=block, n_kv_heads=n_kv_heads, gated=gated)
    for block, n_kv_heads, gated in itertools.product(("serial", "parallel"), _KV_HEADS.values(), (False, True))
]
_PREFIXES = [AXES[:n] for n in range(4)]
_pairs = pytest.mark.parametrize(
    ("layout", "attention"),
    [pytest.param(*pair, id="/".join(pair)) for pair in itertools.product(LAYOUTS, ATTENTION_SHARDINGS)],
)


def _programs(layout: str, attention: AttentionSharding) -> Iterator[ShardedProgram]:
    for model, prefix in itertools.product(_MODELS, _PREFIXES):
        yield lower(model, layout, attention, batch_axes=prefix)


@dataclass
class _Track:
    """A tensor on its way: the form it was made in, the form it has, the moves between."""

    made: Form
    now: Form
    moves: list[tuple[CollectiveKind, tuple[str, ...], Form, Form]] = field(default_factory=list)


def _derived(*forms: Form) -> list[tuple[CollectiveKind, tuple[str, ...], Form, Form]]:
    """The moves from each form to the next; slices are free and no steps."""
    moves = [move for start, goal in itertools.pairwise(forms) for move in reshard(start, goal)]
    return [(m.kind, m.axes, m.before, m.after) for m in moves if m.kind != "slice"]


def _use(tracks: dict[str, _Track], tensor: Tensor) -> None:
    """A step reads `tensor`: it lies as the step says, and came there by the derived moves and no others."""
    track = tracks.setdefault(tensor.name, _Track(tensor.form, tensor.form))
    # what attention mixed goes back to where the queries came from, then on to W_O (Pope2022 section 3.3)
    stops = [tracks["home"].made] if tensor.name == "mixed" and not tensor.form.partial else []
    assert track.moves == _derived(track.made, *stops, tensor.form), tensor.name
    tracks[tensor.name] = _Track(tensor.form, tensor.form)


def _make(tracks: dict[str, _Track], tensor: Tensor) -> None:
    tracks[tensor.name] = _Track(tensor.form, tensor.form)


def _walk(steps: Sequence[Step], tracks: dict[str, _Track]) -> None:
    for step in steps:
        match step:
            case Matmul():
                for tensor in (*step.x, *step.weights):
                    _use(tracks, tensor)
                for tensor in step.outs:
                    _make(tracks, tensor)
            case Attention():
                _use(tracks, step.q)
                _use(tracks, step.cache)
                _make(tracks, step.out)
            case Pointwise():
                for tensor in step.reads:
                    _use(tracks, tensor)
                for tensor in step.writes:
                    _make(tracks, tensor)
                    if tensor.name == "q":
                        tracks["home"] = _Track(tensor.form, tensor.form)
            case Append():
                for new in step.new:
                    _use(tracks, new)
            case Collective():
                for tensor, after in zip(step.tensors, step.after, strict=True):
                    track = tracks.setdefault(tensor.name, _Track(tensor.form, tensor.form))
                    track.moves.append((step.kind, step.axes, tensor.form, after))
                    track.now = after


def _start(program: ShardedProgram) -> dict[str, _Track]:
    """What lies there before a block: weights as stored, and the residual under the name of each norm's input."""
    weights = [*program.only.weights, *program.first_weights, *program.last_weights]
    residual = _residual(program)
    last = Form(tuple(item for item in residual.dims if item[0] != "L"), residual.axes_of("L"))
    tracks = {tensor.name: _Track(tensor.form, tensor.form) for tensor in weights}
    tracks |= {f"{which}normed": _Track(residual, residual) for which in ("", "attention ", "ffn ")}
    return tracks | {"final normed": _Track(last, last), "residual": _Track(residual, residual)}


def _residual(program: ShardedProgram) -> Form:
    """The residual's declared form, its batch cut over the axes that divide it."""
    return without_axes(program.layout.residual, "B", program.batch_axes)


@_pairs
def test_every_collective_is_derived_from_the_forms_around_it(layout: str, attention: AttentionSharding) -> None:
    for program in _programs(layout, attention):
        for steps in (program.first, program.only.steps, program.last):
            tracks = _start(program)
            _walk(steps, tracks)
            # what no later step of the part reads has been brought to where the next part wants it
            for name, track in tracks.items():
                assert track.moves == _derived(track.made, track.now), name


@_pairs
def test_einsums_get_the_forms_the_layout_declares(layout: str, attention: AttentionSharding) -> None:
    declared = get_layout(layout)
    for program in _programs(layout, attention):

        def tokens(form: Form, program: ShardedProgram = program) -> str:
            return str(without_axes(form, "B", program.batch_axes))

        matmuls = [step for step in program.only.steps if isinstance(step, Matmul)]
        pointwise = {step.name: step for step in program.only.steps if isinstance(step, Pointwise)}
        ins = [step for step in matmuls if any(w.name == "w_in" for w in step.weights)]
        outs = [step for step in matmuls if any(w.name == "w_out" for w in step.weights)]
        assert [str(x.form) for step in ins for x in step.x] == [tokens(declared.entry)]
        assert [str(w.form) for step in ins for w in step.weights if w.name == "w_in"] == [str(declared.used)]
        assert [str(t.form) for t in pointwise["activation"].reads] == [tokens(declared.hidden)]
        assert tokens(declared.exit) in [str(x.form) for step in outs for x in step.x]
        for step in matmuls:
            made = [out.form for out in step.outs]
            products = [contract(x.form, w.form) for x in step.x for w in step.weights if _fits(x.form, w.form)]
            assert set(made) <= set(products)


def _fits(x: Form, w: Form) -> bool:
    """Whether `w` is the weight that `x` is multiplied by."""
    return bool(set(x.letters) & set(w.letters))


@_pairs
def test_the_residual_leaves_a_block_as_it_came(layout: str, attention: AttentionSharding) -> None:
    for program in _programs(layout, attention):
        adds = [step for step in program.only.steps if isinstance(step, Pointwise) and step.name.endswith("add")]
        assert len(adds) == (1 if program.model.block == "parallel" else 2)
        for step in adds:
            assert {t.form for t in (*step.reads, *step.writes)} == {_residual(program)}
        tracks = _start(program)
        _walk(program.first, tracks)
        # what is cut further costs nothing
        assert all(move.kind == "slice" for move in reshard(tracks["embedded"].now, _residual(program)))


@pytest.mark.parametrize(
    ("layout", "attention", "kv_heads", "prefix", "form"),
    [
        ("ws-1d", "heads", "multihead", AXES, "BSK_xyzQ"),
        ("ws-1d", "heads", "multiquery", AXES, "BSKQ"),
        ("ws-1d", "batch", "multihead", AXES, "B_xyzSKQ"),
        ("ws-1d", "context", "multihead", AXES, "BS_xyzKQ"),
        ("ws-1d-allreduce", "heads", "grouped", AXES, "BSK_xyzQ"),
        ("ws-1d-sequence", "heads", "grouped", AXES, "BSK_xyzQ"),
        ("ws-2d", "heads", "multihead", AXES, "BSK_zyxQ"),
        ("ws-2d", "heads", "multiquery", AXES, "BSKQ"),
        ("ws-2d", "batch", "multiquery", AXES, "B_xyzSKQ"),
        ("ws-2d", "batch", "multiquery", ("x",), "B_xSKQ"),
        ("ws-2d", "context", "multiquery", AXES, "BS_xyzKQ"),
        ("wg-x", "heads", "multihead", AXES, "B_xSK_zyQ"),
        ("wg-x", "heads", "multihead", (), "BSK_zyQ"),
        ("wg-x", "context", "grouped", AXES, "B_xS_yzKQ"),
        ("wg-xy", "heads", "multihead", AXES, "B_xySK_zQ"),
        ("wg-xy", "context", "multihead", AXES, "B_xyS_zKQ"),
        ("wg-xyz", "heads", "multihead", AXES, "B_xyzSKQ"),
        ("wg-xyz", "batch", "multiquery", ("x", "y"), "B_xySKQ"),
    ],
)
def test_the_cache_lies_as_the_layout_says(
    layout: str, attention: AttentionSharding, kv_heads: str, prefix: tuple[str, ...], form: str
) -> None:
    for block in ("serial", "parallel"):
        model = small_model(block=block, n_kv_heads=_KV_HEADS[kv_heads])
        program = lower(model, layout, attention, batch_axes=prefix)
        (step,) = (step for step in program.only.steps if isinstance(step, Attention))
        assert str(program.only.state[0].form) == str(step.cache.form) == form
        assert step.out.form.partial == program.only.state[0].form.axes_of("S")


def test_weight_gathered_layouts_store_their_weights_as_2d_weight_stationary_does() -> None:
    # Pope2022 section 3.2.3: prefill and decode share one resident copy
    for model, attention in itertools.product(_MODELS, ATTENTION_SHARDINGS):
        stationary = lower(model, "ws-2d", attention)
        for name in ("wg-x", "wg-xy", "wg-xyz"):
            gathered = lower(model, name, attention)
            assert gathered.only.weights == stationary.only.weights
            assert gathered.first_weights == stationary.first_weights
            assert gathered.last_weights == stationary.last_weights
    assert {str(w.form) for w in stationary.only.weights if w.name in ("w_in", "w_out")} == {"E_xF_zy", "F_zyE_x"}


def test_weights_are_gathered_where_the_layout_says_so_and_only_there() -> None:
    for name, layout in LAYOUTS.items():
        program = lower(small_model(), name, "heads", looped=True)
        moved = [s for s in program.only.steps if isinstance(s, Collective) and s.moves_weights]
        assert bool(moved) == bool(layout.gathered_axes)
        assert all(step.kind == "all_gather" and step.looped for step in moved)
        partners = {step.name for step in program.only.steps if isinstance(step, Matmul)}
        assert {step.partner for step in moved} <= partners


def test_a_parallel_block_has_one_norm_and_one_reduction_a_serial_one_two() -> None:
    # Pope2022 section 3.4: one of two all-reduces over the heads and the hidden axis is saved
    for layout, reduction in (("ws-1d-allreduce", "all_reduce"), ("ws-2d", "reduce_scatter")):
        for block, n in (("parallel", 1), ("serial", 2)):
            program = lower(small_model(block=block), layout, "heads")
            steps = program.only.steps
            updates = [s for s in steps if isinstance(s, Collective) and "update" in s.name and s.kind == reduction]
            norms = [s for s in steps if isinstance(s, Pointwise) and s.name.endswith("norm")]
            assert (len(updates), len(norms)) == (n, n)


def test_only_queries_and_new_keys_go_through_the_exchange_of_batch_sharded_attention() -> None:
    program = lower(small_model(n_kv_heads=1), "ws-2d", "batch")
    exchanges = [step for step in program.only.steps if isinstance(step, Collective) and step.kind == "all_to_all"]
    assert [tuple(t.name for t in step.tensors) for step in exchanges] == [("q",), ("mixed",)]
    assert [(str(step.tensors[0].form), str(step.after[0])) for step in exchanges] == [
        ("BLH_zyxQ", "B_xyzLHQ"),
        ("B_xyzLHQ", "BLH_zyxQ"),
    ]


def test_a_tied_table_lies_once_only_where_both_uses_want_it_alike() -> None:
    for name in LAYOUTS:
        first, last = _tables(lower(small_model(tied_embeddings=True), name, "heads"))
        _, untied = _tables(lower(small_model(tied_embeddings=False), name, "heads"))
        alike = Form(tuple(reversed(untied.form.dims))) == first.form
        assert (last == first) == alike
        assert untied != first


def _tables(program: ShardedProgram) -> list[Tensor]:
    """The vocabulary's table at the first and at the last end."""
    ends = (program.first_weights, program.last_weights)
    return [next(t for t in held if t.name in ("embedding", "unembedding")) for held in ends]


def test_fewer_head_axes_leave_attention_whole_over_the_others() -> None:
    for model in _MODELS:
        program = lower(model, "ws-2d", "heads", head_axes=("y", "z"))
        forms = {t.name: str(t.form) for t in program.only.weights}
        assert forms["w_q"] == "E_xH_zyQ"
        assert forms["w_in"] == "E_xF_zy"


@pytest.mark.parametrize(
    ("x", "w", "out"),
    [
        ("BLE_x", "E_xF_zy", "BLF_zy{x}"),
        ("BLF_zy", "F_zyE_x", "BLE_x{zy}"),
        ("BLH_zyQ", "H_zyQE_x", "BLE_x{zy}"),
        ("B_xyzLE", "EF", "B_xyzLF"),
    ],
)
def test_contraction_leaves_a_partial_sum_over_the_axes_of_what_it_sums(x: str, w: str, out: str) -> None:
    assert str(contract(parse_form(x), parse_form(w))) == out


@pytest.mark.parametrize(("x", "w"), [("BLE", "E_xF"), ("BLE_xy", "E_yF"), ("BLE_x", "EF")])
def test_contraction_needs_equal_index_maps(x: str, w: str) -> None:
    with pytest.raises(AssertionError, match="lies differently"):
        contract(parse_form(x), parse_form(w))


def test_names_of_layouts_are_read_with_and_without_attention() -> None:
    for name in LAYOUTS:
        assert parse_layout(name) == LayoutName(name)
        for attention in ATTENTION_SHARDINGS:
            assert parse_layout(f"{name}/{attention}") == LayoutName(name, attention)
    with pytest.raises(ValueError, match="no layout 'ws-3d'"):
        parse_layout("ws-3d/heads")
    with pytest.raises(ValueError, match="no attention or expert sharding 'head'"):
        parse_layout("ws-2d/head")


def test_models_of_one_name_and_other_widths_are_lowered_apart() -> None:
    narrow: Model = small_model(d_model=128)
    wide: Model = small_model(d_model=256)
    assert lower(narrow, "ws-1d", "heads").model.d_model == 128
    assert lower(wide, "ws-1d", "heads").model.d_model == 256


@pytest.mark.parametrize(
    ("layout", "sizes", "usable"),
    [
        ("ws-1d", (64, 1, 1), True),
        ("ws-1d", (8, 8, 1), False),
        ("ws-1d-allreduce", (16, 1, 1), True),
        ("ws-2d", (64, 1, 1), False),
        ("ws-2d", (1, 8, 8), False),
        ("wg-xyz", (4, 4, 4), True),
        ("wg-xyz", (4, 16, 1), False),
        ("wg-xy", (4, 16, 1), True),
        ("wg-xy", (4, 1, 16), False),
        ("wg-x", (4, 1, 16), True),
    ],
)
def test_a_layout_goes_by_its_name_only_where_it_is_itself(
    layout: str, sizes: tuple[int, int, int], usable: bool
) -> None:
    assert get_layout(layout).names(sizes) == usable
