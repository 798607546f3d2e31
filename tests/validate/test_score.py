import csv
from itertools import pairwise

import pytest
from shardwise.hardware_specs.errors import SpecError
from shardwise.validate.loads import PhaseSeconds, full_queue, scaled_rates
from shardwise.validate.measured_case import parse_case
from shardwise.validate.measured_csv import ADDED_COLUMNS, read_measured, write_scored
from shardwise.validate.metrics import METRICS, Outcome, Quantities
from shardwise.validate.score import count_reasons, score
from shardwise.validate.score_groups import group_scores, total_score

ROW = {
    "model": "llama-2-70b",
    "hardware": "h100-sxm",
    "metric": "ttft",
    "unit": "ms",
    "n_chips": "8",
    "tp": "8",
    "pp": "1",
    "batch": "4",
    "input_len": "512",
    "output_len": "64",
    "value": "100",
}


def made_outcome(seconds=0.2):
    def at(ttft_s):
        return Quantities(ttft_s=ttft_s, tpot_s=ttft_s / 10, output_tokens_per_s=64 / ttft_s)

    return Outcome(expected=at(seconds), quick=at(seconds / 2), slow=at(seconds * 2), n_chips=8, n_nodes=1, n_users=4)


class CountingPredictor:
    """Answers every case alike and keeps the cases it was asked."""

    def __init__(self, refuse=()):
        self.asked = []
        self.refuse = refuse

    def __call__(self, case):
        self.asked.append(case)
        if case.model in self.refuse:
            raise SpecError("this one is\nrefused")
        return made_outcome()


def written(path, rows, columns=None):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_errors_are_relative_to_the_value_in_the_unit_of_the_row():
    (scored,) = score([ROW], CountingPredictor())
    assert scored.prediction.predicted == pytest.approx(200.0)
    assert (scored.prediction.low, scored.prediction.high) == pytest.approx((100.0, 400.0))
    assert scored.error == pytest.approx(1.0)
    assert scored.inside
    assert scored.added() == ("200", "100", "400", "1", "")


def test_rows_keep_their_order_and_one_refusal_stops_none():
    rows = [ROW | {"value": str(i)} for i in (5, 4)]
    rows.insert(1, ROW | {"model": "llama-3-8b"})
    rows.append(ROW | {"metric": "peak_power_norm"})
    scored = score(rows, CountingPredictor(refuse={"llama-3-8b"}))
    assert [s.row for s in scored] == rows
    assert [s.reason for s in scored] == ["", "this one is refused", "", "metric 'peak_power_norm' is not predicted"]
    assert scored[1].added()[:4] == ("", "", "", "")


def test_equal_cases_are_asked_once_even_when_refused():
    predict = CountingPredictor(refuse={"llama-3-8b"})
    score([ROW, ROW | {"value": "7"}, ROW | {"metric": "ttft_p99", "notes": "other"}, ROW | {"tp": "4"}], predict)
    assert len(predict.asked) == 2
    score([ROW | {"model": "llama-3-8b"}] * 3, predict)
    assert len(predict.asked) == 3


def test_every_row_advances_the_bar():
    seen = []
    score([ROW, ROW | {"metric": "x"}], CountingPredictor(), advance=lambda: seen.append(1))
    assert len(seen) == 2


@pytest.mark.parametrize("value", ["nan", "-3", "0", "inf", "fast"])
def test_a_value_that_is_no_number_still_gets_its_prediction(value):
    (scored,) = score([ROW | {"value": value}], CountingPredictor())
    assert scored.prediction is not None
    assert scored.error is None
    assert "no positive number" in scored.reason


def test_an_empty_value_has_a_prediction_and_no_complaint():
    for row in (ROW | {"value": ""}, {k: v for k, v in ROW.items() if k != "value"}):
        (scored,) = score([row], CountingPredictor())
        assert scored.added() == ("200", "100", "400", "", "")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model": "llama-9"}, "no model"),
        ({"model": ""}, "no model"),
        ({"hardware": "abacus"}, "no chip"),
        ({"batch": "0"}, "batch='0'"),
        ({"batch": "-4"}, "batch='-4'"),
        ({"batch": "nan"}, "batch='nan'"),
        ({"batch": "2.5"}, "batch='2.5'"),
        ({"batch": "max_num_seqs 128"}, "no count"),
        ({"batch": ""}, "needs a batch or a concurrency"),
        ({"tp": "0"}, "tp='0'"),
        ({"n_chips": "-1"}, "n_chips='-1'"),
        ({"concurrency": "inf"}, "concurrency='inf'"),
        ({"input_len": ""}, "input_len is blank"),
        ({"input_len": "0"}, "input_len is 0"),
        ({"input_len": "some tokens"}, "no number of tokens"),
        ({"output_len": "", "metric": "e2e"}, "output_len is blank"),
        ({"output_len": "0", "metric": "tpot"}, "no token is decoded"),
        ({"qps": "trace arrivals, 300 req at ~10/s"}, "no rate"),
        ({"qps": "nan"}, "no rate"),
        ({"qps": "-1"}, "no rate"),
        ({"notes": "mode=disagg; DISAGG prefill 4x"}, "pools of their own"),
    ],
)
def test_what_cannot_be_read_has_its_reason(changes, word):
    (scored,) = score([ROW | changes], CountingPredictor())
    assert word in scored.reason
    assert scored.prediction is None


def test_concurrency_goes_before_batch_and_a_queue_needs_neither():
    def case(**changes):
        return parse_case(ROW | changes, METRICS[changes.get("metric", "ttft")])

    assert (case().load, case().n_requests, case().phases) == ("batch", 4, ("prefill",))
    loop = case(concurrency="16")
    assert (loop.load, loop.n_requests, loop.phases) == ("closed loop", 16, ("prefill", "decode"))
    rate = case(qps="4.5")
    assert (rate.load, rate.n_requests, rate.rate_per_s, rate.phases) == ("rate", None, 4.5, ("prefill", "decode"))
    queue = case(batch="", qps="inf (all requests queued)", metric="max_output_throughput")
    assert (queue.load, queue.n_requests) == ("queue", None)
    assert case(batch="", metric="output_throughput").load == "queue"
    assert case(batch="", metric="prefill_throughput", output_len="").phases == ("prefill",)


def test_blank_and_automatic_formats_are_the_models_own():
    case = parse_case(ROW | {"weights_dtype": "UNSET", "kv_dtype": "auto", "dp": "0", "ep": "0"}, METRICS["ttft"])
    assert (case.weights, case.kv_dtype, case.dp, case.ep) == (None, None, None, None)


def test_groups_are_ordered_worst_first_and_reasons_are_counted():
    rows = [
        ROW,
        ROW | {"metric": "tpot", "value": "20"},
        ROW | {"metric": "busbw"},
        ROW | {"source": "s", "value": "50"},
    ]
    scored = score(rows, CountingPredictor())
    groups = group_scores(scored)
    assert [(g.names["source"], g.names["metric"], g.rows, g.predicted) for g in groups] == [
        ("s", "ttft", 1, 1),
        ("", "ttft", 1, 1),
        ("", "tpot", 1, 1),
        ("", "busbw", 1, 0),
    ]
    sizes = [g.median_abs_error for g in groups[:-1]]
    assert all(a >= b for a, b in pairwise(sizes))
    total = total_score(scored)
    assert (total.rows, total.predicted) == (4, 3)
    assert total.median_abs_error == pytest.approx(1.0)
    assert total.inside == pytest.approx(2 / 3)
    assert count_reasons(scored) == {"metric 'busbw' is not predicted": 1}


def test_input_columns_pass_through_as_they_are(tmp_path):
    rows = [ROW | {"value": "1e2", "remark": ' "a, b"\nc ', "id": "007"}, ROW | {"remark": "é", "id": ""}]
    table = read_measured(written(tmp_path / "in.csv", rows))
    assert list(table.rows) == rows
    out = tmp_path / "out.csv"
    scored = score(table.rows, CountingPredictor())
    write_scored(out, [*table.columns, *ADDED_COLUMNS], ([*s.row.values(), *s.added()] for s in scored))
    with out.open(encoding="utf-8", newline="") as file:
        again = list(csv.DictReader(file))
    assert list(again[0]) == [*rows[0], *ADDED_COLUMNS]
    assert [{k: row[k] for k in rows[0]} for row in again] == rows


def test_scoring_an_output_again_gives_the_same_file(tmp_path):
    source = written(tmp_path / "in.csv", [ROW, ROW | {"metric": "busbw"}])
    files = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for out in files:
        table = read_measured(source)
        scored = score(table.rows, CountingPredictor())
        write_scored(out, [*table.columns, *ADDED_COLUMNS], ([*s.row.values(), *s.added()] for s in scored))
        source = out
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"model,hardware\na,b\n", "no column metric, unit"),
        (b"model,hardware,metric,unit\na,b,c\n", "line 2: 3 fields"),
        (b"model,hardware,metric,unit\na,b,c,d,e\n", "5 fields"),
        (b"model,hardware,metric,unit,unit\n", "twice"),
        (b'model,hardware,metric,unit\n"a,b,c,d\n', "cannot be read as CSV"),
        (b"\xff\xfe\x00\x01", "cannot be read as CSV"),
    ],
)
def test_a_broken_table_is_one_sentence_that_names_the_file(tmp_path, content, word):
    path = tmp_path / "cases.csv"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=word) as caught:
        read_measured(path)
    assert "cases.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(SpecError, match=r"no file .*nothing\.csv"):
        read_measured(tmp_path / "nothing.csv")
    with pytest.raises(SpecError, match="is a folder"):
        read_measured(tmp_path)


def test_a_table_without_rows_and_one_with_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_bytes(b"\xef\xbb\xbfmodel,hardware,metric,unit\r\n")
    table = read_measured(path)
    assert table.columns == ("model", "hardware", "metric", "unit")
    assert table.rows == ()


def test_a_failed_write_leaves_the_old_file_and_no_scraps(tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("old")

    def rows():
        yield ["1"]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_scored(out, ["a"], rows())
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]
    with pytest.raises(SpecError, match="cannot write"):
        write_scored(tmp_path / "no" / "out.csv", ["a"], [])


SECONDS = PhaseSeconds(prefill_s=0.5, step_s=0.02, input_tokens=1000, output_tokens=100)


def test_a_full_queue_is_quicker_than_its_batch_at_once_and_has_no_first_token():
    queue = full_queue(SECONDS, prefill_batch=1, decode_batch=32)
    assert queue.requests_per_s == pytest.approx(1 / (0.5 + 2.0 / 32))
    assert queue.ttft_s is None
    assert queue.e2e_s is None
    assert queue.generate_s == pytest.approx(2.0 + 31 * 0.5)


def test_replicas_add_rates_and_leave_times():
    one = full_queue(SECONDS, prefill_batch=1, decode_batch=32)
    four = scaled_rates(one, 4)
    assert four.requests_per_s == pytest.approx(4 * one.requests_per_s)
    assert (four.tpot_s, four.ttft_s) == (one.tpot_s, None)
