"""What load generators write, in their own words and units, as figures with their definitions."""

import json
import math

import pytest
import yaml
from shardwise.hardware_specs.errors import SpecError
from shardwise.validate.load_formats import read_load_results

# Two requests, 100 tokens in and 5 out each: first tokens after 0.2 and 0.4 s, last after 0.6 and 1.2 s.
# So TPOT is 0.1 and 0.2 s after the first token, 0.12 and 0.24 s over all of them.
VLLM = {
    "date": "20261122-100000", "backend": "vllm", "model_id": "org/model", "request_rate": "inf", "max_concurrency": 2,
    "burstiness": 1.0, "completed": 2, "failed": 1, "total_input_tokens": 200, "total_output_tokens": 10, "duration": 2.0,
    "output_throughput": 5.0, "request_throughput": 1.0, "mean_ttft_ms": 300.0, "median_ttft_ms": 300.0, "p99_ttft_ms": 398.0,
    "mean_tpot_ms": 150.0, "mean_itl_ms": 150.0, "mean_e2el_ms": 900.0,
}  # fmt: skip
SGLANG = {
    "backend": "sglang", "request_rate": math.inf, "max_concurrency": 2, "completed": 2, "total_input_tokens": 200,
    "total_output_tokens": 10, "total_output_tokens_retokenized": 10, "output_throughput": 5.0, "request_throughput": 1.0,
    "mean_ttft_ms": 300.0, "mean_tpot_ms": 150.0, "mean_itl_ms": 150.0, "mean_e2e_latency_ms": 900.0,
}  # fmt: skip


def _successful(mean, std_dev=0.0):
    return {
        "successful": {
            "mean": mean,
            "std_dev": std_dev,
            "percentiles": {"p50": mean, "p90": mean, "p95": mean, "p99": mean},
        }
    }


GUIDELLM = {
    "metadata": {"version": 2},
    "benchmarks": [
        {
            "config": {"strategy": {"type_": "concurrent", "streams": 2}},
            "metrics": {
                "request_totals": {"successful": 2, "errored": 1},
                "time_to_first_token_ms": _successful(300.0),
                "time_per_output_token_ms": _successful(180.0),
                "inter_token_latency_ms": _successful(150.0),
                "request_latency": _successful(0.9),
                "prompt_token_count": _successful(100.0),
                "output_token_count": _successful(5.0),
            },
        }
    ],
}
AIPERF = {
    "aiperf_version": "0.13.0",
    "request_latency": {"unit": "ms", "avg": 900.0, "p50": 900.0},
    "time_to_first_token": {"unit": "ms", "avg": 300.0},
    "inter_token_latency": {"unit": "ms", "avg": 150.0},
    "output_token_throughput": {"unit": "tokens/sec", "avg": 5.0},
    "request_throughput": {"unit": "requests/sec", "avg": 1.0},
    "request_count": {"unit": "requests", "avg": 2.0},
    "error_request_count": {"unit": "requests", "avg": 1.0},
    "input_sequence_length": {"unit": "tokens", "avg": 100.0, "std": 0.0},
    "output_sequence_length": {"unit": "tokens", "avg": 5.0, "std": 0.0},
    "input_config": {
        "phases": [
            {"name": "warmup", "type": "concurrency", "concurrency": 1},
            {"name": "profiling", "type": "concurrency", "concurrency": 2},
        ]
    },
}
PERF = {
    "load_summary": {"count": 3, "concurrency": 2, "requested_rate": 50.0},
    "successes": {
        "count": 2,
        "latency": {
            "request_latency": {"mean": 0.9, "median": 0.9},
            "time_to_first_token": {"mean": 0.3},
            "time_per_output_token": {"mean": 0.15},
            "normalized_time_per_output_token": {"mean": 0.18},
            "inter_token_latency": {"mean": 0.15},
        },
        "throughput": {"output_tokens_per_sec": 5.0, "requests_per_sec": 1.0},
        "prompt_tokens": {"mean": 100.0},
        "output_len": {"mean": 5.0},
    },
    "failures": {"count": 1},
}


def _report(tool):
    def statistics(units, mean):
        return {"units": units, "mean": mean, "stddev": 0.0}

    return {
        "version": "0.2",
        "run": {"uid": "x"},
        "scenario": {
            "stack": [{"standardized": {"model": {"name": "org/model"}}}],
            "load": {"standardized": {"tool": tool, "tool_version": "1", "concurrency": 2}},
        },
        "results": {
            "request_performance": {
                "aggregate": {
                    "requests": {
                        "total": 3,
                        "failures": 1,
                        "input_length": statistics("count", 100.0),
                        "output_length": statistics("count", 5.0),
                    },
                    "latency": {
                        "time_to_first_token": statistics("ms", 300.0),
                        "time_per_output_token": statistics("s/token", 0.15),
                        "request_latency": statistics("s", 0.9),
                    },
                    "throughput": {
                        "output_token_rate": statistics("tokens/s", 5.0),
                        "request_rate": statistics("queries/s", 1.0),
                    },
                }
            }
        },
    }


FILES = {
    "vllm-bench": VLLM, "sglang-bench": SGLANG, "guidellm": GUIDELLM, "aiperf": AIPERF, "inference-perf": PERF,
    "report": _report("inference-perf"),
}  # fmt: skip


@pytest.fixture
def written(tmp_path):
    """Write results and return their path."""

    def write(document, name="results.json"):
        path = tmp_path / name
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return write


def _means(results):
    return {f.definition.quantity: f.value for f in results.figures if f.statistic == "mean"}


@pytest.mark.parametrize("name", FILES)
def test_the_same_run_in_every_tool_s_words_is_the_same_seconds(written, name):
    results = read_load_results(written(FILES[name]))
    expected = {
        "ttft": 0.3,
        "tpot": 0.15,
        "ntpot": 0.18,
        "itl": 0.15,
        "e2e": 0.9,
        "output_tokens_per_s": 5.0,
        "requests_per_s": 1.0,
    }
    found = _means(results)
    assert {"ttft", "tpot", "e2e"} <= set(found)
    assert found == pytest.approx({quantity: expected[quantity] for quantity in found})
    assert (results.n_requests, results.concurrency, results.rate_per_s) == (2, 2, None)
    assert (results.inputs.mean, results.outputs.mean) == (100.0, 5.0)
    assert results.n_failed == (0 if name == "sglang-bench" else 1)


@pytest.mark.parametrize(
    ("name", "word", "quantity", "weight"),
    [
        ("vllm-bench", "tpot", "tpot", "requests"),
        # guidellm#1144: its TPOT counts the first token and weighs by tokens, its ITL is what others call TPOT
        ("guidellm", "time_per_output_token_ms", "ntpot", "tokens"),
        ("guidellm", "inter_token_latency_ms", "tpot", "tokens"),
        ("aiperf", "inter_token_latency", "tpot", "requests"),
        ("inference-perf", "normalized_time_per_output_token", "ntpot", "requests"),
        ("inference-perf", "inter_token_latency", "itl", "gaps"),
    ],
)
def test_each_tool_s_word_keeps_its_own_definition(written, name, word, quantity, weight):
    results = read_load_results(written(FILES[name]))
    (definition,) = {f.definition for f in results.figures if f.definition.word == word}
    assert (definition.quantity, definition.weight) == (quantity, weight)
    assert definition.formula


def test_a_report_has_the_words_of_the_tool_in_it(written):
    results = read_load_results(written(yaml.safe_dump(_report("guideLLM")), "report.yaml"))
    (tpot,) = {f.definition for f in results.figures if "per_output_token" in f.definition.word}
    assert (results.tool, tpot.quantity) == ("guideLLM", "ntpot")


def test_a_run_of_several_is_named(written):
    lines = "\n".join(json.dumps(SGLANG | {"mean_ttft_ms": ttft}) for ttft in (100.0, 200.0))
    path = written(lines, "results.jsonl")
    with pytest.raises(SpecError, match="holds 2 runs; name one with --run 1 to 2"):
        read_load_results(path)
    assert _means(read_load_results(path, 2))["ttft"] == 0.2
    with pytest.raises(SpecError, match="not run 3"):
        read_load_results(path, 3)


def test_traffic_is_open_where_it_has_a_rate(written):
    results = read_load_results(written(VLLM | {"request_rate": 4.0, "max_concurrency": None, "burstiness": 0.5}))
    assert (results.rate_per_s, results.concurrency, results.arrivals, results.burstiness) == (4.0, None, "gamma", 0.5)
    constant = {"config": {"strategy": {"type_": "constant", "rate": 3.0}}}
    results = read_load_results(written({"benchmarks": [GUIDELLM["benchmarks"][0] | constant]}))
    assert (results.rate_per_s, results.arrivals) == (3.0, "even")


def test_requests_without_a_summary_are_summed_up_here(written):
    runs = [
        {"start_time": 10.0, "info": {"input_tokens": 100, "output_tokens": 5, "output_token_times": [10.2, 10.6]}},
        {"start_time": 11.0, "info": {"input_tokens": 100, "output_tokens": 5, "output_token_times": [11.4, 12.2]}},
    ]
    results = read_load_results(written(runs))
    assert (results.tool, results.can_replay) == ("inference-perf", True)
    assert _means(results) == pytest.approx({"ttft": 0.3, "tpot": 0.15, "e2e": 0.9})


def test_a_measured_run_of_vllm_is_read(shared_dir):
    results = read_load_results(
        shared_dir / "traces" / "measured_vllm_runs" / "RTXPRO6000__Llama-3.1-8B.requests.jsonl"
    )
    assert (results.tool, results.n_requests, results.can_replay) == ("vllm-run", 300, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"latency": 3}', "results of no tool that is known; known are vllm-bench"),
        ("[]", "results of no tool"),
        ("not json", "cannot be read"),
        (json.dumps(VLLM | {"completed": 0}), "answered 0 requests"),
        (json.dumps({k: v for k, v in VLLM.items() if k != "completed"}), "results of vllm-bench without 'completed'"),
        (json.dumps(AIPERF | {"time_to_first_token": {"unit": "weeks", "avg": 1.0}}), "unit 'weeks'"),
    ],
)
def test_files_that_are_no_results_are_refused(written, text, said):
    with pytest.raises(SpecError, match=said):
        read_load_results(written(text))


def test_no_file_is_said_as_such(tmp_path):
    with pytest.raises(SpecError, match="no file"):
        read_load_results(tmp_path / "none.json")
