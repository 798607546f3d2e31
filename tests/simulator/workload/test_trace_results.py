"""What load generators and engines wrote of requests they served."""

import json
from copy import deepcopy

import numpy as np
import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.simulator.workload.traces import read_measured, read_trace

# The same two requests in each format: the second of the file came first. Times are sums of binary fractions, so exact.
VLLM_BENCH = {
    "backend": "vllm",
    "request_rate": "inf",
    "completed": 2,
    "total_input_tokens": 300,
    "mean_ttft_ms": 375.0,
    "input_lens": [100, 200],
    "output_lens": [3, 1],
    "ttfts": [0.25, 0.5],
    "itls": [[0.125, 0.125], []],
    "start_times": [1001.5, 1000.0],
}
_TIMINGS = ("request_start", "first_token_iteration", "last_token_iteration")
GUIDELLM = {
    "metadata": {"version": 2},
    "benchmarks": [
        {
            "requests": {
                "successful": [
                    {
                        "prompt_tokens": n_in,
                        "output_tokens": n_out,
                        "info": {"timings": dict(zip(_TIMINGS, times, strict=True))},
                    }
                    for n_in, n_out, *times in (
                        (100, 3, 1001.5, 1001.75, 1002.0),
                        (200, 1, 1000.0, 1000.5, 1000.5),
                    )
                ],
                "incomplete": [],
                "errored": [],
            }
        }
    ],
}  # fmt: skip
INFERENCE_PERF = [
    {
        "start_time": 1001.5,
        "end_time": 1002.1,
        "request": "text",
        "response": "text",
        "info": {"input_tokens": 100, "output_tokens": 3, "output_token_times": [1001.75, 1001.875, 1002.0]},
        "error": None,
    },
    {
        "start_time": 1000.0,
        "end_time": 1000.6,
        "info": {
            "request_metrics": {"text": {"input_tokens": 200}},
            "response_metrics": {"output_tokens": 1, "output_token_times": [1000.5]},
        },
        "error": None,
    },
]
# Handed over at once, but for the first of the file, which waits 1/4 s for the engine.
VLLM_RUN = [
    {
        "request_id": "bench-1",
        "input_toks": 100,
        "output_toks": 3,
        "arrival_time": 1001.5,
        "queued_ts": 51.75,
        "scheduled_ts": 51.75,
        "first_token_ts": 51.75,
        "last_token_ts": 52.0,
    },
    {
        "request_id": "bench-0",
        "input_toks": 200,
        "output_toks": 1,
        "arrival_time": 1000.0,
        "queued_ts": 50.0,
        "scheduled_ts": 50.0,
        "first_token_ts": 50.5,
        "last_token_ts": 50.5,
    },
]
DOCUMENTS = {"vllm-bench": VLLM_BENCH, "guidellm": GUIDELLM, "inference-perf": INFERENCE_PERF, "vllm-run": VLLM_RUN}


@pytest.fixture
def written(tmp_path):
    """Write the results of a tool and return the path."""

    def write(name, document, indent=None):
        text = "\n".join(map(json.dumps, document)) if name == "vllm-run" else json.dumps(document, indent=indent)
        path = tmp_path / "results.json"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_measured_requests_come_in_order_with_their_times(written, name, indent):
    run = read_measured(written(name, DOCUMENTS[name], indent))
    assert run.arrival_s.tolist() == [0.0, 1.5]
    assert run.input_tokens.tolist() == [200, 100]
    assert run.output_tokens.tolist() == [1, 3]
    assert run.ttft_s.tolist() == [0.5, 0.25]
    assert run.e2e_s.tolist() == [0.5, 0.5]
    assert "output tokens" in run.tpot_definition


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_same_requests_are_replayed(written, name):
    path = written(name, DOCUMENTS[name])
    trace, run = read_trace(path), read_measured(path)
    assert trace.format == name
    found = list(trace.arrivals(np.random.SeedSequence(0)))
    assert [a.arrival_s for a in found] == run.arrival_s.tolist()
    assert [a.input_tokens for a in found] == run.input_tokens.tolist()


def changed(name, change):
    document = deepcopy(DOCUMENTS[name])
    change(document)
    return document


def of_guidellm(document, **changes):
    document["benchmarks"][0]["requests"]["successful"][0].update(changes)


BAD_REQUESTS = [
    pytest.param("vllm-bench", lambda d: d["output_lens"].__setitem__(0, 0), "output tokens is 0", id="vllm failed"),
    pytest.param("vllm-bench", lambda d: d["ttfts"].__setitem__(0, None), "ttfts is missing", id="vllm without ttft"),
    pytest.param("vllm-bench", lambda d: d["itls"].__setitem__(0, [-1.0]), "itls is -1.0", id="vllm backwards"),
    pytest.param("vllm-bench", lambda d: d["itls"].__setitem__(0, None), "not iterable", id="vllm without gaps"),
    pytest.param("vllm-run", lambda d: d[0].pop("first_token_ts"), "no time of its first token", id="run unfinished"),
    pytest.param("vllm-run", lambda d: d[0].update(last_token_ts=51.0), "out of order", id="run backwards"),
    pytest.param("vllm-run", lambda d: d[0].update(arrival_time="x"), "arrival_time is 'x'", id="run without time"),
    pytest.param("guidellm", lambda d: of_guidellm(d, output_tokens=None), "output tokens is missing", id="guidellm empty"),
    pytest.param("guidellm", lambda d: of_guidellm(d, info={}), "no 'timings'", id="guidellm without times"),
    pytest.param("inference-perf", lambda d: d[0].update(error={"error_type": "x"}), "it failed", id="perf failed"),
    pytest.param("inference-perf", lambda d: d[0]["info"].update(output_token_times=[]), "streaming", id="perf unstreamed"),
    pytest.param("inference-perf", lambda d: d[0]["info"].pop("output_tokens"), "no 'output_tokens'", id="perf without tokens"),
    pytest.param("inference-perf", lambda d: d.insert(1, "x"), "no attribute", id="perf no object"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "said"), BAD_REQUESTS)
def test_a_request_that_was_not_served_stops_or_is_counted(written, name, change, said):
    path = written(name, changed(name, change))
    with pytest.raises(SpecError, match=f"{said}.*--skip-bad-rows"):
        read_measured(path)
    trace = read_trace(path, skip_bad_rows=True)
    n = len(list(trace.arrivals(np.random.SeedSequence(0))))
    assert trace.n_bad_rows == 1
    assert len(read_measured(path, skip_bad_rows=True).arrival_s) == n


def test_requests_guidellm_cut_off_are_not_passed_over_in_silence(written):
    path = written("guidellm", changed("guidellm", lambda d: d["benchmarks"][0]["requests"].update(incomplete=[{}])))
    with pytest.raises(SpecError, match="request 3: incomplete in the benchmark"):
        read_measured(path)
    assert len(read_measured(path, skip_bad_rows=True).arrival_s) == 2


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        pytest.param("vllm-bench", lambda d: d.pop("start_times"), "--save-detailed", id="vllm without lists"),
        pytest.param("vllm-bench", lambda d: d["ttfts"].pop(), "differ in length", id="vllm of two lengths"),
        pytest.param("guidellm", lambda d: d["benchmarks"].append({}), "2 benchmarks", id="guidellm sweep"),
        pytest.param(
            "guidellm", lambda d: d["benchmarks"][0].pop("requests"), "no list benchmarks", id="guidellm brief"
        ),
        pytest.param("guidellm", lambda d: d.update(benchmarks=None), "0 benchmarks", id="guidellm empty"),
    ],
)
def test_results_that_lack_the_requests_are_refused(written, name, change, said):
    path = written(name, changed(name, change))
    with pytest.raises(SpecError, match=said) as error:
        read_measured(path)
    assert str(path) in str(error.value)


def test_summaries_alone_are_refused_with_the_way_out(written):
    summary = {k: v for k, v in VLLM_BENCH.items() if not isinstance(v, list)}
    with pytest.raises(SpecError, match="--save-detailed"):
        read_measured(written("vllm-bench", summary))


def test_a_document_of_another_kind_than_stated_is_refused(written):
    path = written("vllm-bench", VLLM_BENCH)
    with pytest.raises(SpecError, match="a JSON dict, not a list"):
        read_measured(path, format="inference-perf")


def test_clocks_of_a_run_are_laid_so_that_no_request_is_queued_before_it_comes(shared_dir):
    for path in sorted((shared_dir / "traces" / "measured_vllm_runs").glob("*.requests.jsonl")):
        run = read_measured(path)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        queued_s = np.array([row["queued_ts"] for row in rows])
        first_s = np.array([row["first_token_ts"] for row in rows])
        waits = run.ttft_s - (first_s - queued_s)  # from arrival to the engine's queue
        # rounding of a clock at 1.8e9 s is 2.4e-7 s
        assert waits.min() == pytest.approx(0.0, abs=1e-6)
        # a request waits for the step under way, 0.2 s for the longest prefill of these
        assert waits.max() < 0.2
