"""Measured cases under load, as the simulator answers them."""

import pytest
from shardwise.planner.predict import predict
from shardwise.validate.measured_case import parse_case
from shardwise.validate.metrics import METRICS, parse_target

ROW = {
    "model": "Llama-3.1-8B",
    "hardware": "A100-80GB-SXM",
    "n_chips": "1",
    "tp": "1",
    "framework": "vLLM",
    "input_len": "512",
    "output_len": "64",
}


def _read(metric, unit="ms", **changes):
    row = ROW | changes
    target = parse_target(metric, unit)
    return target.read(predict(parse_case(row, target.metric))).predicted


def test_one_user_waits_for_nobody():
    alone = _read("ttft", batch="1")
    # lengths are drawn from 0.95 to 1.0 of the nominal ones
    assert (
        0.9 * alone < _read("ttft_mean", concurrency="1") < 1.01 * alone
    )  # whole waves cost the same for a few tokens less
    assert _read("tpot", concurrency="1") == pytest.approx(_read("tpot", batch="1"), rel=0.01)


def test_more_load_never_takes_less_time_and_percentiles_are_in_order():
    tpots = [_read("tpot", concurrency=str(n)) for n in (1, 8, 32)]
    assert tpots == sorted(tpots)
    waits = [_read("ttft_mean", qps=rate) for rate in ("0.5", "8", "40")]
    assert waits == sorted(waits)
    points = [_read(f"ttft_{p}", qps="16") for p in ("p50", "p90", "p99")]
    assert points == sorted(points)
    assert points[0] < points[-1]


def test_below_saturation_the_rate_of_answers_is_the_rate_of_requests():
    assert _read("request_throughput", "req/s", qps="4") == pytest.approx(4.0, rel=0.1)  # 500 Poisson gaps
    assert METRICS["request_throughput"].is_rate


def test_what_a_row_leaves_open_is_chosen_for_throughput():
    row = {"tp": "", "n_chips": "8", "qps": "20"}
    assert _read("output_throughput", "tok/s", **row) == pytest.approx(20 * 64, rel=0.1)
