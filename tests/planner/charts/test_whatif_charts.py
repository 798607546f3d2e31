"""Pictures of a what-if are its answers: the best at each x, gaps where nothing fits, the points nothing beats."""

import pytest
from shardwise.planner.charts.whatif import main_axis, whatif_charts
from shardwise.planner.whatif.ask import WhatIf, what_if
from shardwise.planner.whatif.vary import parse_vary


@pytest.fixture(scope="module")
def answer() -> WhatIf:
    vary = ["weights=fp16,int8", "batch=1..16*2", "hbm=x1,x0.0056"]
    return what_if("gpt2", "l40s:1", vary=vary, input_tokens=100, output_tokens=20)


def test_x_is_the_number_with_the_most_values() -> None:
    assert main_axis(parse_vary(["weights=bf16,int8", "batch=1,2", "input=1,2,3"])).key == "input"
    assert main_axis(parse_vary(["weights=bf16,int8", "engine=vllm"])).key == "weights"


def test_a_curve_has_the_answer_at_each_x_and_a_gap_where_nothing_fits(answer: WhatIf) -> None:
    latency, _ = whatif_charts(answer)[0].panels
    assert {curve.name for curve in latency.curves} == {
        f"{weights}, hbm {hbm}" for weights in ("fp16", "int8") for hbm in ("x1", "x0.0056")
    }
    rows = {(row["weights"], row["batch"], row["hbm"]): row for row in answer.rows()}
    for curve in latency.curves:
        weights, _, hbm = curve.name.replace("hbm ", "").partition(", ")
        own = [rows[weights, batch, hbm] for batch in (1, 2, 4, 8, 16)]
        assert curve.x == (1.0, 2.0, 4.0, 8.0, 16.0)
        assert list(curve.y) == [row["request_latency_s"] for row in own]
        assert list(curve.low) == [row["request_latency_low_s"] for row in own]
    assert any(y is None for curve in latency.curves for y in curve.y)


def test_of_more_combinations_than_can_be_told_apart_the_best_is_drawn() -> None:
    vary = ["weights=fp16,int8", "batch=1..32*2", "input=10,20,30,40,50", "link=x1,x2"]
    answer = what_if("gpt2", "l40s:1", vary=vary, output_tokens=4)
    chart = whatif_charts(answer)[0]
    assert "at the best of" in chart.says
    for curve in chart.panels[0].curves:
        key = curve.name.partition(" ")[0]
        for x, y in zip(curve.x, curve.y, strict=True):
            alike = [
                row["request_latency_s"]
                for row in answer.rows()
                if row["batch"] == x and (f"input {row['input']}" == curve.name if key == "input" else True)
            ]
            assert y == min(alike)


def test_the_front_is_what_nothing_beats(answer: WhatIf) -> None:
    (panel,) = whatif_charts(answer)[1].panels
    *clouds, front = panel.curves
    points = [point for curve in clouds for point in zip(curve.x, curve.y, strict=True)]
    assert len(points) == answer.n_fitting
    for x, y in zip(front.x, front.y, strict=True):
        assert (x, y) in points
        assert not any(a <= x and b <= y and (a, b) != (x, y) for a, b in points)


def test_names_lie_along_x_where_no_number_is_varied() -> None:
    answer = what_if("gpt2", "l40s:1", vary=["weights=fp16,int8"], input_tokens=10, output_tokens=10)
    (curve,) = whatif_charts(answer)[0].panels[0].curves
    assert (curve.x, curve.style) == (("fp16", "int8"), "points")


def test_nothing_that_fits_is_no_picture() -> None:
    answer = what_if("llama-3.1-70b", "l40s:1", vary=["batch=1,2"], input_tokens=10, output_tokens=10)
    assert whatif_charts(answer) == ()
