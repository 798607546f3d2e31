"""Simulated runs as load generators write theirs."""

import json
from datetime import datetime

import numpy as np
import pytest
import shardwise
import yaml
from shardwise.hardware_specs.errors import SpecError
from shardwise.planner.export.simulated import (
    SimulatedRun,
    benchmark_report,
    check_results_file,
    vllm_results,
    write_benchmark_report,
)
from shardwise.planner.serving import simulate
from shardwise.simulator.workload.traces import read_measured

jsonschema = pytest.importorskip("jsonschema")

OPEN = {"rate_per_s": 8.0, "concurrency": None}
CLOSED = {"rate_per_s": None, "concurrency": 16}
TRAFFIC = {"open": OPEN, "closed": CLOSED, "at once": {"rate_per_s": float("inf"), "concurrency": None}}


@pytest.fixture(scope="module")
def planned():
    return shardwise.estimate("llama-3-8b", "h100-sxm:2", dp=2, batch=64, input_tokens=512, output_tokens=64)


@pytest.fixture(params=TRAFFIC)
def run(request, planned):
    traffic = TRAFFIC[request.param]
    report = simulate(planned, **traffic, n_requests=120, lengths="lognormal:0.5", ttft_s=0.5, warmup_requests=20)
    return SimulatedRun(report=report, result=planned, rank=1, burstiness=1.0, made_at=datetime(2026, 1, 1), **traffic)


@pytest.mark.parametrize("version", ["V02", "V021"])
def test_reports_keep_to_llm_d_s_schema(run, version, shared_dir):
    schema = json.loads((shared_dir / "engines" / f"BenchmarkReport{version}.schema.json").read_text())
    errors = jsonschema.Draft202012Validator(schema).iter_errors(benchmark_report(run))
    assert [f"{list(error.path)}: {error.message}" for error in errors] == []


def test_reports_of_disaggregated_servers_have_a_part_for_each(shared_dir):
    split = shardwise.estimate(
        "llama-3-8b", "h100-sxm:1", decode_on="h100-sxm:1", batch=8, input_tokens=256, output_tokens=16
    )
    report = simulate(split, rate_per_s=4.0, n_requests=40, scheduler="disaggregated")
    run = SimulatedRun(report=report, result=split, rank=1, burstiness=1.0, made_at=datetime(2026, 1, 1), **OPEN)
    document = benchmark_report(run)
    assert [part["standardized"]["role"] for part in document["scenario"]["stack"]] == ["prefill", "decode"]
    schema = json.loads((shared_dir / "engines" / "BenchmarkReportV02.schema.json").read_text())
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(document)) == []


def test_a_report_of_the_same_run_is_the_same(run, tmp_path):
    assert benchmark_report(run) == benchmark_report(run)
    write_benchmark_report(run, tmp_path / "run.yaml")
    write_benchmark_report(run, tmp_path / "run.json")
    text = (tmp_path / "run.yaml").read_text()
    assert yaml.safe_load(text) == json.loads((tmp_path / "run.json").read_text()) == benchmark_report(run)


def test_vllm_s_summary_is_in_milliseconds_and_its_lists_in_seconds(run):
    made = vllm_results(run)
    assert made["completed"] == len(made["ttfts"]) == 100
    assert made["mean_ttft_ms"] == pytest.approx(1e3 * np.mean(made["ttfts"]))
    assert made["p99_e2el_ms"] == pytest.approx(1e3 * np.quantile(made["latencies"], 0.99))
    assert made["total_input_tokens"] == sum(made["input_lens"])
    assert made["output_throughput"] == pytest.approx(sum(made["output_lens"]) / made["duration"])
    ends = [ttft + sum(gaps) for ttft, gaps in zip(made["ttfts"], made["itls"], strict=True)]
    assert ends == pytest.approx(made["latencies"])
    wanted = {f"{s}_{w}_ms" for s in ("mean", "median", "std", "p99") for w in ("ttft", "tpot", "itl", "e2el")}
    assert wanted <= set(made)
    assert made["simulated"] is True


def test_a_rate_is_a_number_or_inf(run):
    made = vllm_results(run)
    assert made["request_rate"] == ("inf" if run.rate_per_s in (None, float("inf")) else 8.0)
    assert made["max_concurrency"] == run.concurrency


def test_what_is_written_is_read_back_request_by_request(run, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(vllm_results(run)))
    back = read_measured(path)
    assert np.sort(back.ttft_s) == pytest.approx(np.sort(run.report.ttft_s))
    assert back.output_tokens.sum() == run.kept["output_tokens"].sum()


def test_files_of_other_formats_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(SpecError, match=r"run\.txt: this is written as \.yaml or \.json"):
        check_results_file(tmp_path / "run.txt", ".yaml", ".json")
