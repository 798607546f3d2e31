"""Recorded requests of every format, good and bad."""

import gzip
import json

import numpy as np
import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.simulator.workload.trace_results import conversation_lengths
from shardwise.simulator.workload.traces import read_measured, read_trace

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n"
    "2023-11-16 18:15:50.9951690,396,109\n"
    "2023-11-16 18:15:50.9951691,879,55\n"
)
MOONCAKE = "\n".join(
    json.dumps({"timestamp": t, "input_length": 1030, "output_length": 5, "hash_ids": [0, 1, 7]})
    for t in (500, 500, 2500)
)
BAILIAN = json.dumps(
    {
        "chat_id": 1,
        "parent_chat_id": -1,
        "timestamp": 61.5,
        "input_length": 20,
        "output_length": 3,
        "turn": 1,
        "hash_ids": [4, 5],
    }
)
BURST = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,1,3.2,GPT-4,472,18,490,API\n"
)
OLD_BURST = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n"
)
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,10,2\n1.75,20,3\n"
SERVING = "arrival_time_ns,input_toks,output_toks\n1000000000,10,2\n2500000000,20,3\n"
VLLM = {
    "backend": "vllm", "total_input_tokens": 30, "start_times": [100.0, 101.5], "input_lens": [10, 20], "output_lens": [3, 2],
    "ttfts": [0.1, 0.2], "itls": [[0.01, 0.02], [0.03]],
}  # fmt: skip
GUIDE = {
    "metadata": {"version": 2},
    "benchmarks": [
        {"requests": {"successful": [
            {"request_start_time": 7.0, "prompt_tokens": 10, "output_tokens": 3, "time_to_first_token_ms": 100.0,
             "request_latency": 0.13}
        ]}}
    ],
}  # fmt: skip
PERF = [
    {"start_time": 5.0, "end_time": 5.2, "error": None, "info": {
        "request_metrics": {"text": {"input_tokens": 10}},
        "response_metrics": {"output_tokens": 3, "output_token_times": [5.1, 5.11, 5.13]},
    }}
]  # fmt: skip
LOG = "\n".join(
    json.dumps({"request_id": str(i), "input_toks": 10, "output_toks": 3, "arrival_time": 1000.0 + i,
                "queued_ts": 50.0 + i + late, "scheduled_ts": 51.0 + i, "first_token_ts": 51.5 + i, "last_token_ts": 52.0 + i})
    for i, late in enumerate((0.0, 0.25))
)  # fmt: skip
SAMPLES = {
    "azure": ("a.csv", AZURE, [(0.0, 374, 44), (4.314579, 396, 109), (4.3145791, 879, 55)]),
    "mooncake": ("m.jsonl", MOONCAKE, [(0.0, 1030, 5), (0.0, 1030, 5), (2.0, 1030, 5)]),
    "bailian": ("b.jsonl", BAILIAN, [(0.0, 20, 3)]),
    "burstgpt": ("g.csv", BURST, [(0.0, 472, 18)]),
    "old burstgpt": ("g.csv", OLD_BURST, [(0.0, 472, 18)]),
    "vidur": ("v.csv", VIDUR, [(0.0, 10, 2), (1.25, 20, 3)]),
    "llmservingsim": ("l.csv", SERVING, [(0.0, 10, 2), (1.5, 20, 3)]),
    "vllm-bench": ("r.json", json.dumps(VLLM, indent=1), [(0.0, 10, 3), (1.5, 20, 2)]),
    "guidellm": ("r.json", json.dumps(GUIDE), [(0.0, 10, 3)]),
    "inference-perf": ("r.json", json.dumps(PERF), [(0.0, 10, 3)]),
    "vllm-log": ("r.jsonl", LOG, [(0.0, 10, 3), (1.0, 10, 3)]),
}
SEED = np.random.SeedSequence(0)


def _read(path, **options):
    return list(read_trace(path, **options).arrivals(SEED))


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_format_is_told_from_the_file_and_begins_at_zero(name, zipped, tmp_path):
    file_name, text, expected = SAMPLES[name]
    path = tmp_path / (file_name + ".gz" if zipped else file_name)
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    assert read_trace(path).format == name.removeprefix("old ")
    found = _read(path)
    assert [(a.input_tokens, a.output_tokens) for a in found] == [e[1:] for e in expected]
    # the Azure dates are seconds since 1970 with a tenth of a microsecond, more than a float holds
    assert [a.arrival_s for a in found] == pytest.approx([e[0] for e in expected], abs=1e-6)


def test_blocks_keep_their_hashes_and_their_size(tmp_path):
    for text, size, hashes in ((MOONCAKE, 512, (0, 1, 7)), (BAILIAN, 16, (4, 5))):
        path = tmp_path / "t.jsonl"
        path.write_text(text)
        first = _read(path)[0]
        assert (first.block_tokens, first.block_hashes) == (size, hashes)


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("2023-11-16 18:15:51,0,5", "at least 1 token"),
        ("2023-11-16 18:15:51,5,0", "at least 1 token"),
        ("2023-11-16 18:15:51,many,5", "no number of tokens"),
        ("2023-11-16 18:15:51,nan,5", "at least 1 token"),
        ("2023-11-16 18:15:51,5", "no number of tokens"),
        ("yesterday,5,5", "no date and time"),
        ("2023-11-16 18:15:40,5,5", "before the request above"),
    ],
)
def test_a_bad_row_is_reported_by_line_or_left_out_and_counted(row, word, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(AZURE + row + "\n")
    with pytest.raises(SpecError, match=f"line 5: .*{word}.*--skip-bad-rows"):
        _read(path)
    trace = read_trace(path, skip_bad_rows=True)
    assert len(list(trace.arrivals(SEED))) == 3
    assert [line for line, _ in trace.bad_rows] == [5]
    assert word in trace.bad_rows[0][1]
    assert len(list(trace.arrivals(SEED))) == 3
    assert len(trace.bad_rows) == 1


EARLY = {"timestamp": -4, "input_length": 5, "output_length": 5, "hash_ids": []}


@pytest.mark.parametrize(
    "line", ["{not json", "[1, 2]", json.dumps(EARLY), json.dumps(EARLY | {"timestamp": 9000, "hash_ids": "x"})]
)
def test_bad_lines_of_json_are_reported_too(line, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(MOONCAKE + "\n" + line + "\n")
    with pytest.raises(SpecError, match="line 4"):
        _read(path)
    assert len(_read(path, skip_bad_rows=True)) == 3


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"a,b,c\n1,2,3\n", "no header of a known trace"),
        (b"num_prefill_tokens,num_decode_tokens\n1,2\n", "--lengths"),
        (b"\x00\xff\xfe\x80binary", "cannot read|no header"),
        (b'{"some": "object"}', "no results of"),
        (b"{broken", "no JSON"),
        (b"\x1f\x8bnot really", "cannot read"),
        (AZURE.splitlines()[0].encode() + b"\n", "holds no request"),
    ],
)
def test_a_file_that_is_no_trace_says_so(content, word, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=word):
        _read(path)


def test_a_missing_file_a_folder_and_an_unknown_format_are_refused(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(SpecError, match="cannot read"):
            read_trace(path)
    (tmp_path / "a.csv").write_text(AZURE)
    with pytest.raises(SpecError, match="no trace format"):
        read_trace(tmp_path / "a.csv", format="tape")
    with pytest.raises(SpecError, match="nothing to serve"):
        read_trace(tmp_path / "a.csv", limit=0)


def test_the_limit_ends_the_stream_before_bad_rows(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(AZURE + "bad\n")
    assert len(_read(path, limit=2)) == 2


@pytest.mark.parametrize(
    ("name", "ttft", "e2e"),
    [
        ("vllm-bench", [0.1, 0.2], [0.13, 0.23]),
        ("guidellm", [0.1], [0.13]),
        ("inference-perf", [0.1], [0.13]),
        ("vllm-log", [1.5, 1.5], [2.0, 2.0]),
    ],
)
def test_measured_times_count_from_the_arrival(name, ttft, e2e, tmp_path):
    file_name, text, _ = SAMPLES[name]
    path = tmp_path / file_name
    path.write_text(text)
    run = read_measured(path)
    assert run.ttft_s == pytest.approx(ttft)
    assert run.e2e_s == pytest.approx(e2e)


def test_a_mere_trace_has_no_measured_times_and_results_without_details_none_to_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(AZURE)
    assert read_measured(path) is None
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"total_input_tokens": 30}))
    with pytest.raises(SpecError, match="per-request details"):
        read_measured(path)


def test_conversations_give_lengths_by_a_stated_number_of_characters_a_token():
    talk = [
        {"id": "x", "conversations": [{"from": "human", "value": "a" * 40}, {"from": "gpt", "value": "b" * 10}]},
        {"conversations": []},
    ]
    assert conversation_lengths(talk, 4.0) == ((10, 2),)
    with pytest.raises(SpecError, match="no conversation"):
        conversation_lengths([], 4.0)
    with pytest.raises(SpecError, match="positive"):
        conversation_lengths(talk, 0.0)


@pytest.mark.parametrize(
    ("name", "n"),
    [("AzureLLMInferenceTrace_conv_2023.csv", 19_366), ("AzureLLMInferenceTrace_code_2023.csv", 8_819),
     ("mooncake_conversation_trace.jsonl.gz", 12_031), ("mooncake_synthetic_trace.jsonl.gz", 3_993)],
)  # fmt: skip
def test_real_traces_are_read_whole(name, n, shared_dir):
    assert len(_read(shared_dir / "traces" / name)) == n
