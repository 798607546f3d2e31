"""The frontier as a page: one trace a series, batches as labels, nothing loaded from anywhere, the same bytes each time."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.api import answer
from shardwise.planner.figures import frontier_page, scatter_page, write_page
from shardwise.planner.request import make_request
from shardwise.planner.result import PlanResult
from shardwise.tests.strategies import small_model
from shardwise.validate.metrics import Prediction, parse_target
from shardwise.validate.score import ScoredRow


@pytest.fixture(scope="module")
def result() -> PlanResult:
    request = make_request(small_model(), "h100-sxm:..4", input_tokens=64, output_tokens=16)
    return answer(replace(request, prefill_batches=(1, 4, 16), decode_batches=(1, 4, 16)), top=3)


@pytest.fixture(scope="module")
def page(result: PlanResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "frontier.html"
    write_page(frontier_page(result), path)
    return path


def test_one_trace_a_series_and_its_labels_are_batches(result: PlanResult) -> None:
    figure = frontier_page(result)
    drawn = [(trace.xaxis, trace.name) for trace in figure.data]
    assert len(drawn) == len(set(drawn))
    plans = (*result.frontier, *result.plans)
    for axis, phase in (("x", "decode"), ("x2", "prefill")):
        phases = [getattr(plan, phase) for plan in plans]
        assert {name for where, name in drawn if where == axis} == {f"{p.n_chips} chips, {p.layout}" for p in phases}
        points = {
            (x, y, text)
            for trace in figure.data
            if trace.xaxis == axis
            for x, y, text in zip(trace.x, trace.y, trace.text, strict=True)
        }
        assert points == {(1e3 * p.step_s, 1e3 * p.cost_chip_s_per_token, str(p.batch)) for p in phases}


def test_a_series_has_one_colour_and_one_entry_in_the_legend(result: PlanResult) -> None:
    traces = frontier_page(result).data
    for name in {trace.name for trace in traces}:
        own = [trace for trace in traces if trace.name == name]
        assert len({trace.line.color for trace in own}) == 1
        assert [trace.showlegend for trace in own].count(True) == 1


def test_points_of_a_series_rise_in_latency(result: PlanResult) -> None:
    assert all(list(trace.x) == sorted(trace.x) for trace in frontier_page(result).data)


def test_the_page_loads_nothing_and_offers_to_send_nothing(page: Path) -> None:
    html = page.read_text("utf-8")
    scripts = re.findall(r"<script[^>]*>.*?</script>", html, re.DOTALL)
    library = max(scripts, key=len)  # plotly.js itself names addresses of map tiles and schemas, and fetches none here
    outside = html.replace(library, "")
    assert not re.search(r"<script[^>]*\ssrc=", html)
    assert not re.search(r"<(link|img|iframe|object|embed)\b", outside)
    assert "http" not in outside
    assert "plot.ly" not in outside
    assert '"showSendToCloud": false' in html
    assert '"displaylogo": false' in html


def test_the_same_result_gives_the_same_bytes(result: PlanResult, page: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.html"
    write_page(frontier_page(result), again)
    assert again.read_bytes() == page.read_bytes()


def test_a_page_that_cannot_be_written_leaves_the_old_one_and_no_other(
    result: PlanResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "page.html"
    path.write_text("old", "utf-8")

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(SpecError, match="disk full"):
        write_page(frontier_page(result), path)
    assert path.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def scored(metric: str, unit: str, value: float | None, low: float | None, high: float | None) -> ScoredRow:
    """A row predicted as 100 of its unit."""
    made = Prediction(predicted=100.0, low=low, high=high)
    row = {"source": "s", "model": "m", "metric": metric}
    return ScoredRow(row=row, target=parse_target(metric, unit), prediction=made, value=value, reason="")


def test_predicted_stands_against_measured_in_si_units_with_its_interval() -> None:
    rows = [
        scored("ttft", "ms", 50.0, 80.0, 150.0),
        scored("tpot", "s", 200.0, None, None),
        scored("output_throughput", "tok/s", 90.0, 70.0, 110.0),
        scored("ttft", "ms", None, 80.0, 150.0),
    ]
    times, rates, *lines = scatter_page(rows).data
    assert (times.x, times.y) == ((0.05, 200.0), (0.1, 100.0))
    assert times.error_y.array == pytest.approx((0.05, 0.0))
    assert times.error_y.arrayminus == pytest.approx((0.02, 0.0))
    assert (rates.x, rates.y, rates.xaxis) == ((90.0,), (100.0,), "x2")
    assert [trace.showlegend for trace in (times, rates)] == [True, False]
    assert [line.x for line in lines] == [(0.05, 200.0), (90.0, 90.0)]


def test_a_table_without_a_prediction_is_an_empty_figure() -> None:
    assert scatter_page([scored("ttft", "ms", None, None, None)]).data == ()
