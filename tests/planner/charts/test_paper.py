"""The paper's figures for any model, with its public points where the model and the chip are the paper's."""

import math

import pytest
from shardwise.hardware_specs.errors import SpecError, UnknownNameError
from shardwise.models.catalogue import get_model
from shardwise.planner.charts.paper import paper_charts
from shardwise.planner.charts.paper_case import PaperCase
from shardwise.planner.charts.paper_memory import longest_context, multihead_twin
from shardwise.planner.charts.published import FIGURES, published_points
from shardwise.planner.charts.rows import NAMES, chart_columns
from shardwise.planner.charts.values import Chart, Curve
from shardwise.validate.published import load_pope2022
from shardwise.validate.volumes import max_context_tokens


def case(model: str, on: str, **changes: object) -> PaperCase:
    """Small enough for a test."""
    given: dict[str, object] = {"input_tokens": 128, "output_tokens": 8, "batch": 16}
    return PaperCase(model=get_model(model), on=on, **(given | changes))  # type: ignore[arg-type]


def published(chart: Chart) -> list[Curve]:
    """The curves that are the paper's."""
    return [curve for curve in chart.curves() if curve.style == "published"]


@pytest.fixture(scope="module")
def gpus() -> dict[str, Chart]:
    charts, missing = paper_charts(case("llama-3.1-8b", "h100-sxm:4"))
    assert missing == {}
    return {chart.name: chart for chart in charts}


def test_every_figure_is_drawn_for_a_model_of_today_on_gpus(gpus: dict[str, Chart]) -> None:
    assert tuple(gpus) == FIGURES == ("1", "3", "6", "7", "8", "9", "B.1", "C.1")
    for name, chart in gpus.items():
        for panel in chart.panels:
            assert panel.curves, name
            assert "(" in panel.y.title or panel.y.title == "MFU", f"{name}: {panel.y.title} has no unit"
            for curve in panel.curves:
                assert len(curve.x) == len(curve.y) > 0
                assert all(y is not None and math.isfinite(y) and y > 0 for y in curve.y), (name, curve.name)


def test_only_figure_3_has_points_of_the_paper_for_another_model(gpus: dict[str, Chart]) -> None:
    assert [name for name, chart in gpus.items() if published(chart)] == ["3"]


def test_figures_over_chips_go_from_an_eighth_to_four_times_the_pool(gpus: dict[str, Chart]) -> None:
    assert case("llama-3.1-8b", "h100-sxm:4").counts == (1, 2, 4, 8, 16)
    assert {x for curve in gpus["6"].curves() for x in curve.x} <= {1.0, 2.0, 4.0, 8.0, 16.0}
    groups = {curve.family for curve in gpus["1"].curves()}
    assert {"1 chips, bf16", "16 chips, int8"} <= groups


def test_the_volumes_of_figure_3_lie_on_the_paper_s_points(gpus: dict[str, Chart]) -> None:
    panel = gpus["3"].panels[1]
    ours = {
        curve.name: dict(zip(curve.x, curve.y, strict=True)) for curve in panel.curves if curve.style != "published"
    }
    points = [
        (curve.group, x, y)
        for curve in panel.curves
        if curve.style == "published"
        for x, y in zip(curve.x, curve.y, strict=True)
    ]
    assert len(points) == 56
    for layout, x, y in points:
        assert ours[layout][x] == pytest.approx(y, rel=1e-3)  # read off the paper to five digits


def test_more_tokens_of_a_batch_are_on_the_axis_of_figure_7(gpus: dict[str, Chart]) -> None:
    (panel,) = gpus["7"].panels
    for curve in panel.curves:
        assert all(x % 128 == 0 for x in curve.x)
        assert all(0.0 < y <= 1.0 for y in curve.y)


def test_public_points_of_palm_are_where_the_tables_have_them() -> None:
    palm = get_model("palm-540b")
    (two,) = [c for c in published_points(palm, "tpu-v4", "6", "decode") if c.group == "ws-2d"]
    assert dict(zip(two.x, two.y, strict=True)) == pytest.approx({64.0: 92.04, 128.0: 73.04, 256.0: 67.38})
    (gathered,) = [c for c in published_points(palm, "tpu-v4", "7", "prefill") if c.group == "wg-xyz"]
    assert dict(zip(gathered.x, gathered.y, strict=True))[1048576.0] == pytest.approx(0.7695)
    decode = {c.group: list(zip(c.x, c.y, strict=True)) for c in published_points(palm, "tpu-v4", "1", "decode")}
    # Table 2: 6.0 s for 64 tokens of 512 sequences on 64 chips
    assert any(x == pytest.approx(93.75) and y == pytest.approx(11.71875) for x, y in decode["64 chips, bf16"])
    utilization = {c.group: c.y for c in published_points(palm, "tpu-v4", "C.1", "decode")}
    assert utilization == {"64 chips, int8": (0.14,), "64 chips, bf16": (0.33,)}


@pytest.mark.parametrize(
    ("model", "chip"), [("palm-540b", "tpu-v5p"), ("llama-3.1-8b", "tpu-v4"), ("palm-8b", "tpu-v4")]
)
def test_other_models_and_chips_have_no_public_points(model: str, chip: str) -> None:
    assert published_points(get_model(model), chip, "6", "decode") == ()


def test_figure_9_has_the_whole_requests_of_table_d2() -> None:
    (points,) = published_points(get_model("palm-540b"), "tpu-v4", "9", "total")
    assert len(points.x) == 9
    assert dict(zip(points.x, points.y, strict=True))[2037.0] == pytest.approx(
        0.43, abs=0.005
    )  # batch 512, printed 43 %
    gpus = published_points(get_model("mt-nlg-530b"), "a100-80gb-sxm", "9", "total")
    assert [curve.group for curve in gpus] == ["16 chips", "24 chips", "32 chips"]


def test_the_longest_contexts_are_those_of_table_1() -> None:
    paper = load_pope2022()
    for row in paper.table1:
        ours = longest_context(get_model(row.model), "tpu-v4:4x4x4", row.attention, row.batch)
        assert ours == pytest.approx(max_context_tokens(paper, row), rel=1e-9), row


def test_the_multihead_twin_has_as_many_parameters_or_nearly() -> None:
    assert multihead_twin(get_model("gpt2")) is None
    twin = multihead_twin(get_model("palm-540b-padded"))
    assert twin is not None
    # the paper halves the head of 256
    assert (twin.n_kv_heads, twin.d_head) == (64, 128)


def test_one_figure_that_cannot_be_drawn_is_an_error_and_of_all_it_is_left_out() -> None:
    small = case("llama-3.1-70b", "l40s:1", batch=1)
    with pytest.raises(SpecError, match="sends nothing"):
        paper_charts(small, ["3"])
    charts, missing = paper_charts(small)
    assert charts == () or "3" not in {chart.name for chart in charts}
    assert "sends nothing" in missing["3"]
    assert "needs" in missing["B.1"]


def test_an_unknown_figure_names_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match=r"B\.1"):
        paper_charts(case("gpt2", "l40s:1"), ["2"])


def test_every_point_is_a_row_beside_the_pictures(gpus: dict[str, Chart]) -> None:
    columns = chart_columns(list(gpus.values()))
    assert tuple(columns) == NAMES
    n = sum(len(curve.x) for chart in gpus.values() for curve in chart.curves())
    assert {len(column) for column in columns.values()} == {n}
    assert columns["kind"].count("published") == 56
