"""The frontier as a chart: one curve a chip count and layout, batches as labels, points by rising latency."""

from dataclasses import replace

import pytest
from shardwise.planner.api import answer
from shardwise.planner.charts.frontier import frontier_chart
from shardwise.planner.request import make_request
from shardwise.planner.result import PlanResult
from shardwise.tests.strategies import small_model


@pytest.fixture(scope="module")
def result() -> PlanResult:
    request = make_request(small_model(), "h100-sxm:..4", input_tokens=64, output_tokens=16)
    return answer(replace(request, prefill_batches=(1, 4, 16), decode_batches=(1, 4, 16)), top=3)


def test_one_curve_a_series_and_its_labels_are_batches(result: PlanResult) -> None:
    plans = (*result.frontier, *result.plans)
    for panel, phase in zip(frontier_chart(result).panels, ("decode", "prefill"), strict=True):
        phases = [getattr(plan, phase) for plan in plans]
        assert {curve.name for curve in panel.curves} == {f"{p.n_chips} chips, {p.layout}" for p in phases}
        points = {point for c in panel.curves for point in zip(c.x, c.y, c.labels, strict=True)}
        assert points == {(1e3 * p.step_s, 1e3 * p.cost_chip_s_per_token, str(p.batch)) for p in phases}


def test_points_of_a_series_rise_in_latency(result: PlanResult) -> None:
    for curve in frontier_chart(result).curves():
        assert list(curve.x) == sorted(curve.x)
