"""A plan's steps, rooflines and memory as charts add up to the plan's own figures; the tornado to what-if answers."""

import pytest
from shardwise.hardware_specs.catalogue import get_chip
from shardwise.models.catalogue import get_model
from shardwise.planner.api import estimate
from shardwise.planner.charts.sensitivity import tornado_chart
from shardwise.planner.charts.steps import memory_chart, roofline_chart, step_works, waterfall_chart
from shardwise.planner.result import PlanResult
from shardwise.planner.sensitivity import sensitivities
from shardwise.planner.whatif.ask import what_if

GIB = 2.0**30


@pytest.fixture(scope="module", params=["h100-sxm:4", "tpu-v4:8"])
def result(request: pytest.FixtureRequest) -> PlanResult:
    model = "llama-3.1-8b" if "h100" in request.param else "palm-8b"
    return estimate(model, request.param, input_tokens=512, output_tokens=32, batch=16)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_the_bars_of_a_waterfall_follow_each_other_and_end_with_the_pass(result: PlanResult, phase: str) -> None:
    of = getattr(result.best, phase)
    chart = waterfall_chart(of)
    totals = [sum(part.values[i] or 0.0 for part in chart.parts) for i in range(len(chart.bars))]
    for i, start in enumerate(chart.base):
        assert start == pytest.approx(sum(totals[:i]))
    assert sum(totals) == pytest.approx(1e3 * of.step_s)
    assert len(chart.bars) <= 16


def test_steps_under_the_roof_stay_under_it(result: PlanResult) -> None:
    model, best = get_model(result.model), result.best
    chip = get_chip(best.decode.chip)
    peak = max(rate.value for rate in chip.dense_flop_per_s.values())
    for phase in (best.prefill, best.decode):
        works = step_works(phase, model, result.workload)
        assert {"attention", "matmul"} <= {work.kind for work in works}
        for work in works:
            assert work.flop / work.seconds <= 1.05 * peak, work.name
    chart = roofline_chart(best, model, result.workload)
    for panel in chart.panels:
        (roof,) = [curve for curve in panel.curves if curve.style == "guide"]
        assert max(y or 0.0 for y in roof.y) <= peak / 1e12
        assert all(curve.labels for curve in panel.curves)


def test_memory_by_part_is_the_plan_s_memory_against_its_limit(result: PlanResult) -> None:
    chart, best = memory_chart(result.best), result.best
    for i, phase in enumerate((best.prefill, best.decode)):
        assert sum(part.values[i] or 0.0 for part in chart.parts) == pytest.approx(phase.memory.total / GIB)
    assert chart.limit is not None
    assert chart.limit[0] == pytest.approx(best.decode.memory.limit / GIB)


def test_the_tornado_is_what_a_what_if_answers(result: PlanResult) -> None:
    found = sensitivities(result, get_model(result.model))
    assert found.base == pytest.approx(result.best.request_latency_s)
    by_name = {row.figure: row for row in found.rows}
    hbm = what_if(result, vary=["hbm-bandwidth=x0.8,x1.25"]).rows()
    assert (by_name["HBM bandwidth"].less_value, by_name["HBM bandwidth"].more_value) == pytest.approx(
        (hbm[0]["request_latency_s"], hbm[1]["request_latency_s"])
    )
    prompts = what_if(result, vary=["input=410,640"]).rows()
    assert by_name["input tokens"].more_value == pytest.approx(prompts[1]["request_latency_s"])
    reaches = [row.reach(found.base) for row in found.rows]
    assert reaches == sorted(reaches, reverse=True)
    assert {"hardware", "workload", "model"} <= {row.kind for row in found.rows}


def test_bars_of_the_tornado_begin_at_the_answer(result: PlanResult) -> None:
    found = sensitivities(result, get_model(result.model))
    chart = tornado_chart(found, title="t")
    assert set(chart.base) == {1e3 * found.base}
    less, more = chart.parts
    for row, value in zip(found.rows, less.values, strict=False):
        wanted = None if row.less_value is None else 1e3 * (row.less_value - found.base)
        assert value == (None if wanted is None else pytest.approx(wanted))
    assert len(chart.bars) == len(more.values) == len(found.rows)
