"""Predicted against measured, in SI units with intervals; and what fits leave over."""

from shardwise.planner.charts.accuracy import kernel_error_chart, residual_chart, scatter_chart
from shardwise.simulator.cost.calibrated import load_fits
from shardwise.simulator.cost.kernel_times import shipped_kernel_fit
from shardwise.validate.metrics import Prediction, parse_target
from shardwise.validate.score import ScoredRow


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
    times, rates = scatter_chart(rows).panels
    points, line = times.curves
    assert (points.x, points.y) == ((0.05, 200.0), (0.1, 100.0))
    assert (points.low, points.high) == ((0.08, None), (0.15, None))
    assert line.x == line.y == (0.05, 200.0)
    assert (rates.curves[0].x, rates.curves[0].y) == ((90.0,), (100.0,))


def test_a_table_without_a_prediction_has_no_panel() -> None:
    assert scatter_chart([scored("ttft", "ms", None, None, None)]).panels == ()


def test_every_fitted_row_is_a_point() -> None:
    fits = tuple(load_fits().values())
    (panel,) = residual_chart(fits).panels
    assert [len(curve.x) for curve in panel.curves] == [len(fit.residuals) for fit in fits]


def test_every_kernel_family_is_a_bar() -> None:
    fit = shipped_kernel_fit("h100-sxm", "vllm")
    assert fit is not None
    chart = kernel_error_chart([fit])
    assert len(chart.bars) == len(chart.parts[0].values) == len(fit.families)
    assert chart.parts[0].values[0] == fit.families[0].median_error
