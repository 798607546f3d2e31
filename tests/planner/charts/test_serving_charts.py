"""Traffic as charts: the state over time as it was recorded, goodput with intervals over seeds, limits kept by rate."""

import numpy as np
import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.api import estimate
from shardwise.planner.charts.serving import ATTAINMENT, goodput_chart, slo_map, timeline_chart
from shardwise.planner.load_sweep import RateRun, sweep_rates
from shardwise.planner.result import PlanResult
from shardwise.planner.serving import simulate


@pytest.fixture(scope="module")
def result() -> PlanResult:
    return estimate("gpt2", "l40s:1", input_tokens=64, output_tokens=16, batch=8)


@pytest.fixture(scope="module")
def runs(result: PlanResult) -> tuple[RateRun, ...]:
    return sweep_rates(result, [5.0, 20.0, 2000.0], n_seeds=3, n_requests=60, ttft_s=0.05)


def test_the_timeline_is_the_state_as_it_was_recorded(result: PlanResult) -> None:
    report = simulate(result, rate_per_s=30.0, n_requests=50)
    chart = timeline_chart(report, "t")
    assert chart.stacked
    shown = {panel.curves[0].name: panel.curves[0] for panel in chart.panels}
    assert shown["running"].x == tuple(report.series.time_s)
    assert shown["running"].y == tuple(map(float, report.series.n_running))
    assert shown["cache"].y == tuple(map(float, report.series.used_pages))
    assert shown["waiting"].y == tuple(map(float, report.series.n_waiting))


def test_a_long_run_is_thinned(result: PlanResult) -> None:
    report = simulate(result, rate_per_s=100.0, n_requests=3000)
    assert all(len(curve.x) <= 1500 for curve in timeline_chart(report, "t").curves())


def test_goodput_has_a_mean_inside_its_interval_and_none_above_the_rate_answered(runs: tuple[RateRun, ...]) -> None:
    requests, ttft, tpot = goodput_chart(runs, "t").panels
    goodput, answered, guide = requests.curves
    assert goodput.x == (5.0, 20.0, 2000.0)
    for low, mean, high in zip(goodput.low, goodput.y, goodput.high, strict=True):
        assert low <= mean <= high
    assert all(good <= all_ for good, all_ in zip(goodput.y, answered.y, strict=True))
    assert guide.x == guide.y
    assert ttft.curves[0].y[-1] > ttft.curves[0].y[0]
    assert tpot.curves[0].name == "TPOT"


def test_the_same_seeds_are_run_at_every_rate(result: PlanResult, runs: tuple[RateRun, ...]) -> None:
    alone = simulate(result, rate_per_s=20.0, n_requests=60, seed=0, ttft_s=0.05)
    np.testing.assert_array_equal(runs[1].ttft_s[: len(alone.ttft_s)], alone.ttft_s)
    assert runs[1].goodput_per_s.mean != runs[1].goodput_per_s.low


def test_the_map_has_the_share_within_each_limit_and_crosses_out_what_is_below(runs: tuple[RateRun, ...]) -> None:
    chart = slo_map(runs, "t", of="ttft")
    assert chart.xs == ("5", "20", "2000")
    assert len(set(chart.ys)) == len(chart.ys)
    for row, inside in zip(chart.values, chart.feasible, strict=True):
        assert all(0.0 <= share <= 1.0 for share in row)
        assert inside == tuple(share >= ATTAINMENT for share in row)
    columns = list(zip(*chart.values, strict=True))
    assert all(list(column) == sorted(column) for column in columns)  # a looser limit is kept by no fewer


def test_a_second_limit_can_only_take_requests_away(runs: tuple[RateRun, ...]) -> None:
    alone, both = (slo_map(runs, "t", of="ttft", tpot_s=tpot) for tpot in (None, 1e-9))
    assert all(
        b <= a for one, two in zip(alone.values, both.values, strict=True) for a, b in zip(one, two, strict=True)
    )
    assert not any(any(row) for row in both.feasible)


def test_no_seed_is_refused(result: PlanResult) -> None:
    with pytest.raises(SpecError, match="at least 1"):
        sweep_rates(result, [1.0], n_seeds=0)
