"""Recorded traffic: every format, and every way a file can be wrong."""

import gzip
import json
from itertools import pairwise

import numpy as np
import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.simulator.workload.traces import FORMATS, read_measured, read_sharegpt, read_trace

SEED = np.random.SeedSequence(0)
HASHED = {"timestamp": 0, "input_length": 1025, "output_length": 9, "hash_ids": [0, 7, 8]}

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 23:59:59.9999999,374,44
2023-11-17 00:00:00.0000001,396,109
2023-11-17 00:00:00.0000001,879,55
2023-11-17 00:01:00,91,16
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.017335+00:00,2399,6
"""
VIDUR = """arrived_at,num_prefill_tokens,num_decode_tokens
10.5,100,10
11.25,200.0,20
"""
LLMSERVINGSIM = """arrival_time_ns,input_toks,output_toks
46926808,2358,531
347938951,1034,769
"""
BURSTGPT_1 = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45.5,ChatGPT,1087,230,1317,Conversation log
"""
BURSTGPT_2 = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5,1001,3.2,ChatGPT,472,18,490,Conversation log
45.5,,9.9,ChatGPT,1087,230,1317,Conversation log
"""


def lines(*objects):
    return "".join(json.dumps(found) + "\n" for found in objects)


MOONCAKE = lines(HASHED, HASHED | {"timestamp": 1500, "hash_ids": [0, 9]})
BAILIAN = lines(HASHED | {"timestamp": 61.25, "chat_id": 1, "turn": 1}, HASHED | {"timestamp": 61.5, "chat_id": 2})

TRACES = [
    pytest.param(AZURE, "azure", (0.0, 2e-7, 2e-7, 60.0000001), (374, 396, 879, 91), id="azure"),
    pytest.param(AZURE_2024, "azure", (0.0, 0.007405), (2162, 2399), id="azure 2024"),
    pytest.param(VIDUR, "vidur", (0.0, 0.75), (100, 200), id="vidur"),
    pytest.param(LLMSERVINGSIM, "llmservingsim", (0.0, 0.301012143), (2358, 1034), id="llmservingsim"),
    pytest.param(BURSTGPT_1, "burstgpt", (0.0, 40.5), (472, 1087), id="burstgpt 1.1"),
    pytest.param(BURSTGPT_2, "burstgpt", (0.0, 40.5), (472, 1087), id="burstgpt 1.2"),
    pytest.param(MOONCAKE, "mooncake", (0.0, 1.5), (1025, 1025), id="mooncake"),
    pytest.param(BAILIAN, "bailian", (0.0, 0.25), (1025, 1025), id="bailian"),
]  # fmt: skip


@pytest.fixture
def written(tmp_path):
    """Write a file and return its path."""

    def write(text, name="trace"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def requests(trace):
    return list(trace.arrivals(SEED))


@pytest.mark.parametrize(("text", "format", "times_s", "inputs"), TRACES)
def test_a_trace_is_known_by_what_is_in_it_and_begins_at_0(written, text, format, times_s, inputs):
    trace = read_trace(written(text))
    assert trace.format == format
    found = requests(trace)
    # a nanosecond: times of seven digits and more are kept, whatever the date
    assert [a.arrival_s for a in found] == pytest.approx(times_s, abs=1e-9)
    assert tuple(a.input_tokens for a in found) == inputs
    assert requests(trace) == found
    assert (trace.n_bad_rows, trace.bad_rows, trace.n_requests) == (0, [], None)


@pytest.mark.parametrize(("text", "format", "times_s", "inputs"), TRACES)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: gzip.compress(text.encode()), id="gzipped"),
        pytest.param(lambda text: text.replace("\n", "\r\n"), id="lines of Windows"),
        pytest.param(lambda text: text.encode("utf-8-sig"), id="byte order mark"),
        pytest.param(lambda text: text.rstrip("\n"), id="no last newline"),
        pytest.param(lambda text: text.replace("\n", "\n\n"), id="blank lines"),
    ],
)
def test_how_the_text_is_written_does_not_matter(written, text, format, times_s, inputs, change):
    assert requests(read_trace(written(change(text), "changed"))) == requests(read_trace(written(text)))


def test_hashes_come_with_the_tokens_of_their_blocks(written):
    first, second = requests(read_trace(written(MOONCAKE)))
    assert (first.block_hashes, first.block_tokens) == ((0, 7, 8), 512)
    assert second.block_hashes == (0, 9)
    assert requests(read_trace(written(BAILIAN)))[0].block_tokens == 16


def test_a_row_without_hashes_shares_nothing(written):
    (found,) = requests(read_trace(written(lines({k: v for k, v in HASHED.items() if k != "hash_ids"}))))
    assert (found.block_hashes, found.block_tokens) == ((), 0)


def test_a_stated_format_is_not_second_guessed(written):
    path = written(MOONCAKE)
    assert requests(read_trace(path, format="bailian"))[1].arrival_s == 1500.0
    with pytest.raises(SpecError, match="TIMESTAMP"):
        requests(read_trace(path, format="azure"))
    with pytest.raises(SpecError, match="did you mean mooncake"):
        read_trace(path, format="moncake")


def test_a_limit_reads_no_further(written):
    path = written(VIDUR + "nonsense\n")
    assert len(requests(read_trace(path, limit=2))) == 2
    assert len(requests(read_trace(path, limit=9, skip_bad_rows=True))) == 2
    with pytest.raises(SpecError):
        read_trace(path, limit=0)


def test_a_rate_scale_makes_requests_come_faster(written):
    path = written(VIDUR)
    assert [a.arrival_s for a in requests(read_trace(path, rate_scale=3.0))] == [0.0, 0.25]
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SpecError, match="rate_scale"):
            read_trace(path, rate_scale=scale)


def test_a_trace_is_read_as_a_stream(written):
    """Ten rows of a file that is broken further down are served without a look at the rest."""
    path = written(VIDUR + "12,1,1\n" * 200_000 + "nonsense\n")
    stream = read_trace(path).arrivals(SEED)
    assert [next(stream).output_tokens for _ in range(10)] == [10, 20] + [1] * 8
    with pytest.raises(SpecError, match="line 200004"):
        list(stream)


GOOD_VIDUR_ROW = "20,1,1\n"
BAD_VIDUR_ROWS = [
    pytest.param("12,many,1", "num_prefill_tokens is 'many'", id="no number"),
    pytest.param("12,,1", "num_prefill_tokens is ''", id="nothing"),
    pytest.param("12,1.5,1", "no whole number", id="half a token"),
    pytest.param("12,0,1", "between 1 and", id="no input"),
    pytest.param("12,1,0", "num_decode_tokens is 0", id="no output"),
    pytest.param("12,1,-5", "num_decode_tokens is -5", id="negative output"),
    pytest.param("12,1,nan", "no whole number", id="output nan"),
    pytest.param("12,1,1e300", "between 1 and", id="output beyond measure"),
    pytest.param("12," + "9" * 5000 + ",1", "between 1 and", id="input of five thousand digits"),
    pytest.param("nan,1,1", "arrived_at is 'nan'", id="time nan"),
    pytest.param("inf,1,1", "arrived_at is 'inf'", id="time inf"),
    pytest.param("-3,1,1", "arrived_at is '-3'", id="negative time"),
    pytest.param("noon,1,1", "arrived_at is 'noon'", id="time no number"),
    pytest.param("3,1,1", "before the request above it", id="backwards"),
    pytest.param("12,1", "2 fields", id="a field short"),
    pytest.param("12,1,1,1", "4 fields", id="a field over"),
]


@pytest.mark.parametrize(("row", "said"), BAD_VIDUR_ROWS)
def test_a_bad_row_stops_with_its_line_or_is_counted(written, row, said):
    path = written(f"{VIDUR}{row}\n{GOOD_VIDUR_ROW}")
    with pytest.raises(SpecError) as error:
        requests(read_trace(path))
    for part in (str(path), "line 4", said, "--skip-bad-rows"):
        assert part in str(error.value)
    trace = read_trace(path, skip_bad_rows=True)
    assert len(requests(trace)) == 3
    assert trace.n_bad_rows == 1
    assert trace.bad_rows[0].place == 4
    assert said in trace.bad_rows[0].reason


@pytest.mark.parametrize(
    ("row", "said"),
    [
        pytest.param("{", "no JSON", id="torn"),
        pytest.param("[1, 2]", "no JSON object", id="list"),
        pytest.param("[" * 100_000, "no JSON", id="deep"),
        pytest.param(json.dumps({"timestamp": 9000}), "input_length is missing", id="keys missing"),
        pytest.param(json.dumps(HASHED | {"timestamp": None}), "timestamp is missing", id="no time"),
        pytest.param(json.dumps(HASHED | {"timestamp": float("nan")}), "timestamp is nan", id="time nan"),
        pytest.param(json.dumps(HASHED | {"timestamp": True}), "timestamp is True", id="time of truth"),
        pytest.param(json.dumps(HASHED | {"timestamp": 3}), "before the request above it", id="backwards"),
        pytest.param(json.dumps(HASHED | {"timestamp": 9000, "output_length": 0}), "output_length is 0", id="empty"),
        pytest.param(json.dumps(HASHED | {"timestamp": 9000, "output_length": [1]}), "no whole number", id="nested"),
        pytest.param(json.dumps(HASHED | {"timestamp": 9000, "hash_ids": ["a"]}), "hash_ids", id="hashes of text"),
        pytest.param(json.dumps(HASHED | {"timestamp": 9000, "hash_ids": 4}), "hash_ids", id="hashes no list"),
    ],
)
def test_a_bad_line_of_json_stops_with_its_line_or_is_counted(written, row, said):
    path = written(f"{MOONCAKE}{row}\n{lines(HASHED | {'timestamp': 9999})}")
    with pytest.raises(SpecError, match=r"line 3: .*--skip-bad-rows"):
        requests(read_trace(path))
    trace = read_trace(path, skip_bad_rows=True)
    assert len(requests(trace)) == 3
    assert said in trace.bad_rows[0].reason


@pytest.mark.parametrize("date", ["yesterday", "2023-13-01 00:00:00", "2023-11-18 00:00:00.abc", "", "0.5"])
def test_a_date_that_is_none_is_a_bad_row(written, date):
    with pytest.raises(SpecError, match=r"line 6: TIMESTAMP is .*no date"):
        requests(read_trace(written(f"{AZURE}{date},1,1\n")))


def test_failed_requests_of_burstgpt_are_bad_rows(written):
    trace = read_trace(written(BURSTGPT_1 + "50,GPT-4,300,0,300,API log\n"), skip_bad_rows=True)
    assert len(requests(trace)) == 2
    assert "Response tokens is 0" in trace.bad_rows[0].reason


def test_bad_rows_are_those_of_the_latest_reading(written):
    trace = read_trace(written(VIDUR + "x,y,z\n" * 1000), skip_bad_rows=True)
    assert len(requests(trace)) == 2
    assert trace.n_bad_rows == 1000
    requests(trace)
    assert trace.n_bad_rows == len(trace.bad_rows) == 1000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "is empty", id="nothing"),
        pytest.param("\n\n", "is empty", id="blank lines"),
        pytest.param("time,in,out\n1,2,3\n", "none of the formats", id="other columns"),
        pytest.param("5,472,18\n", "none of the formats", id="no header"),
        pytest.param("num_prefill_tokens,num_decode_tokens\n1,2\n", "--lengths", id="lengths alone"),
        pytest.param('[{"conversations": []}]', "CHARS_PER_TOKEN", id="conversations"),
        pytest.param('{"a": 1}\n', "none of the formats", id="other object"),
        pytest.param("[]", "none of the formats", id="empty list"),
        pytest.param('{\n "timestamp": 0,\n', "cannot be read", id="torn document"),
        pytest.param("[" * 100_000, "cannot be read", id="deep document"),
        pytest.param(bytes(range(256)), "cannot be read", id="bytes"),
        pytest.param(b"\x00" * 1000, "none of the formats", id="zeros"),
        pytest.param(b"\x1f\x8b" + bytes(100), "cannot be read", id="no gzip after all"),
        pytest.param(gzip.compress(VIDUR.encode())[:30], "cannot be read", id="torn gzip"),
        pytest.param('"' + "a" * 200_000, "cannot be read", id="quote without end"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_by_name(written, text, said):
    path = written(text)
    with pytest.raises(SpecError, match=said) as error:
        read_trace(path)
    assert str(path) in str(error.value)


def test_files_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(SpecError, match="no file"):
        read_trace(tmp_path / "none.csv")
    with pytest.raises(SpecError, match="is a folder"):
        read_trace(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("arrived_at,num_prefill_tokens,num_decode_tokens\n", "holds no request", id="header alone"),
        pytest.param("arrived_at,num_prefill_tokens,num_decode_tokens\n1,2,x\n", "line 2", id="bad rows alone"),
        pytest.param(VIDUR.replace("arrived_at", "arrived_at,arrived_at").replace("1", "1,1"), "2 times", id="twice"),
        pytest.param(gzip.compress(VIDUR.encode() + b"12,1,1\n" * 100_000)[:-40], "cannot be read", id="torn gzip"),
        pytest.param(VIDUR.encode() + b"12,1,1\n" * 100_000 + b"\xff\xfe", "cannot be read", id="bytes further down"),
        pytest.param(VIDUR + '"' + "a" * 200_000, "cannot be read", id="quote without end"),
    ],
)
def test_what_only_shows_in_reading_names_the_file_too(written, text, said):
    path = written(text)
    with pytest.raises(SpecError, match=said) as error:
        requests(read_trace(path, skip_bad_rows=True))
    assert str(path) in str(error.value)


def test_a_mere_trace_carries_no_measured_times(written):
    assert read_measured(written(AZURE)) is None


def test_conversations_give_lengths_by_characters_a_token(written):
    talk = [{"from": "human", "value": "x" * 41}, {"from": "gpt", "value": "y" * 400}, {"from": "human", "value": "z"}]
    others = [
        {"conversations": talk[1:]},
        {"conversations": talk[:1]},
        {"conversations": [talk[0], {"from": "gpt", "value": ""}]},
        {"conversations": "none"},
        "none",
    ]
    path = written(json.dumps([{"id": "a", "conversations": talk}, *others]))
    assert read_sharegpt(path, chars_per_token=4.0) == ((10, 100),)
    assert read_sharegpt(path, chars_per_token=1000.0) == ((1, 1),)
    for text in (json.dumps(others), "{}", "[", ""):
        with pytest.raises(SpecError):
            read_sharegpt(written(text, "other"), chars_per_token=4.0)
    for chars in (0.0, -1.0, float("nan")):
        with pytest.raises(SpecError, match="chars_per_token"):
            read_sharegpt(path, chars_per_token=chars)


def test_every_shared_trace_is_read(shared_dir):
    expected = {
        "AzureLLMInferenceTrace_code_2023.csv": ("azure", 8819),
        "AzureLLMInferenceTrace_conv_2023.csv": ("azure", 19366),
        "bailian_sample.jsonl": ("bailian", 1),
        "burstgpt_v11_header.csv": ("burstgpt", 1),
        "burstgpt_v12_header.csv": ("burstgpt", 1),
        "llmservingsim_sharegpt_llama-3.1-8b_300_sps10.csv": ("llmservingsim", 300),
        "mooncake_conversation_trace.jsonl.gz": ("mooncake", 12031),
        "measured_vllm_runs/RTXPRO6000__Llama-3.1-8B.requests.jsonl": ("vllm-run", 300),
    }
    for name, (format, n) in expected.items():
        trace = read_trace(shared_dir / "traces" / name)
        found = requests(trace)
        assert (trace.format, len(found)) == (format, n), name
        assert all(a.arrival_s <= b.arrival_s for a, b in pairwise(found)), name
    assert set(FORMATS) >= {format for format, _ in expected.values()}


def test_the_logged_runs_sent_what_the_workload_file_says(shared_dir):
    """The same 300 requests: as they were to be sent, and as the engine saw them."""
    traces = shared_dir / "traces"
    asked = requests(read_trace(traces / "llmservingsim_sharegpt_llama-3.1-8b_300_sps10.csv"))
    run = read_measured(traces / "measured_vllm_runs" / "RTXPRO6000__Llama-3.1-8B.requests.jsonl")
    assert run.input_tokens.tolist() == [a.input_tokens for a in asked]
    # the generator sent each within 30 ms of its time
    np.testing.assert_allclose(run.arrival_s, [a.arrival_s for a in asked], atol=0.03)
