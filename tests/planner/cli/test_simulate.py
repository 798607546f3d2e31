"""The command `simulate`, and `plan --rate`, as a user has them."""

import json

import pandas as pd
import pytest
from shardwise.planner.cli import app
from typer.testing import CliRunner

SPREADS = ("ttft_s", "tpot_s", "itl_s", "e2e_s")
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.5,374,44\n2023-11-16 18:15:46.9,200000,5\n"


def _run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory):
    made = _run("estimate", "llama-3-8b", "--on", "h100-sxm:1", "--input", 512, "--output", 64, "--json")
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(made.stdout)
    return path


def test_json_has_what_is_promised_and_is_the_same_again(plan_file):
    words = ("simulate", plan_file, "--rate", 5, "--requests", 200, "--ttft", "1s", "--json")
    first, second = (json.loads(_run(*words).stdout) for _ in range(2))
    assert {
        "requests",
        "finished",
        "rejected",
        "duration_s",
        "output_tokens_per_s",
        "goodput_per_s",
        "usd_per_mtok",
    } <= set(first)
    assert {"kv_peak", "wall_s", "seed", "partial", *SPREADS} <= set(first)
    for name in SPREADS:
        assert set(first[name]) == {"mean", "p50", "p90", "p95", "p99"}
    assert (first["requests"], first["finished"], first["partial"]) == (200, 200, False)
    assert {**first, "wall_s": 0} == {**second, "wall_s": 0}


def test_the_tables_say_it_in_words(plan_file):
    done = _run("simulate", plan_file, "--rate", 5, "--requests", 150, "--seeds", 3)
    assert done.exit_code == 0
    assert "TTFT" in done.stdout
    assert "150 of 150 requests answered" in done.stdout
    assert "t-intervals of 3 seeds" in done.stdout


def test_rows_series_and_trace_are_written(plan_file, tmp_path):
    rows, series, spans = tmp_path / "rows.csv", tmp_path / "series.csv", tmp_path / "spans.json"
    _run("simulate", plan_file, "--rate", 5, "--requests", 50, "-o", rows, "--series", series, "--perfetto", spans)
    frame = pd.read_csv(rows)
    assert len(frame) == 50
    assert {"arrival_s", "scheduled_s", "first_token_s", "finish_s", "n_preemptions", "replica", "ttft_s"} <= set(frame)
    assert {"time_s", "n_waiting", "n_running", "used_pages"} <= set(pd.read_csv(series))
    events = json.loads(spans.read_text())["traceEvents"]
    assert {event["name"] for event in events} == {"wait", "prefill", "decode", "system"}


def test_a_trace_is_served_and_what_it_cannot_serve_is_counted(plan_file, tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text(AZURE + "2023-11-16 18:15:40,5,5\n2023-11-16 18:15:50,5,5\n")
    rows = tmp_path / "rows.csv"
    stopped = _run("simulate", plan_file, "--trace", trace, "-o", rows)
    assert stopped.exit_code == 2
    assert not rows.exists()
    assert "line 4" in stopped.stderr
    assert "skip-bad-rows" in stopped.stderr
    done = _run("simulate", plan_file, "--trace", trace, "--skip-bad-rows", "--json")
    summary = json.loads(done.stdout)
    assert (summary["requests"], summary["finished"], summary["rejected"], summary["bad_rows"]) == (3, 2, 1, 1)
    assert "positions" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rate", "fast"), "no number of requests"),
        (("--rate", "0"), "positive number"),
        (("--rate", "1", "--scheduler", "chaos"), "no scheduler"),
        (("--rate", "1", "--scheduler", "disaggregated"), "pool for each phase"),
        (("--rate", "1", "--speculate", "4"), "DRAFT_TOKENS"),
        (("--rate", "1", "--autoscale", "many"), "LEAST:MOST"),
        (("--rate", "1", "--mtbf", "5"), "no quantity"),
        (("--rate", "1", "--fit-steps"), "measured times"),
        (("--rate", "1", "-o", "rows.txt"), ".csv or .parquet"),
        (("--modulated", "2"), "RATE:SECONDS"),
        (("--day-curve", "low,high"), "numbers"),
        ((), "say what comes"),
    ],
)
def test_bad_input_ends_with_2_and_a_sentence(plan_file, words, said):
    done = _run("simulate", plan_file, *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not done.stdout


def test_options_of_the_system_reach_it(plan_file):
    words = ("--rate", 20, "--requests", 200, "--replicas", 2, "--mtbf", "20s", "--repair", "5s", "--lose", "--json")
    summary = json.loads(_run("simulate", plan_file, *words).stdout)
    assert summary["n_failures"] > 0 < summary["lost"]
    words = ("--concurrency", 8, "--requests", 60, "--speculate", "3:0.8:0.1", "--lengths", "lognormal:0.5", "--json")
    assert json.loads(_run("simulate", plan_file, *words).stdout)["finished"] == 60
    words = ("--rate", 20, "--requests", 200, "--autoscale", "1:3:4:1s", "--router", "power-of-two", "--json")
    assert json.loads(_run("simulate", plan_file, *words).stdout)["finished"] == 200


def test_a_plan_for_a_rate_says_what_it_carries_and_one_that_cannot_be_met_ends_with_1():
    words = ("plan", "llama-3-8b", "--on", "h100-sxm:1", "--input", 512, "--output", 64, "--tpot", "30ms", "--rate")
    done = _run(*words, 4)
    assert done.exit_code == 0
    assert "most req/s" in done.stdout
    load = json.loads(_run(*words, 4, "--json").stdout)["plans"][0]["under_load"]
    assert load["is_met"]
    over = _run(*words, 4000)
    assert over.exit_code == 1
    assert "saturate at" in over.stderr
