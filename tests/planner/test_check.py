"""Measured runs beside predictions."""

import json
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
import shardwise
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.check import check_results, step_scales
from shardwise.planner.checked import CheckedFigure, advice
from shardwise.planner.export.simulated import SimulatedRun, write_benchmark_report, write_vllm_results
from shardwise.planner.serving import simulate
from shardwise.planner.tool_figures import value_of
from shardwise.validate.load_formats import read_load_results
from shardwise.validate.load_results import DEFINITIONS, TokenCounts


@pytest.fixture(scope="module")
def planned():
    return shardwise.estimate("llama-3-8b", "h100-sxm:1", batch=64, input_tokens=512, output_tokens=64)


@pytest.fixture(scope="module")
def report(planned):
    return simulate(planned, rate_per_s=8.0, n_requests=300, lengths="lognormal:0.8")


def _measured(planned, report, path, *, write=write_vllm_results, factor=1.0, rate=8.0):
    """Write a simulated run as a measured one whose times are `factor` as long."""
    run = SimulatedRun(
        report=report,
        result=planned,
        rank=1,
        rate_per_s=rate,
        concurrency=None,
        burstiness=1.0,
        made_at=datetime(2026, 1, 1),
    )
    write(run, path)
    if factor != 1.0:
        document = json.loads(path.read_text())
        document |= {name: factor * value for name, value in document.items() if name.endswith("_ms")}
        path.write_text(json.dumps(document))
    return path


def test_a_run_that_goes_as_predicted_lies_inside(planned, report, tmp_path):
    path = _measured(planned, report, tmp_path / "run.json")
    found = check_results(planned, read_load_results(path), path, max_sequences=1024)
    assert found.is_inside
    assert found.advice == ()
    # the very requests are replayed, so the simulation meets itself
    ratios = {(f.name, f.statistic): f.ratio for f in found.figures}
    assert ratios["ttft", "mean"] == pytest.approx(1.0, rel=1e-6)
    assert ratios["tpot", "mean"] == pytest.approx(1.0, rel=1e-6)


def test_a_summary_without_requests_is_drawn_anew_with_lengths_as_varied(planned, report, tmp_path):
    path = _measured(planned, report, tmp_path / "run.yaml", write=write_benchmark_report)
    results = read_load_results(path)
    assert not results.can_replay
    assert results.outputs.cv > 0.5
    found = check_results(planned, results, path, max_sequences=1024)
    assert "on average at 8 requests/s" in found.traffic
    assert found.is_inside
    assert not any(f.judged for f in found.figures if f.statistic in ("p90", "p95", "p99"))


def test_a_run_that_is_twice_as_slow_is_outside_and_one_factor_is_named(planned, report, tmp_path):
    path = _measured(planned, report, tmp_path / "run.json", factor=2.0)
    found = check_results(planned, read_load_results(path), path, max_sequences=1024)
    assert not found.is_inside
    assert any("2.00 times what is predicted, one factor" in said and "--fit-steps" in said for said in found.advice)
    document = found.document()
    # predicted / measured - 1
    assert document["mean_error"] == pytest.approx(0.5, abs=0.01)
    assert document["inside"] is False
    assert all(row["low"] <= row["predicted"] for row in document["figures"])


def test_times_that_cancel_are_not_taken_for_success():
    phases = shardwise.estimate("gpt2", "l40s:1", input_tokens=64, output_tokens=8).best
    rows = [
        _row("ttft", measured=0.5, predicted=1.0),
        _row("tpot", measured=0.02, predicted=0.01),
        _row("e2e", measured=2.0, predicted=2.0),
    ]
    said = advice(tuple(rows), (phases.prefill, phases.decode), can_replay=False)
    assert "opposite sign" in said[0]


def _row(name, *, measured, predicted):
    return CheckedFigure(
        name=name, statistic="mean", word=name, definition="", measured=measured, predicted=predicted, low=0.9 * predicted,
        high=1.1 * predicted, judged=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([_row("ttft", measured=2.0, predicted=1.0), _row("tpot", measured=1.0, predicted=1.0)], "only TTFT is off"),
        ([_row("ttft", measured=1.0, predicted=1.0), _row("tpot", measured=2.0, predicted=1.0)], "decode is off"),
        ([_row("ttft", measured=2.0, predicted=1.0), _row("tpot", measured=2.1, predicted=1.0)], "--step-scale 2.1"),
    ],
)
def test_what_is_off_says_what_to_calibrate(rows, said):
    plan = shardwise.estimate("gpt2", "l40s:1", input_tokens=64, output_tokens=8).best
    found = advice(tuple(rows), (plan.prefill, plan.decode), can_replay=False)
    assert said in " ".join(found)
    assert "shardwise calibrate --from engines" in found[-1]


def test_one_run_has_another_tpot_in_each_tool_s_definition(report):
    n = report.columns["output_tokens"][report.kept].astype(float)
    after_first = (report.e2e_s - report.ttft_s)[n > 1] / (n[n > 1] - 1)
    vllm = value_of(report, DEFINITIONS["vllm-bench"]["tpot"], "mean")
    assert vllm == pytest.approx(after_first.mean())
    # GuideLLM: all of e2e over all tokens, which weighting by tokens makes a ratio of sums
    guide = value_of(report, DEFINITIONS["guidellm"]["time_per_output_token_ms"], "mean")
    assert guide == pytest.approx(report.e2e_s.sum() / n.sum())
    weighted = value_of(report, DEFINITIONS["guidellm"]["inter_token_latency_ms"], "mean")
    assert weighted == pytest.approx((report.e2e_s - report.ttft_s).sum() / (n - 1).sum())
    ntpot = value_of(report, DEFINITIONS["inference-perf"]["normalized_time_per_output_token"], "p50")
    assert ntpot == pytest.approx(np.quantile(report.e2e_s / n, 0.5))
    assert len({round(value, 6) for value in (vllm, guide, weighted)}) == 3


def test_a_bound_has_no_upper_end(tmp_path):
    bound = shardwise.estimate("llama-3-8b", "h100-sxm:1", input_tokens=64, output_tokens=16, bound=True)
    assert step_scales((bound.best.prefill, bound.best.decode)) == (1.0, None)
    report = simulate(bound, concurrency=4, n_requests=50)
    path = _measured(bound, report, tmp_path / "run.json", factor=50.0)
    found = check_results(bound, read_load_results(path), path, max_sequences=1024)
    ttft = next(f for f in found.figures if f.name == "ttft")
    # a measured run may be as slow as it likes, no quicker
    assert (ttft.high, ttft.is_inside, replace_measured(ttft).is_inside) == (None, True, False)


def replace_measured(figure):
    return figure.model_copy(update={"measured": figure.low / 2.0})


def test_what_is_not_like_with_like_is_said(planned, report, tmp_path):
    path = _measured(planned, report, tmp_path / "run.json")
    results = read_load_results(path)
    longer = replace(results, inputs=TokenCounts(mean=2000.0), model="meta-llama/Llama-3.1-70B", n_failed=3)
    notes = " ".join(check_results(planned, longer, path, max_sequences=1024).notes)
    assert "3 requests failed" in notes
    assert "input tokens: 2000 were measured, the plan is for 512" in notes
    assert "Llama-3.1-70B was measured" in notes


@pytest.mark.parametrize(
    ("changes", "asked", "said"),
    [
        ({"can_replay": False, "rate_per_s": None}, {}, "does not say what traffic"),
        ({"can_replay": False, "inputs": TokenCounts()}, {}, "how long the requests were"),
        ({}, {"rate_per_s": 1.0, "concurrency": 1}, "give one of them"),
    ],
)
def test_traffic_that_nobody_knows_is_refused(planned, report, tmp_path, changes, asked, said):
    path = _measured(planned, report, tmp_path / "run.json")
    with pytest.raises(SpecError, match=said):
        check_results(planned, replace(read_load_results(path), **changes), path, **asked)


def test_servers_of_two_kinds_are_simulated_as_such(tmp_path):
    work = {"input_tokens": 256, "output_tokens": 32, "batch": 16}
    split = shardwise.estimate("llama-3-8b", "h100-sxm:1", decode_on="h100-sxm:1", **work)
    path = _measured(
        split, simulate(split, rate_per_s=8.0, n_requests=200, scheduler="disaggregated"), tmp_path / "run.json"
    )
    found = check_results(split, read_load_results(path), path, max_sequences=1024)
    assert [f.ratio for f in found.figures if f.name == "ttft"] == pytest.approx([1.0] * 5)
    assert found.is_inside


def test_a_measured_run_of_vllm_lies_inside_as_the_engine_was_started(shared_dir):
    path = shared_dir / "traces" / "measured_vllm_runs" / "RTXPRO6000__Llama-3.1-8B.requests.jsonl"
    planned = shardwise.estimate(
        "llama-3.1-8b", "rtx-pro-6000-blackwell:1", batch=128, input_tokens=857, output_tokens=652
    )
    # its file says max_num_seqs 128 and max_num_batched_tokens 2048
    found = check_results(planned, read_load_results(path), path, token_budget=2048)
    assert found.is_inside
    assert all(0.75 < figure.ratio < 1.25 for figure in found.figures)
