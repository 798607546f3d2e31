"""What is enumerated, under which name, and why the rest is left out."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shardwise.hardware_specs.cluster import meshes, parse_pool
from shardwise.models.catalogue import get_model
from shardwise.models.forms import AXES
from shardwise.models.layouts import LAYOUTS, AttentionSharding
from shardwise.planner.request import PlanRequest, make_request
from shardwise.planner.space import Cells, Cut, is_canonical, microbatch_choices, misfit, phase_cells, wanted_meshes
from shardwise.tests.strategies import models, small_model


def _request(on: str, **changes: object) -> PlanRequest:
    fields: dict[str, object] = {"model": small_model(), "input_tokens": 64, "output_tokens": 16, "batch": 8}
    return make_request(**(fields | {"on": on} | changes))


def _cut(layout: str, attention: AttentionSharding, head_axes: tuple[str, ...] = AXES) -> Cut:
    return Cut(LAYOUTS[layout], attention, "tensor", head_axes)


def _cells(request: PlanRequest, phase: str, refused: Counter[str] | None = None) -> list[Cells]:
    (slice_,) = request.slices
    engine = request.calibration(slice_).engine
    return list(phase_cells(request, slice_, phase, engine, Counter() if refused is None else refused))


@pytest.mark.parametrize(
    ("sizes", "names"),
    [
        # X = 1 or YZ = 1 is the one-dimensional layout, whose axis is x; a gather over axes of size 1 goes by fewer letters
        pytest.param((1, 4, 4), set(), id="x = 1 is 1D under another mesh"),
        pytest.param((16, 1, 1), {"ws-1d", "ws-1d-allreduce", "ws-1d-sequence", "dp"}, id="one axis"),
        pytest.param((4, 4, 1), {"ws-2d", "wg-x", "wg-xy", "dp-tp"}, id="z = 1"),
        pytest.param((4, 1, 4), {"ws-2d", "wg-x", "wg-xyz", "dp-tp"}, id="y = 1"),
        pytest.param((4, 4, 4), {"ws-2d", "wg-x", "wg-xy", "wg-xyz", "dp-tp"}, id="three axes"),
    ],
)
def test_each_layout_goes_by_one_name_on_a_mesh(sizes: tuple[int, int, int], names: set[str]) -> None:
    found = {name for name in LAYOUTS if is_canonical(_cut(name, "batch"), sizes, named=False)}
    assert found == names


def test_on_one_chip_all_layouts_are_one() -> None:
    found = {
        (name, attention)
        for name in LAYOUTS
        for attention in ("heads", "batch", "context")
        if is_canonical(_cut(name, attention), (1, 1, 1), named=False)
    }
    assert found == {("ws-1d", "heads"), ("ws-1d-allreduce", "heads")}
    assert is_canonical(_cut("ws-1d-sequence", "context"), (1, 1, 1), named=True)


@pytest.mark.parametrize(
    ("changes", "layout", "head_axes", "sizes", "reason"),
    [
        pytest.param({}, "ws-1d", AXES, (64, 1, 1), None, id="everything divides"),
        pytest.param({"d_model": 250}, "ws-1d", AXES, (4, 1, 1), "d_model does not divide over the mesh", id="d_model"),
        pytest.param({"d_model": 250}, "ws-1d-allreduce", AXES, (4, 1, 1), None, id="d_model is not cut"),
        pytest.param({"d_ff": 1022}, "ws-2d", AXES, (2, 2, 1), "d_ff does not divide over the mesh", id="d_ff"),
        pytest.param({"n_heads": 6, "n_kv_heads": 6}, "ws-1d", AXES, (4, 1, 1), None, id="heads are padded"),
        pytest.param({"n_heads": 6, "n_kv_heads": 1}, "ws-2d", ("y", "z"), (2, 2, 1), None, id="fewer axes"),
        pytest.param(
            {"n_heads": 6, "n_kv_heads": 1},
            "ws-2d",
            ("y", "z"),
            (2, 4, 1),
            "n_heads does not divide over the axes chosen",
            id="fewer axes do not divide either",
        ),
        pytest.param(
            {"n_heads": 24, "n_kv_heads": 8},
            "ws-1d",
            AXES,
            (16, 1, 1),
            "query groups do not divide over the mesh",
            id="a group would be torn",
        ),
        pytest.param({"n_heads": 48, "n_kv_heads": 8}, "ws-1d", AXES, (16, 1, 1), None, id="key-value heads repeat"),
    ],
)
def test_a_layout_that_does_not_fit_a_mesh_says_why(
    changes: dict[str, int], layout: str, head_axes: tuple[str, ...], sizes: tuple[int, int, int], reason: str | None
) -> None:
    assert misfit(small_model(**changes), _cut(layout, "heads", head_axes), sizes) == reason


@given(
    model=models(divisible=True), layout=st.sampled_from(sorted(LAYOUTS)), sizes=st.sampled_from([(2, 4, 8), (4, 4, 1)])
)
def test_a_model_whose_dimensions_all_divide_fits_every_mesh(
    model: object, layout: str, sizes: tuple[int, int, int]
) -> None:
    assert misfit(model, _cut(layout, "heads"), sizes) is None


def test_every_mesh_and_layout_of_the_paper_is_tried_for_palm() -> None:
    request = _request("tpu-v4:4x4x4", model=get_model("palm-540b"), batch=512)
    prefill, decode = _cells(request, "prefill"), _cells(request, "decode")
    everything = {"ws-1d", "ws-2d", "wg-x", "wg-xy", "wg-xyz"}
    assert {cells.setting.layout for cells in prefill} == everything
    assert {cells.setting.layout for cells in decode} == everything
    assert {cells.setting.attention for cells in decode} == {"heads", "batch", "context"}
    # a prompt's pass writes the cache; splitting it over context is for decode, which reads all of it for one token
    assert {cells.setting.attention for cells in prefill} == {"heads", "batch"}
    assert {cells.setting.pp for cells in prefill} == {1}


def test_gpus_are_cut_into_stages_and_replicas() -> None:
    cells = _cells(_request("h100-sxm:8", model=small_model(n_layers=8)), "decode")
    assert {(c.setting.pp, c.setting.dp) for c in cells} == {
        (pp, dp) for pp in (1, 2, 4, 8) for dp in (1, 2, 4, 8) if pp * dp <= 8
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"model": small_model(n_layers=2)}, "more pipeline stages than layers", id="stages"),
        pytest.param({"batch": 3}, "batch does not divide over the replicas", id="replicas"),
        pytest.param({"model": small_model(d_ff=1023)}, "d_ff does not divide over the mesh", id="d_ff"),
    ],
)
def test_what_is_left_out_is_counted_with_a_reason(changes: dict[str, object], reason: str) -> None:
    refused: Counter[str] = Counter()
    _cells(_request("h100-sxm:8", **changes), "prefill", refused)
    assert refused[reason] > 0


@pytest.mark.parametrize(
    ("pinned", "held"),
    [
        pytest.param({"tp": 4}, lambda cells: {m.tp for m in cells.meshes} == {4}, id="tp"),
        pytest.param({"pp": 2}, lambda cells: cells.setting.pp == 2, id="pp"),
        pytest.param({"dp": 2}, lambda cells: cells.setting.dp == 2, id="dp"),
        pytest.param({"mesh": "8x1x1"}, lambda cells: {m.sizes for m in cells.meshes} == {(8, 1, 1)}, id="mesh"),
        pytest.param(
            {"decode": "ws-1d-allreduce/heads"}, lambda cells: cells.setting.attention == "heads", id="layout"
        ),
        pytest.param({"page_size": (16, 64)}, lambda cells: cells.setting.page_size in (16, 64), id="page size"),
    ],
)
def test_what_the_request_pins_is_held(pinned: dict[str, object], held: object) -> None:
    cells = _cells(_request("h100-sxm:8", model=small_model(n_layers=8), **pinned), "decode")
    assert cells
    assert all(held(c) for c in cells)


def test_balanced_meshes_come_first() -> None:
    request = _request("tpu-v4:4x4x4")
    (slice_,) = request.slices
    found = wanted_meshes(request, slice_, 1, 1)
    assert found[0].sizes == (4, 4, 4)
    assert sorted(m.mapping for m in found) == sorted(m.mapping for m in meshes(slice_))


def test_micro_batches_divide_the_batch_and_follow_the_engines_own_rule() -> None:
    request = _request("a100-80gb-sxm:4", model=small_model(n_layers=6), pp=2, dp=1)
    (slice_,) = request.slices
    engine = request.calibration(slice_).engine
    for phase in ("prefill", "decode"):
        for cells in _cells(request, phase):
            free = microbatch_choices(cells.setting, 12, replace(engine, microbatch_tokens=None))
            assert all(12 % n == 0 for n in free)
            assert {1, 2, 4} <= set(free)
            # 12 sequences of 64 tokens by 2 stages: 6 x 64 = 384 tokens are within 1024
            assert microbatch_choices(cells.setting, 12, replace(engine, microbatch_tokens=1024)) == [2]


def test_decode_without_stages_is_not_cut_into_micro_batches() -> None:
    request = _request("h100-sxm:4")
    assert {int(n) for cells in _cells(request, "decode") if cells.setting.pp == 1 for n in cells.n_microbatches} == {1}


def test_a_pool_up_to_a_count_is_every_slice_of_every_count() -> None:
    upto = {str(slice_) for slice_ in _request("h100-sxm:..16").slices}
    exact = {str(slice_) for n in (*range(1, 9), 16) for slice_ in parse_pool(f"h100-sxm:{n}")}
    assert upto == exact
